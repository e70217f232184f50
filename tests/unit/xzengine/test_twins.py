"""Which blocks may be the same: by their sizes, then by a digest, of which not all are kept."""

import lzma

from nbdserve.xzengine import twins
from nbdserve.xzengine.twins import Twins, digest_of
from xz_chain import index_of, stored


def test_only_blocks_of_the_same_sizes_may_be_the_same():
    index = index_of(lzma.compress(bytes(50_000)) * 2 + lzma.compress(bytes(50_001)))
    found = Twins(index)
    assert [found.may_have_one(index.block(number)) for number in range(3)] == [True, True, False]


def test_data_that_does_not_compress_is_not_compared():
    """Its blocks have all the same sizes, and comparing costs more than decoding them does."""
    index = index_of(stored(bytes(50_000)) * 2)
    assert not Twins(index).may_have_one(index.block(0))


def test_the_first_with_a_digest_is_told_until_it_is_withdrawn():
    found = Twins(index_of(lzma.compress(b"")))
    assert [found.first_with(b"a", number) for number in (5, 6)] == [5, 5]
    found.withdraw(b"a", 6)
    assert found.known(b"a", 6) == 5
    found.withdraw(b"a", 5)
    assert found.first_with(b"a", 6) == 6


def test_digests_long_unused_are_forgotten(monkeypatch):
    monkeypatch.setattr(twins, "_KEPT", 2)
    found = Twins(index_of(lzma.compress(b"")))
    for digest, number in ((b"zero", 0), (b"a", 1), (b"zero", 2), (b"b", 3)):
        found.first_with(digest, number)
    assert [found.known(digest, -1) for digest in (b"zero", b"a", b"b")] == [0, -1, 3]


def test_a_digest_leaves_the_stream_header_out():
    packed = lzma.compress(bytes(50_000))
    block = index_of(packed).block(0)
    given = memoryview(packed)[: block.fetch_length]
    other = memoryview(bytes(12) + packed[12:])[: block.fetch_length]
    assert digest_of(block, given) == digest_of(block, other)
