"""Reads by io_uring: the bytes that lie there, short ends, errors, and queues that go round.

Left out by conftest where io_uring is forbidden.
"""

import errno
import os
import select
from pathlib import Path

import pytest

from nbdserve.iouring import Ring, address_of

DESCRIPTORS = Path("/proc/self/fd")


@pytest.fixture
def ring():
    made = Ring(8)
    yield made
    made.close()


@pytest.fixture
def fd(tmp_path):
    (tmp_path / "file").write_bytes(bytes(range(256)) * 64)
    fd = os.open(tmp_path / "file", os.O_RDONLY)
    yield fd
    os.close(fd)


def ended(ring, count):
    """Wait for so many ends, and return them by tag."""
    found = {}
    while len(found) < count:
        readable, _, _ = select.select([ring.eventfd], [], [], 30)
        assert readable, "no end was told of"
        found |= {tag: result for tag, result, _ in ring.reap(8)}
    return found


def test_the_bytes_and_their_count_are_those_of_the_file(ring, fd):
    views = {tag: memoryview(bytearray(100)) for tag in (7, 2**64 - 1)}
    for offset, (tag, view) in zip((5, 256 * 64 - 40), views.items(), strict=True):
        ring.put(fd, offset, address_of(view), 100, tag)
    ring.publish()
    ring.enter(2)
    assert ended(ring, 2) == {7: 100, 2**64 - 1: 40}
    assert bytes(views[7]) == bytes(range(5, 105))
    assert bytes(views[2**64 - 1]) == bytes(range(216, 256)) + bytes(60)


def test_what_fails_tells_its_errno(ring):
    view = memoryview(bytearray(1))
    ring.put(-1, 0, address_of(view), 1, 1)
    ring.publish()
    ring.enter(1)
    assert ended(ring, 1) == {1: -errno.EBADF}


def test_the_queues_go_round(ring, fd):
    view = memoryview(bytearray(8 * 16))
    for turn in range(100):
        for place in range(8):
            part = view[16 * place : 16 * (place + 1)]
            ring.put(fd, turn * 8 + place, address_of(part), 16, place)
        ring.publish()
        ring.enter(8)
        assert ended(ring, 8) == dict.fromkeys(range(8), 16)
        want = [(turn * 8 + place + at) % 256 for place in range(8) for at in range(16)]
        assert list(view) == want


def test_what_is_not_published_is_not_begun(ring, fd):
    view = memoryview(bytearray(4))
    ring.put(fd, 0, address_of(view), 4, 1)
    ring.publish()
    ring.put(fd, 8, address_of(view), 4, 2)
    ring.enter(1)
    assert ended(ring, 1) == {1: 4}
    ring.publish()
    ring.enter(1)
    assert ended(ring, 1) == {2: 4}


def test_ends_are_taken_a_few_at_a_time_and_told_of_until_few_are_left(ring, fd):
    view = memoryview(bytearray(1))
    for tag in range(5):
        ring.put(fd, 0, address_of(view), 1, tag)
    ring.publish()
    ring.enter(5)
    found = []
    while len(found) < 5:
        select.select([ring.eventfd], [], [], 30)
        while some := ring.reap(2):
            assert len(some) <= 2
            found += [tag for tag, *_ in some]
    assert sorted(found) == list(range(5))


def test_a_ring_leaves_no_descriptor():
    before = len(list(DESCRIPTORS.iterdir()))
    Ring(8).close()
    assert len(list(DESCRIPTORS.iterdir())) == before


def test_what_is_no_size_is_the_systems_error():
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        Ring(0)
