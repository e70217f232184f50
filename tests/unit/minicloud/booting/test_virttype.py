"""What is believed of a node's KVM before anything is tried, and what is kept of the trying."""

import pytest

from minicloud.booting.virttype import Known, KvmFacts, parse_kvm_facts
from minicloud.errors import NodeError
from minicloud.model.inventory import VirtType

BOOT = "0a1b2c3d-0000-4000-8000-000000000000"


@pytest.mark.parametrize(
    ("lines", "may_work"),
    [
        (["x86_64", "/sys/module/kvm_intel", "/dev/kvm"], True),
        (["x86_64", "/sys/module/kvm_amd", "/dev/kvm"], True),
        (["x86_64", "/dev/kvm"], False),  # another KVM, e.g. kvm_pvm: takes guests, runs none
        (["x86_64", "/sys/module/kvm_intel"], False),
        (["x86_64"], False),
        (["aarch64", "/dev/kvm"], True),
        (["aarch64"], False),
    ],
)
def test_without_an_x86_makers_module_kvm_is_not_even_tried(lines, may_work):
    facts = parse_kvm_facts("\n".join([BOOT, *lines]) + "\n")
    assert facts == KvmFacts(BOOT, lines[0], may_work)


@pytest.mark.parametrize("text", ["", "no shell here", f"{BOOT}\n"])
def test_a_node_that_does_not_say_is_not_guessed(text):
    with pytest.raises(NodeError, match="set virt-type of the node"):
        parse_kvm_facts(text)


def test_what_a_boot_has_shown_holds_until_the_next_one(tmp_path):
    known = Known(tmp_path / "cache")
    assert known.read("n1", BOOT) is None
    known.write("n1", BOOT, VirtType.KVM)
    known.write("n2", BOOT, VirtType.QEMU)
    assert known.read("n1", BOOT) is VirtType.KVM
    assert known.read("n2", BOOT) is VirtType.QEMU
    assert known.read("n1", "another boot") is None


@pytest.mark.parametrize("text", ["", "[]", '{"n1": 7}', '{"n1": {"boot": "B"}}', "\0"])
def test_a_file_that_is_spoilt_costs_a_probe_and_nothing_else(tmp_path, text):
    (tmp_path / "virt-types.json").write_text(text)
    known = Known(tmp_path)
    assert known.read("n1", "B") is None
    known.write("n1", "B", VirtType.KVM)
    assert known.read("n1", "B") is VirtType.KVM
    assert len(list(tmp_path.iterdir())) == 1
