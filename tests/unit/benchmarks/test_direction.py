"""The arithmetic of a link."""

import pytest
from remote.direction import Direction

# a link that sends a byte in 8 ms: a packet of 62 bytes takes (62 + 38) * 8 ms
SLOW = {"delay": 2.0, "rate": 1000.0}


def test_a_packet_arrives_after_its_bytes_and_the_delay():
    way = Direction(**SLOW, queue=1000)
    way.send(bytes(62), now=10.0)
    assert way.arrived(12.79) is None
    assert way.due() == pytest.approx(12.8)
    assert way.arrived(12.81) == bytes(62)
    assert way.due() is None


def test_packets_share_the_link_and_the_delay_overlaps():
    way = Direction(**SLOW, queue=1000)
    for _ in range(3):
        way.send(bytes(62), now=0.0)
    arrivals = []
    while (due := way.due()) is not None:
        arrivals.append(due)
        way.arrived(due)
    assert arrivals == pytest.approx([2.8, 3.6, 4.4])


def test_what_does_not_fit_the_queue_is_dropped():
    way = Direction(**SLOW, queue=150)
    for _ in range(4):
        way.send(bytes(62), now=0.0)
    assert way.dropped == 2
    way.send(bytes(62), now=1.0)
    assert way.dropped == 2


def test_the_share_to_lose_is_lost():
    way = Direction(delay=0, rate=1e12, queue=1 << 30, loss=0.25)
    for number in range(10_000):
        way.send(b"x", now=number)
    assert 2300 < way.dropped < 2700
