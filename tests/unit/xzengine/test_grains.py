"""Zeroes are told from data on the image's own grid, whatever the chunks are."""

import random
from itertools import pairwise

import pytest

from nbdserve.xzengine.grains import GRAIN, parts


@pytest.mark.parametrize("offset", [0, 1, GRAIN - 1, GRAIN, 5 * GRAIN + 77])
def test_parts_cover_the_chunk_and_tell_the_truth(offset):
    rng = random.Random(offset)
    chunk = b"".join(rng.choice([bytes(20_000), b"\1" * 30_000, bytes(GRAIN)]) for _ in range(20))
    at = 0
    kinds = []
    for begin, end, zero in parts(memoryview(chunk), offset):
        assert begin == at < end
        assert not zero or not any(chunk[begin:end])
        kinds.append(zero)
        at = end
    assert at == len(chunk)
    assert all(a != b for a, b in pairwise(kinds)), "neighbours are joined"


def test_every_aligned_grain_of_zeroes_is_found():
    chunk = b"x" * 100 + bytes(3 * GRAIN) + b"y"
    found = [(begin, end) for begin, end, zero in parts(memoryview(chunk), 0) if zero]
    assert found == [(GRAIN, 3 * GRAIN)]


def test_nothing_has_no_parts():
    assert list(parts(memoryview(b""), 5)) == []
