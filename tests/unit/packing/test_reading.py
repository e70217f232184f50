"""What is packed is all of the image and nothing else, whatever it lies in."""

import lzma
import os

import pytest

from chains import pattern
from nbdserve.build import open_chain
from nbdserve.device import Passthrough
from nbdserve.errors import CorruptDataError
from nbdserve.packing.reading import DeviceReader, XzReader, is_xz
from nbdserve.spec import ElementSpec, ExportSpec
from nbdserve.xzengine.indexing import index_of

UNIT = 64 << 10
PIECE = 5000


class Watched(Passthrough):
    """Notes what is read of a device, and streams it in small pieces."""

    def __init__(self, inner):
        super().__init__(inner)
        self.ranges = []
        self.streams = []

    async def stream(self, offset, length):
        self.streams.append((offset, length))
        for at in range(offset, offset + length, PIECE):
            yield await self.inner.read(at, min(PIECE, offset + length - at))

    async def read_into(self, offset, view):
        self.ranges.append((offset, len(view)))
        await super().read_into(offset, view)


@pytest.fixture
async def opened(tmp_path):
    """Put bytes (or a sparse file, by a function) into a file and open it: `await opened(…)`."""
    chains = []

    async def opened(contents):
        path = tmp_path / f"{len(chains)}"
        if callable(contents):
            with path.open("wb") as file:
                contents(file)
        else:
            path.write_bytes(contents)
        source = ElementSpec("file", (("path", str(path)),))
        chains.append(await open_chain(ExportSpec(source, read_only=True)))
        return Watched(chains[-1].outermost)

    yield opened
    for chain in chains:
        await chain.close()


async def read_all(reader, unit=UNIT):
    data, known_zero = b"", []
    for number, offset in enumerate(range(0, reader.size, unit)):
        buffer = bytearray(min(unit, reader.size - offset))
        if not await reader.read_block(offset, memoryview(buffer)):
            known_zero.append(number)
        data += buffer
    return data, known_zero


async def test_holes_are_not_read(opened):
    data = pattern(UNIT)

    def sparse(file):
        file.truncate(8 * UNIT)
        for at in (2 * UNIT, 5 * UNIT + 32768):
            file.seek(at)
            file.write(data)

    device = await opened(sparse)
    read, known_zero = await read_all(DeviceReader(device))
    wanted = bytearray(8 * UNIT)
    wanted[2 * UNIT : 3 * UNIT] = data
    wanted[5 * UNIT + 32768 : 6 * UNIT + 32768] = data
    assert read == wanted
    assert known_zero == [0, 1, 3, 4, 7]
    assert device.ranges == [(2 * UNIT, UNIT), (5 * UNIT + 32768, 32768), (6 * UNIT, 32768)]


async def unpacked(device, unit=UNIT):
    reader = XzReader(device, await index_of(device))
    try:
        return (await read_all(reader, unit))[0]
    finally:
        await reader.aclose()


async def test_an_xz_file_is_told_by_its_first_bytes(opened):
    assert await is_xz(await opened(lzma.compress(b"x")))
    assert not await is_xz(await opened(b"\xfd7zX"))
    assert not await is_xz(await opened(pattern(4096)))


@pytest.mark.parametrize("unit", [4096, UNIT, 1 << 20])
async def test_a_single_block_is_read_in_order(opened, unit):
    data = pattern(300_001)
    assert await unpacked(await opened(lzma.compress(data)), unit) == data


async def test_every_stream_is_read_whatever_lies_between(opened):
    """Stream padding and empty streams: a decoder left to itself takes the first for the end."""
    parts = [pattern(100_000), os.urandom(50_000), bytes(70_000)]
    empty = lzma.compress(b"")
    one, two, three = map(lzma.compress, parts)
    device = await opened(empty + one + bytes(8) + empty + two + bytes(1024) + three + bytes(4))
    assert await unpacked(device) == b"".join(parts)


async def test_each_stream_is_asked_for_once(opened):
    one, two = lzma.compress(os.urandom(100_000)), lzma.compress(os.urandom(50_000))
    device = await opened(one + two)
    await unpacked(device)
    assert device.streams == [(0, len(one)), (len(one), len(two))]


@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
async def test_a_damaged_file_is_never_packed(opened, place):
    packed = bytearray(lzma.compress(os.urandom(200_000)))
    packed[int(len(packed) * place)] ^= 0x40
    with pytest.raises(CorruptDataError, match="fetch it again"):
        await unpacked(await opened(bytes(packed)))


async def test_damage_behind_the_last_byte_of_data_is_seen(opened):
    """The check of the last block comes after its data, here in a piece of its own."""
    data = os.urandom(4 * PIECE - 27)
    packed = bytearray(lzma.compress(data, check=lzma.CHECK_CRC64))
    index = await index_of(await opened(bytes(packed)))
    check = 12 + index.unpadded[0] - 8
    assert check > 4 * PIECE
    packed[check] ^= 1
    with pytest.raises(CorruptDataError):
        await unpacked(await opened(bytes(packed)))


async def test_a_cut_file_is_refused(opened):
    packed = lzma.compress(os.urandom(200_000))
    with pytest.raises(CorruptDataError):
        await unpacked(await opened(packed[:-100]))
