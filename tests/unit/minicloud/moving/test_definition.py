"""What of a domain's XML decides whether it can move."""

import pytest

from minicloud.moving.definition import DiskPlace, parse_definition

RUNNING = """
<domain type='kvm' id='3'>
  <name>web1</name>
  <uuid>5c3a4d53-cea0-402e-b4af-be0ba7d4a9b0</uuid>
  <memory unit='KiB'>2097152</memory>
  <os>
    <type arch='x86_64' machine='pc-q35-7.2'>hvm</type>
    <kernel>/boot/vmlinuz</kernel><initrd>/boot/initrd.img</initrd>
  </os>
  <cpu mode='custom' match='exact' check='full'><model>EPYC</model></cpu>
  <devices>
    <emulator>/usr/bin/qemu-system-x86_64</emulator>
    {devices}
  </devices>
</domain>
"""


def disk(source="", kind="network", extra=""):
    return (
        f"<disk type='{kind}' device='disk'>{source}<target dev='vda' bus='virtio'/>{extra}</disk>"
    )


def nbd(host):
    return f"<source protocol='nbd' name='guest/web1'>{host}</source>"


def parsed(devices=""):
    return parse_definition(RUNNING.format(devices=devices))


def only_disk(devices):
    (one,) = parsed(devices).disks
    return one


def test_a_running_domain_is_read():
    definition = parsed()

    assert definition.name == "web1"
    assert definition.uuid == "5c3a4d53-cea0-402e-b4af-be0ba7d4a9b0"
    assert definition.memory == 2 << 30
    assert (definition.virt_type, definition.arch) == ("kvm", "x86_64")
    assert definition.machine == "pc-q35-7.2"
    assert definition.emulator == "/usr/bin/qemu-system-x86_64"
    assert definition.cpu_mode == "custom"
    assert definition.cpu.startswith("<cpu ")
    assert definition.cpu.endswith("</cpu>")
    assert definition.files == ("/boot/vmlinuz", "/boot/initrd.img")


@pytest.mark.parametrize(
    ("unit", "number", "size"),
    [("KiB", 4096, 4 << 20), ("MiB", 128, 128 << 20), ("GiB", 2, 2 << 30), ("b", 512, 512)],
)
def test_memory_is_read_in_every_unit(unit, number, size):
    xml = RUNNING.replace("unit='KiB'>2097152", f"unit='{unit}'>{number}").format(devices="")

    assert parse_definition(xml).memory == size


def test_an_export_over_tcp_has_its_address():
    one = only_disk(disk(nbd("<host name='10.0.0.1' port='10810'/>")))

    assert one.place is DiskPlace.NBD
    assert (one.host, one.port, one.export) == ("10.0.0.1", 10810, "guest/web1")
    assert one.where == "10.0.0.1:10810/guest/web1"
    assert not one.is_read_only


def test_an_export_without_a_port_has_the_one_of_nbd():
    assert only_disk(disk(nbd("<host name='nbd.lan'/>"))).port == 10809


def test_an_export_at_a_socket_is_told_from_one_over_tcp():
    one = only_disk(disk(nbd("<host transport='unix' socket='/run/nbd.sock'/>")))

    assert one.place is DiskPlace.NBD_SOCKET
    assert one.where == "/run/nbd.sock"


@pytest.mark.parametrize(
    ("kind", "source", "where"),
    [
        ("file", "<source file='/var/lib/web1.raw'/>", "/var/lib/web1.raw"),
        ("block", "<source dev='/dev/vg0/web1'/>", "/dev/vg0/web1"),
        ("volume", "<source pool='default' volume='web1'/>", "default/web1"),
    ],
)
def test_a_disk_of_the_node_is_local(kind, source, where):
    one = only_disk(disk(source, kind))

    assert one.place is DiskPlace.LOCAL
    assert one.where == where


def test_another_protocol_is_named():
    one = only_disk(disk("<source protocol='rbd' name='pool/web1'><host name='mon'/></source>"))

    assert one.place is DiskPlace.NETWORK
    assert one.where == "rbd:pool/web1"


def test_a_drive_without_a_medium_is_empty():
    assert only_disk(disk(kind="file", extra="<readonly/>")).place is DiskPlace.EMPTY


@pytest.mark.parametrize(
    ("host", "is_loopback"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("10.0.0.1", False), ("nbd", False)],
)
def test_loopback_is_known_by_any_name(host, is_loopback):
    one = only_disk(disk(nbd(f"<host name='{host}'/>")))

    assert one.is_on_loopback is is_loopback


def test_each_server_is_asked_for_once():
    seed = disk(nbd("<host name='10.0.0.1' port='10809'/>"), extra="<readonly/>")
    definition = parsed(disk(nbd("<host name='10.0.0.1'/>")) + seed)

    assert definition.servers == (("10.0.0.1", 10809),)
    assert [one.is_read_only for one in definition.disks] == [False, True]


def test_networks_bridges_and_devices_of_the_node_are_found():
    definition = parsed(
        "<interface type='network'><source network='default'/></interface>"
        "<interface type='bridge'><source bridge='br0'/></interface>"
        "<interface type='bridge'><source bridge='br0'/></interface>"
        "<interface type='user'/>"
        "<hostdev mode='subsystem' type='pci'><source>"
        "<address domain='0x0000' bus='0x06' slot='0x02' function='0x0'/></source></hostdev>"
    )

    assert definition.networks == ("default",)
    assert definition.bridges == ("br0",)
    assert definition.passed == ("pci 06:02:0",)


@pytest.mark.parametrize("xml", ["", "<domain>", "<network><name>x</name></network>", "<domain/>"])
def test_what_is_no_domain_is_refused(xml):
    with pytest.raises(ValueError, match=r"no (XML|domain)"):
        parse_definition(xml)
