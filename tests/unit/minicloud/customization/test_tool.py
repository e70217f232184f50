"""What a machine's virt-customize can do, and how it is called."""

import pytest

from minicloud.booting.virttype import KvmFacts
from minicloud.customization.command import Command
from minicloud.customization.tool import Appliance, Tool, adapted, argv, nbd_uri, parse_survey
from minicloud.domain.plan import TcpServer, UnixServer
from minicloud.errors import NodeError, Reason
from virtcustomize import LATER, OLD

HELP = """\
virt-customize 1.48.2
virt-customize: customize a virtual machine

Options:
  -a, --add <file>                    Add disk image file
  --append-line <FILE:LINE>           Append line(s) to --nothing
  --color, --colors, --colour         Use ANSI colour sequences
  --commands-from-file <FILENAME>     Read customize commands from file
  --password-crypto <md5|sha256|sha512>
                                      Set password crypto
"""


BOOT = "0f9f2e8c-9f8e-4c44-a1de-3d7e3c1b2a10"


def tool(words):
    return Tool("1.48.2", frozenset(words), KvmFacts(BOOT, "x86_64", may_work=False))


def test_the_help_tells_the_words():
    told = parse_survey(f"{BOOT}\nx86_64\n{HELP}")
    assert (told.version, told.kvm.may_work) == ("1.48.2", False)
    assert {"add", "append-line", "colour", "password-crypto"} <= told.words
    assert {"file", "customize"}.isdisjoint(told.words)


@pytest.mark.parametrize(
    ("facts", "may"),
    [
        ("x86_64\n/sys/module/kvm_intel\n/dev/kvm\n", True),
        ("x86_64\n/sys/module/kvm_amd\n/dev/kvm\n", True),
        ("x86_64\n/dev/kvm\n", False),  # PVM: it opens, and runs no guest
        ("x86_64\n/sys/module/kvm_intel\n", False),
        ("aarch64\n/dev/kvm\n", True),
        ("aarch64\n", False),
    ],
)
def test_kvm_is_believed_where_its_module_is_there(facts, may):
    assert parse_survey(f"{BOOT}\n{facts}{HELP}").kvm == KvmFacts(BOOT, facts.split()[0], may)


def test_what_is_no_virt_customize_is_told():
    with pytest.raises(NodeError, match="does not say what it can do: 'x86_64\\\\nbroken'"):
        parse_survey("x86_64\nbroken")


def test_an_old_one_relabels_unless_it_is_told_not_to():
    hostname = Command("hostname", "web1")
    assert adapted([hostname], tool(OLD)) == (hostname, Command("selinux-relabel"))
    assert adapted([Command("no-selinux-relabel"), hostname], tool(OLD)) == (hostname,)
    assert adapted([hostname], tool(LATER)) == (hostname,)


def test_a_subscription_is_spelled_out_where_there_are_no_words_for_it():
    given = (
        Command("sm-credentials", "me:file:", b"pw\n"),
        Command("sm-register"),
        Command("sm-unregister"),
    )
    assert adapted(given, tool(OLD))[:-1] == given
    assert [one.word for one in adapted(given, tool(LATER))] == ["run", "run-command"]


def test_a_word_it_does_not_have_is_refused():
    with pytest.raises(NodeError, match=r"virt-customize 1.48.2 has no --tar-in; install") as error:
        adapted([Command("tar-in", "x")], tool(OLD))
    assert error.value.reason is Reason.TOOL


def test_the_format_is_said_and_no_secret_is():
    assert argv("nbd://a/b", Appliance()) == [
        "virt-customize", "--format", "raw", "-a", "nbd://a/b", "--commands-from-file", "commands",
    ]  # fmt: skip
    assert argv("u", Appliance(has_network=False, memory=900, cpus=2))[5:-2] == [
        "--no-network", "--memsize", "900", "--smp", "2",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("server", "uri"),
    [
        (TcpServer("nbd.lan", 10809), "nbd://nbd.lan:10809/guest/web1"),
        (TcpServer("fd00::1", 1), "nbd://[fd00::1]:1/guest/web1"),
        (UnixServer("/run/nbd.sock"), "nbd:///guest/web1?socket=/run/nbd.sock"),
    ],
)
def test_an_export_is_named_by_a_uri(server, uri):
    assert nbd_uri(server, "guest/web1") == uri
