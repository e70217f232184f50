"""Every source and layer keeps the contract of Device; a new one gets its row here."""

import contextlib
import itertools
import random
import tempfile
from pathlib import Path

import pytest

from chains import chain, packed, pattern, sparse, website
from nbdserve.absent import Absent
from nbdserve.build import open_chain
from nbdserve.device import NoParams
from nbdserve.errors import SourceUnavailableError
from nbdserve.registry import builtin_layers, builtin_sources
from nbdserve.sources.memory import MemoryParams, MemorySource
from nbdserve.spec import ExportSpec, parse_source
from nbdserve.testing.conformance import DeviceConformance, Subject
from nbdserve.testing.faults import FaultyDevice, RecordingDevice

SIZES = [0, 1, 150_003]
CLUSTER = 64 << 10


def written(folder, contents, name="disk.img"):
    """Make a file of the folder and return its path."""
    path = folder / name
    path.write_bytes(contents)
    return str(path)


def make_data(folder, size):
    contents = random.Random(size).randbytes(size // 3)
    words = ["data", f"hex={contents.hex()}", f"size={size}"]
    return chain(words, contents=contents + bytes(size - len(contents)), units=(max(size // 3, 1),))


def make_file(folder, size):
    return chain(["file", written(folder, pattern(size))], contents=pattern(size), trim_zeroes=True)


def make_sparse_file(folder, size):
    path = Path(written(folder, b""))
    with path.open("wb") as out:
        out.truncate(size)
        for at in range(32 << 10, size, 64 << 10):
            out.seek(at)
            out.write(sparse(size)[at : at + (32 << 10)])
    return chain(["file", str(path)], contents=sparse(size), units=(32 << 10,))


def make_file_that_is_read_only(folder, size):
    path = written(folder, pattern(size))
    return chain(["file", path], "readonly", contents=pattern(size))


@contextlib.asynccontextmanager
async def make_file_in_memory(folder, size):
    """A tmpfs, which cannot zero ranges, but can punch and allocate."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as memory:
        path = written(Path(memory), pattern(size))
        async with chain(["file", path], contents=pattern(size)) as subject:
            yield subject


@contextlib.asynccontextmanager
async def make_http(folder, size, *layers, contents=None):
    held = pattern(size) if contents is None else contents
    written(folder, held, "image")
    async with (
        website(folder) as url,
        chain(["http", f"{url}/image"], *layers, contents=pattern(size)) as subject,
    ):
        yield subject


@contextlib.asynccontextmanager
async def make_http_with_mirrors(folder, size):
    """The first mirror has it not; the next one serves."""
    written(folder, pattern(size), "image")
    async with website(folder) as one, website(folder) as two:
        words = ["http", f"{one}/gone", f"url={one}/image", f"url={two}/image"]
        async with chain(words, contents=pattern(size)) as subject:
            yield subject


def make_memory(folder, size):
    return chain(
        ["memory", str(size)], contents=sparse(size), fill=sparse(size), trim_zeroes=True,
        units=(CLUSTER,),
    )  # fmt: skip


def make_null(folder, size):
    return chain(["null", str(size)], contents=bytes(size), keeps_writes=False)


def make_pattern(folder, size):
    return chain(["pattern", str(size)], contents=pattern(size), units=(CLUSTER,))


def over_memory(*layers, **promises):
    """Make the row of layers that change no byte, over a disk in memory."""

    def make(folder, size):
        contents = sparse(size)
        return chain(["memory", str(size)], *layers, contents=contents, fill=contents, **promises)

    return make


def over_file(*layers, **promises):
    """Make the row of layers that change no byte, over a file, whose calls wait for threads."""

    def make(folder, size):
        words = ["file", written(folder, sparse(size))]
        return chain(words, *layers, contents=sparse(size), **promises)

    return make


def make_cow_that_persists(folder, size):
    words = ["pattern", str(size)]
    return chain(words, f"cow:path={folder}/overlay,cluster=4K", contents=pattern(size))


def make_slice(folder, size):
    words = ["memory", str(size + 10_000)]
    layer = f"slice:offset=5001,length={size}"
    whole = pattern(size + 10_000)
    return chain(words, layer, contents=whole[5001:][:size], fill=whole, units=(CLUSTER - 5001,))


def make_grow(folder, size):
    held = size // 3
    words = ["memory", str(held)]
    whole = pattern(held)
    layer = f"grow:size={size}"
    return chain(words, layer, contents=whole + bytes(size - held), fill=whole, units=(held or 1,))


def make_grow_beneath_cow(folder, size):
    words = ["pattern", str(size // 3)]
    contents = pattern(size // 3) + bytes(size - size // 3)
    return chain(words, "cow:cluster=4K", f"grow:size={size}", contents=contents)


def make_xz(folder, size):
    words = ["file", written(folder, packed(sparse(size)))]
    return chain(words, "xz", contents=sparse(size), units=(50_000,))


def make_xz_with_little_memory(folder, size):
    words = ["file", written(folder, packed(pattern(size), 30_000))]
    return chain(words, "xz:cache=30K", contents=pattern(size), units=(30_000,))


def make_xz_over_http(folder, size):
    return make_http(folder, size, "xz", contents=packed(pattern(size)))


def make_the_lot(folder, size):
    """A chain as people build it."""
    words = ["file", written(folder, packed(pattern(size)))]
    return chain(words, "stats", "cow", "cache:size=1M", "xz", contents=pattern(size))


def cached_on_disk(folder, size, *beneath, room="1M", **promises):
    layer = f"cache:path={folder}/cache,size={room},block=4K"
    return make_http(folder, size, layer, *beneath, **promises)


def make_cache_on_disk(folder, size):
    return cached_on_disk(folder, size)


def make_cache_on_disk_with_little_room(folder, size):
    return cached_on_disk(folder, size, room="150K")


def make_cache_on_disk_over_xz(folder, size):
    return cached_on_disk(folder, size, "xz", contents=packed(pattern(size)))


def make_xz_over_cache_on_disk(folder, size):
    layer = f"cache:path={folder}/cache,size=1M,block=4K"
    return make_http(folder, size, "xz", layer, contents=packed(pattern(size)))


@contextlib.asynccontextmanager
async def make_cache_on_disk_that_is_full(folder, size):
    async with cached_on_disk(folder, size) as before:
        await before.device.cache(0, size)
    async with cached_on_disk(folder, size) as subject:
        yield subject


@contextlib.asynccontextmanager
async def make_fakes(folder, size):
    inner = MemorySource(MemoryParams(size=size))
    await inner.write(0, memoryview(pattern(size)), fua=False)
    yield Subject(RecordingDevice(FaultyDevice(inner, NoParams()), NoParams()), pattern(size))


@contextlib.asynccontextmanager
async def make_absent(folder, size):
    """What stands in for an origin that was away, once that is back."""
    clock = itertools.count(step=60)

    def reopen():
        return open_chain(ExportSpec(parse_source(["pattern", str(size)])))

    absent = Absent(reopen, SourceUnavailableError("away"), clock=lambda: next(clock))
    await absent.arrive()
    try:
        yield Subject(absent, pattern(size))
    finally:
        await absent.close()


ROWS = {
    "source data": make_data,
    "source file": make_file,
    "source file, sparse": make_sparse_file,
    "source file, read-only": make_file_that_is_read_only,
    "source file on tmpfs": make_file_in_memory,
    "source http": make_http,
    "source http with mirrors": make_http_with_mirrors,
    "source memory": make_memory,
    "source null": make_null,
    "source pattern": make_pattern,
    "layer cache over memory": over_memory("cache:size=1M"),
    "layer cache over file": over_file("cache:size=16K,block=4K"),
    "layer cache on disk": make_cache_on_disk,
    "layer cache on disk, filled before": make_cache_on_disk_that_is_full,
    "layer cache on disk over xz": make_cache_on_disk_over_xz,
    "layer cache on disk beneath xz": make_xz_over_cache_on_disk,
    "layer cache on disk with little room": make_cache_on_disk_with_little_room,
    "layer cow over memory": over_memory("cow:cluster=4K"),
    "layer cow over file": over_file("cow"),
    "layer cow, persistent": make_cow_that_persists,
    "layer delay": over_memory("delay:read=1ms"),
    "layer error": over_memory("error:rate=0"),
    "layer grow": make_grow,
    "layer grow beneath cow": make_grow_beneath_cow,
    "layer log over file": over_file("log"),
    "layer readahead over memory": over_memory("readahead"),
    "layer readahead, slow beneath": over_memory("readahead:size=64K", "delay:read=1ms"),
    "layer readahead over file": over_file("readahead:size=256K"),
    "layer readonly": over_memory("readonly"),
    "layer slice": make_slice,
    "layer stats": over_memory("stats"),
    "layer xz": make_xz,
    "layer xz with little memory": make_xz_with_little_memory,
    "layer xz over http": make_xz_over_http,
    "the lot": make_the_lot,
    "absent, and back": make_absent,
    "fakes of testing": make_fakes,
}


class TestDevices(DeviceConformance):
    @pytest.fixture(params=ROWS)
    def row(self, request):
        return ROWS[request.param]

    @pytest.fixture(params=SIZES, ids=lambda size: f"{size} bytes")
    def open_subject(self, request, row, tmp_path):
        return lambda: row(tmp_path, request.param)


@pytest.mark.parametrize(
    "element",
    [f"source {name}" for name in builtin_sources()]
    + [f"layer {name}" for name in builtin_layers()],
)
def test_every_element_that_can_be_named_has_a_row(element):
    assert any(row == element or row.startswith((f"{element} ", f"{element},")) for row in ROWS)
