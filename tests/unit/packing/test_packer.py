"""Order, bounds and errors of packing."""

import asyncio
import lzma
import subprocess

import pytest

from chains import pattern
from nbdserve.errors import DeviceError, SourceUnavailableError
from nbdserve.formats.xzpack import Packing
from nbdserve.packing.outputfile import OutputFile
from nbdserve.packing.packer import pack
from nbdserve.packing.progress import Progress

UNIT = 64 << 10


class Image:
    """An image made of blocks given by a function; notes how far it was read."""

    def __init__(self, blocks, make, *, tail=0):
        self.size = blocks * UNIT + tail
        self.read = 0
        self._make = make

    async def read_block(self, offset, view):
        await asyncio.sleep(0)
        self.read += 1
        data = self._make(offset // UNIT)
        if data is None:
            return False
        view[:] = data[: len(view)]
        return True


async def packed(image, path, **options):
    progress = Progress(image.size)
    with OutputFile(path, force=False) as output:
        done = await pack(image, output, Packing(UNIT, 0), progress=progress, **options)
        output.commit()
    assert progress.done == image.size
    assert done.packed_size == path.stat().st_size
    return done


def unpacked(path):
    return subprocess.run(["xz", "-dc", path], capture_output=True, check=True).stdout


@pytest.mark.parametrize("threads", [1, 2, 7])
async def test_blocks_stand_in_the_order_of_the_image(tmp_path, threads):
    data = pattern(50 * UNIT + 777)
    image = Image(50, lambda number: data[number * UNIT :], tail=777)
    done = await packed(image, tmp_path / "out", threads=threads)
    assert unpacked(tmp_path / "out") == data
    assert (done.size, done.blocks, done.zero_blocks) == (len(data), 51, 0)


async def test_zeroes_are_one_block_whether_known_or_found(tmp_path):
    data = pattern(UNIT)
    blocks = [data, None, bytes(UNIT), data, None]
    done = await packed(Image(4, blocks.__getitem__, tail=100), tmp_path / "out", threads=2)
    assert done.zero_blocks == 3
    assert unpacked(tmp_path / "out") == data + bytes(2 * UNIT) + data + bytes(100)


async def test_zeroes_are_compressed_once_for_each_size(tmp_path, monkeypatch):
    made = []

    def counted(*args, **options):
        made.append(args)
        return real(*args, **options)

    real = lzma.LZMACompressor
    monkeypatch.setattr(lzma, "LZMACompressor", counted)
    blocks = [None, bytes(UNIT)] * 50
    done = await packed(Image(99, blocks.__getitem__, tail=100), tmp_path / "out", threads=2)
    assert done.zero_blocks == done.blocks == 100
    assert len(made) == 2


async def test_an_empty_image_is_packed(tmp_path):
    await packed(Image(0, None), tmp_path / "out", threads=1)
    assert unpacked(tmp_path / "out") == b""


async def test_no_more_blocks_are_read_than_memory_is_meant_for(tmp_path):
    """The first block is held up in its thread; what is behind it waits to be written."""
    held = asyncio.Event()
    data = pattern(UNIT)
    image = Image(1000, lambda number: data)
    ended = asyncio.Event()

    class HeldUp(Progress):
        def advance(self, length):
            super().advance(length)
            loop.call_soon_threadsafe(held.set)
            asyncio.run_coroutine_threadsafe(ended.wait(), loop).result()

    loop = asyncio.get_running_loop()
    with OutputFile(tmp_path / "out", force=False) as output:
        packing = pack(image, output, Packing(UNIT, 0), threads=2, progress=HeldUp(image.size))
        task = asyncio.create_task(packing)
        await held.wait()
        for _ in range(1000):
            await asyncio.sleep(0)
        assert image.read == 4
        ended.set()
        await task
    assert image.read == 1000


async def test_an_image_that_cannot_be_read_ends_it_with_its_error(tmp_path):
    def make(number):
        if number == 3:
            raise SourceUnavailableError("the mirror is away")
        return pattern(UNIT)

    with pytest.raises(DeviceError, match="the mirror is away"):
        await packed(Image(10, make), tmp_path / "out", threads=2)
    assert list(tmp_path.iterdir()) == []
