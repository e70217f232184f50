"""The magic packet, byte for byte, and where it goes."""

import sys

import pytest

from minicloud.wakeup import broadcasts, magic_packet

HEADER = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"


def word(address):
    return f"{int.from_bytes(bytes(map(int, address.split('.'))), sys.byteorder):08X}"


def route(destination, mask, flags="0001", gateway="0.0.0.0"):
    return (
        f"eth0\t{word(destination)}\t{word(gateway)}\t{flags}\t0\t0\t100\t{word(mask)}\t0\t0\t0\n"
    )


ROUTES = (
    HEADER
    + route("0.0.0.0", "0.0.0.0", "0003", "10.1.0.1")
    + route("10.1.0.0", "255.255.240.0")
    + route("192.168.7.0", "255.255.255.0")
    + route("172.16.0.0", "255.240.0.0", "0003", "10.1.0.9")
)


def test_the_packet_is_six_times_ff_and_sixteen_times_the_address():
    packet = magic_packet("74:d4:35:51:AB:86")

    assert len(packet) == 102
    assert packet[:6] == b"\xff\xff\xff\xff\xff\xff"
    assert packet[6:] == bytes([0x74, 0xD4, 0x35, 0x51, 0xAB, 0x86]) * 16


@pytest.mark.parametrize("mac", ["", "74:d4:35:51:ab", "74-d4-35-51-ab-86", "74:d4:35:51:ab:8g"])
def test_what_is_no_address_is_refused(mac):
    with pytest.raises(ValueError, match="aa:bb:cc:dd:ee:ff"):
        magic_packet(mac)


@pytest.mark.parametrize(
    ("address", "broadcast"), [("10.1.3.4", "10.1.15.255"), ("192.168.7.9", "192.168.7.255")]
)
def test_the_network_of_the_node_is_broadcast_to(address, broadcast):
    assert broadcasts(ROUTES, [address]) == ("255.255.255.255", broadcast)


@pytest.mark.parametrize("address", ["8.8.8.8", "172.16.3.4", "fe80::1", "ham1"])
def test_a_node_on_no_network_of_ours_is_only_called_everywhere(address):
    assert broadcasts(ROUTES, [address]) == ("255.255.255.255",)


def test_without_routes_there_is_one_broadcast():
    assert broadcasts("", ["10.1.3.4"]) == ("255.255.255.255",)


def test_each_broadcast_is_named_once():
    assert broadcasts(ROUTES, ["10.1.3.4", "10.1.3.5"]) == ("255.255.255.255", "10.1.15.255")
