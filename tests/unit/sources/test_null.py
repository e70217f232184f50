"""The disk of zeroes."""

from nbdserve.extents import ZERO_HOLE, Extent
from nbdserve.sources.null import NullParams, NullSource


async def test_it_reads_zeroes_and_forgets_writes():
    disk = NullSource(NullParams(size=1 << 30))
    await disk.write(0, memoryview(b"gone"), fua=True)
    buffer = bytearray(b"x" * ((3 << 20) + 1))
    assert disk.read_into_nowait(0, memoryview(buffer))
    assert not any(buffer)


async def test_it_is_one_hole():
    disk = NullSource(NullParams(size=1 << 62))
    assert await disk.extents(5, 1 << 61) == [Extent(1 << 61, ZERO_HOLE)]
