import pytest

from minicloud.facts.addresses import useful_addresses
from minicloud.model.address import AddressSource, Seen

LEASE, AGENT, ARP = AddressSource
MAC = "52:54:00:00:00:01"


def seen(address, mac=MAC, prefix=24, interface="eth0"):
    return Seen(address, prefix, mac, interface)


def addresses(found, macs=(MAC,)):
    return [one.address for one in useful_addresses(found, macs)]


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "::1", "169.254.3.4", "fe80::1", "0.0.0.0", "::", "224.0.0.1", "ff02::1", "x"],
)
def test_what_nobody_can_reach_is_left_out(address):
    assert addresses({AGENT: (seen(address),)}) == []


def test_a_lease_is_trusted_more_than_the_agent_and_that_more_than_arp():
    found = {ARP: (seen("10.0.0.3"),), LEASE: (seen("10.0.0.1"),), AGENT: (seen("10.0.0.2"),)}
    assert addresses(found) == ["10.0.0.1", "10.0.0.2", "10.0.0.3"]


def test_an_address_several_know_comes_once_with_all_of_them():
    found = {
        ARP: (Seen("10.0.0.1", 0, MAC, "vmbr0"),),
        AGENT: (Seen("10.0.0.1", 24, MAC, "eth0"),),
    }
    [one] = useful_addresses(found, [MAC])
    assert one.sources == (AGENT, ARP)
    assert (one.prefix, one.interface) == (24, "eth0")


def test_ipv4_comes_before_ipv6_of_the_same_source():
    assert addresses({AGENT: (seen("2001:db8::1"), seen("10.0.0.1"))}) == [
        "10.0.0.1", "2001:db8::1",
    ]  # fmt: skip


def test_ipv6_is_one_address_however_it_is_written():
    found = {LEASE: (seen("2001:DB8:0::1"),), AGENT: (seen("2001:db8::1"),)}
    assert addresses(found) == ["2001:db8::1"]


def test_a_network_inside_the_guest_comes_last():
    docker = seen("172.17.0.1", mac="02:42:00:00:00:01", interface="docker0")
    assert addresses({AGENT: (docker, seen("10.0.0.1"))}) == ["10.0.0.1", "172.17.0.1"]


def test_an_unknown_source_is_no_trouble():
    assert addresses({}) == []
