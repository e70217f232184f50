from dataclasses import replace

import pytest

from guestplans import TCP, make_plan
from minicloud.domain.plan import (
    GuestOptions,
    Network,
    NetworkKind,
    TcpServer,
    UnixServer,
    parse_network,
    server_of,
)
from minicloud.errors import UsageError
from minicloud.model.inventory import Bus, NbdService, VirtType


def test_what_is_asked_for_goes_before_the_template():
    plan = make_plan(options=GuestOptions(memory=1 << 30, vcpus=4, network="none"))
    assert (plan.memory, plan.vcpus, plan.network) == (1 << 30, 4, Network(NetworkKind.NONE))


def test_what_is_not_asked_for_is_the_templates():
    plan = make_plan(memory=3 << 30, vcpus=3, network="bridge:br0")
    assert (plan.memory, plan.vcpus) == (3 << 30, 3)
    assert plan.network == Network(NetworkKind.BRIDGE, "br0")


@pytest.mark.parametrize(
    ("virt", "cpu", "chosen"),
    [
        (VirtType.QEMU, None, "maximum"),
        (VirtType.QEMU, "host-passthrough", "maximum"),
        (VirtType.QEMU, "host-model", "maximum"),
        (VirtType.QEMU, "Nehalem", "Nehalem"),
        (VirtType.KVM, None, "host-model"),
        (VirtType.KVM, "host-passthrough", "host-passthrough"),
    ],
)
def test_the_processor_is_one_that_the_virt_type_has(virt, cpu, chosen):
    assert make_plan(virt=virt, cpu=cpu).cpu == chosen


@pytest.mark.parametrize(
    ("bus", "is_cdrom", "seed"),
    [
        (Bus.VIRTIO, False, Bus.VIRTIO),
        (Bus.VIRTIO, True, Bus.SATA),
        (Bus.SCSI, True, Bus.SATA),
        (Bus.IDE, True, Bus.IDE),
        (Bus.SCSI, False, Bus.SCSI),
    ],
)
def test_the_seed_is_read_only_on_a_bus_that_can_have_it(bus, is_cdrom, seed):
    plan = make_plan(bus=bus, seed=True, options=GuestOptions(seed_is_cdrom=is_cdrom))
    root, other = plan.disks
    assert (root.export, root.bus, root.read_only, root.is_cdrom) == (
        "guest/web1",
        bus,
        False,
        False,
    )
    assert (other.export, other.bus, other.read_only) == ("seed/web1", seed, True)
    assert other.is_cdrom == is_cdrom


def test_a_long_name_makes_a_serial_that_is_not_cut_by_the_guest():
    assert make_plan("x" * 63).disks[0].serial == "x" * 20


@pytest.mark.parametrize(
    ("options", "told"), [({"memory": 1024}, "at least 16M"), ({"vcpus": 0}, "at least 1")]
)
def test_what_starts_no_guest_is_refused(options, told):
    with pytest.raises(UsageError, match=told):
        make_plan(options=GuestOptions(**options))


@pytest.mark.parametrize(
    ("text", "network"),
    [
        ("network:default", Network(NetworkKind.NETWORK, "default")),
        ("bridge:br0.7", Network(NetworkKind.BRIDGE, "br0.7")),
        ("user", Network(NetworkKind.USER)),
        ("none", Network(NetworkKind.NONE)),
    ],
)
def test_a_network_is_read(text, network):
    assert parse_network(text) == network


@pytest.mark.parametrize(
    "text", ["", "default", "network:", "bridge", "none:x", "user:", "bridge:a b"]
)
def test_what_is_no_network_is_refused(text):
    with pytest.raises(UsageError, match="write network:NAME, bridge:NAME, user or none"):
        parse_network(text)


def test_guests_reach_the_exports_where_the_inventory_says():
    nbd = NbdService(address="nbd.lan", tls=True, tls_hostname="x")
    assert server_of(nbd) == TcpServer("nbd.lan", 10809, tls=True, tls_hostname="x")
    assert server_of(replace(nbd, tls=False, tls_hostname=None)) == TCP
    assert server_of(replace(nbd, socket="/run/n.sock")) == UnixServer("/run/n.sock")
