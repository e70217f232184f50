"""virt-customize as a machine has it: what it can do, and how it is called. Pure.

Its words come and go with its version, so its own --help is asked. It would use KVM wherever
/dev/kvm opens, and hang for ever where that runs no guest; so it is told to emulate, by the rule of
`boot` for nodes whose virt-type is `auto` and by what that has found out; no probe is booted.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote

from minicloud.booting.virttype import KVM_SCRIPT, KvmFacts, parse_kvm_facts
from minicloud.customization.command import Command
from minicloud.customization.subscription import WORDS, spelled_out
from minicloud.domain.plan import TcpServer, UnixServer
from minicloud.errors import NodeError, Reason

__all__ = ["INSTALL", "SURVEY", "Appliance", "Tool", "adapted", "argv", "nbd_uri", "parse_survey"]

PROGRAM: Final = "virt-customize"
INSTALL: Final = (
    "install guestfs-tools (Fedora/RHEL: dnf install guestfs-tools; Debian/Ubuntu: apt install "
    "guestfs-tools), or use --cloud-init for host name, users, keys and packages"
)

SURVEY: Final = f"""
command -v {PROGRAM} >/dev/null || exit 127
{KVM_SCRIPT}
{PROGRAM} --version
LC_ALL=C {PROGRAM} --help
"""
"""A shell script that tells all there is to know; 127 where virt-customize is missing."""

_HELP_WORD = re.compile(r"--([a-z][a-z-]*)")
_VERSION = re.compile(rf"^{PROGRAM} (\S+)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Tool:
    """A machine's virt-customize.

    Attributes:
        version: its own, `1.48.2`.
        words: options it has, without hyphens in front.
        kvm: what its machine says of KVM.
    """

    version: str
    words: frozenset[str]
    kvm: KvmFacts


@dataclass(frozen=True, slots=True)
class Appliance:
    """The small machine in which virt-customize works.

    Attributes:
        has_network: what runs there may connect to the outside.
        memory: MiB, or None for libguestfs's own choice.
        cpus: likewise how many.
    """

    has_network: bool = True
    memory: int | None = None
    cpus: int | None = None


def parse_survey(text: str) -> Tool:
    """Read what SURVEY printed.

    Raises:
        NodeError: that is not virt-customize's help.
    """
    version = _VERSION.search(text)
    options = [line for line in text.splitlines() if line.lstrip().startswith("-")]
    words = frozenset(word for line in options for word in _HELP_WORD.findall(line))
    if version is None or "commands-from-file" not in words:
        raise NodeError(
            Reason.TOOL, f"its {PROGRAM} does not say what it can do: {text[-200:]!r}", INSTALL
        )
    return Tool(version[1], words, parse_kvm_facts(text[: version.start()]))


def adapted(commands: Sequence[Command], tool: Tool) -> tuple[Command, ...]:
    """Write commands in the words this virt-customize has.

    Raises:
        NodeError: it has none for one of them.
    """
    if not tool.words >= WORDS:
        commands = spelled_out(commands)
    if "selinux-relabel" in tool.words and "no-selinux-relabel" not in tool.words:
        commands = _relabelled(commands)
    for command in commands:
        if command.word not in tool.words:
            raise NodeError(
                Reason.TOOL, f"{PROGRAM} {tool.version} has no --{command.word}",
                "install a later guestfs-tools, or do it with --run-command",
            )  # fmt: skip
    return tuple(commands)


def argv(uri: str, appliance: Appliance) -> list[str]:
    """Write the command line; the commands file comes last and stands in its folder.

    Its format is said, so that no guest can make its raw disk look like another (CVE-2010-3851).
    """
    words = [PROGRAM, "--format", "raw", "-a", uri]
    if not appliance.has_network:
        words.append("--no-network")
    if appliance.memory is not None:
        words += ["--memsize", str(appliance.memory)]
    if appliance.cpus is not None:
        words += ["--smp", str(appliance.cpus)]
    return [*words, "--commands-from-file", "commands"]


def nbd_uri(server: TcpServer | UnixServer, export: str) -> str:
    """Name an export for libguestfs; it knows `nbd+unix:` from 1.54 on only."""
    name = quote(export)
    if isinstance(server, UnixServer):
        return f"nbd:///{name}?socket={quote(server.path)}"
    host = f"[{server.host}]" if ":" in server.host else server.host
    return f"nbd://{host}:{server.port}/{name}"


def _relabelled(commands: Sequence[Command]) -> tuple[Command, ...]:
    """Have an old one relabel, as later ones do unless they are told not to."""
    kept = tuple(command for command in commands if command.word != "no-selinux-relabel")
    if len(kept) < len(commands):
        return kept
    return (*kept, Command("selinux-relabel"))
