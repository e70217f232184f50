"""Which of a guest's addresses is the one to speak to."""

import libvirt
import pytest

from minicloud.hypervisor.addresses import Address, Source, addresses_of, choose


def interface(*addresses, mac="52:54:00:00:00:01"):
    return {"hwaddr": mac, "addrs": [{"addr": one, "prefix": 24, "type": 0} for one in addresses]}


@pytest.mark.parametrize(
    ("interfaces", "ip"),
    [
        ({"vnet0": interface("10.0.0.7")}, "10.0.0.7"),
        ({"lo": interface("127.0.0.1", "::1"), "e": interface("fd00::7", "10.0.0.7")}, "10.0.0.7"),
        ({"eth0": interface("fe80::1%eth0", "fd00::7")}, "fd00::7"),
        ({"eth0": interface("fe80::1"), "eth1": {"hwaddr": "x", "addrs": None}}, None),
        ({}, None),
    ],
)  # fmt: skip
def test_the_address_to_speak_to(interfaces, ip):
    chosen = choose(interfaces, Source.LEASE)
    assert (chosen and chosen.ip) == ip


def test_the_mac_and_the_source_are_kept():
    assert choose({"e": interface("10.0.0.7", mac="aa")}, Source.ARP) == Address(
        "10.0.0.7", Source.ARP, "aa"
    )


def test_guests_of_libvirts_test_driver_and_those_that_are_gone():
    connection = libvirt.open("test:///default")
    uuid = connection.lookupByName("test").UUIDString()
    found = addresses_of(connection, [uuid, "00000000-0000-0000-0000-000000000000"])
    assert set(found) <= {uuid}
    connection.close()
