"""cache with `path`: what was read is kept on disk, and served from there after a restart.

The chunks, their map and the bound of the folder are `nbdserve.cachestore`'s; here reads are
split into what is there and what must be brought from beneath. Only for what has an identity and
is not written: what was kept is then right for ever, and nothing need be synchronised.

Invariant: no byte is served or kept unless it came from a device of the identity under which it
is kept. If the origin was away when the cache was opened and comes back as something else, what
is kept is still served and all else is an error.
"""

import logging
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from itertools import islice
from pathlib import Path

from nbdserve.absent import Absent
from nbdserve.blockcache import Claim, Weighed
from nbdserve.buffers import zeroed_buffer
from nbdserve.cachestore.chunkmap import MAX_CHUNKS, ChunkState
from nbdserve.cachestore.content import Content
from nbdserve.cachestore.origins import Origin, recall_origin, remember_origin
from nbdserve.cachestore.store import Store, open_store
from nbdserve.device import Capability, Device, DeviceInfo, FileRange, Layer
from nbdserve.errors import ConfigError, DeviceError, ReadOnlyError, SourceUnavailableError
from nbdserve.extents import DATA, ZERO_HOLE, Extent, State, clip, coalesce
from nbdserve.layers.cachefill import BackgroundFill
from nbdserve.layers.cacheparams import CacheParams
from nbdserve.layers.cacheruns import RUN, RunLoader, runs, single_blocks
from nbdserve.ranges import align_down, align_up, pieces
from nbdserve.threads import run_io

__all__ = ["DiskCache"]

log = logging.getLogger(__name__)

_MEMORY = 16 << 20  # for what is on its way, and for what cannot be kept on disk
_MOST_EXTENTS = 4096
_MOST_CHUNKS = 1 << 14  # looked at for one answer: some milliseconds; the client asks again
_TABLE = "layer cache"


class DiskCache(Layer):
    """A cache on disk, read-only.

    Under the text of `beneath` is noted what it led to, for when it leads nowhere.
    """

    writes_inner = False

    _info: DeviceInfo
    _store: Store
    _content: Content
    _loader: RunLoader

    def __init__(self, inner: Device, params: CacheParams, path: Path) -> None:
        super().__init__(inner)
        self._params = params
        self._path = path
        self._identity = ""
        self._away = False
        self._hits = 0
        self._misses = 0
        self._fill: BackgroundFill | None = None

    @property
    def info(self) -> DeviceInfo:
        return self._info

    @property
    def identity(self) -> str | None:
        return self._identity

    def status(self) -> Mapping[str, int | float | str | bool]:
        content = self._content
        facts: dict[str, int | float | str | bool] = {
            "size": content.size,
            "present": content.present,
            "stored": content.stored,
            "limit": self._store.bound,
            "used": self._store.used,
            "hits": self._hits,
            "misses": self._misses,
            "evicted": content.evicted,
            "damaged": content.damaged,
            "writable": content.writable,
            "origin": "away" if self._away else "here",
        }
        if self._fill is not None:
            facts |= {"fill": self._fill.state, "fill_done": content.present / (content.size or 1)}
        return facts

    # Opening and closing

    async def is_ready_alone(self) -> bool:
        return await run_io(recall_origin, self._path, self.beneath) is not None

    async def open(self, *, read_only: bool) -> None:
        self._store = await open_store(self._path)
        try:
            origin = await self._find_origin()
            self._content = await self._store.open_content(
                origin.identity, origin.size, self._params.block, self._params.size
            )
        except BaseException:
            self._store.close()
            raise
        content = self._content
        self._identity = origin.identity
        self._info = _info_of(origin, content.chunk)
        self._loader = RunLoader(max(_MEMORY, 4 * content.chunk), content.chunk, self._load)
        if content.chunk % origin.block_size.minimum:
            await self.close()
            raise ConfigError(
                f"{content.chunk} is no multiple of {origin.block_size.minimum}, the block size "
                "beneath", table=_TABLE, key="block",
            )  # fmt: skip
        log.info(
            "cache opened path=%s file=%s present=%d size=%d writable=%s origin=%s",
            self._path, content.name, content.present, content.size, content.writable,
            "away" if self._away else "here",
        )  # fmt: skip
        if self._params.fill == "background":
            self._fill = BackgroundFill(content, self._store, self._bring, self._params.fill_rate)
            self._fill.start()

    async def close(self) -> None:
        if self._fill is not None:
            await self._fill.close()
        await self._loader.blocks.close()
        await self._store.close_content(self._content, self._params.size)
        self._store.close()

    async def _find_origin(self) -> Origin:
        """Tell what lies beneath, by asking it or, if it is away, by what was noted of it."""
        inner = self.inner
        if isinstance(inner, Absent):
            arrived = inner.arrived
            if arrived is None:
                noted = await run_io(recall_origin, self._store.path, self.beneath)
                if noted is None:
                    return _origin_of(inner)  # it raises what it failed with
                self._away = True
                return noted
            inner = arrived
        origin = _origin_of(inner)
        if origin.size > MAX_CHUNKS * self._params.block:
            raise ConfigError(
                f"too small for an image of {origin.size} bytes; write at least "
                f"{-(-origin.size // MAX_CHUNKS)}", table=_TABLE, key="block",
            )  # fmt: skip
        if self.beneath:
            try:
                await run_io(remember_origin, self._store.path, self.beneath, origin)
            except OSError as exc:
                log.warning(
                    "the origin cannot be noted, so the cache cannot be opened without it path=%s: "
                    "%s", self._path, exc.strerror,
                )  # fmt: skip
        return origin

    # Reading

    def read_into_nowait(self, offset: int, view: memoryview) -> bool:
        if self._content.read_nowait(offset, view):
            self._hits += 1
            return True
        return False

    async def read_into(self, offset: int, view: memoryview) -> None:
        if await self._content.read(offset, view):
            self._hits += 1
        else:
            self._misses += 1
            await self._bring(offset, len(view), view)

    def file_range(self, offset: int, length: int) -> FileRange | None:
        return self._content.file_range(offset, length)

    async def stream(self, offset: int, length: int) -> AsyncGenerator[bytes | memoryview, None]:
        """Yield a range; what is missing in one piece comes by one stream from beneath."""
        end = offset + length
        while offset < end:
            absent = self._absent_range(offset, end)
            if offset < absent.start or len(absent) <= RUN:
                stop = absent.start if offset < absent.start else end
                view = zeroed_buffer(min(stop - offset, RUN))
                if not self.read_into_nowait(offset, view):
                    await self.read_into(offset, view)
                yield view
                offset += len(view)
            else:
                self._misses += 1
                async with aclosing(self._stream_beneath(offset, absent.stop)) as parts:
                    async for part in parts:
                        yield part
                        offset += len(part)

    async def cache(self, offset: int, length: int) -> None:
        # more than fits would only push out what was just read
        length = min(length, self._store.bound if self._content.writable else _MEMORY // 2)
        await self._bring(offset, length, None)
        await self._content.prefetch(offset, length)

    async def write(self, offset: int, data: memoryview, *, fua: bool) -> None:
        raise ReadOnlyError("cache: with path= it is read-only; put the layer cow above it")

    async def extents(self, offset: int, length: int) -> Sequence[Extent]:
        await self._content.refresh()
        found: list[Extent] = []
        length = min(length, _MOST_CHUNKS * self._content.chunk)
        for state, at, run in islice(self._content.runs(offset, length), _MOST_EXTENTS):
            if state is ChunkState.ZERO:
                found.append(Extent(run, ZERO_HOLE))
            elif state is ChunkState.ABSENT:
                beneath = await self._extents_beneath(at, run)
                found += beneath
                if sum(extent.length for extent in beneath) < run:
                    break  # what follows would not be contiguous; the caller asks again
            else:
                found.append(Extent(run, DATA))
        return coalesce(found)

    async def _extents_beneath(self, offset: int, length: int) -> Sequence[Extent]:
        try:
            found = clip(await self.inner.extents(offset, length), length)
            self._refuse_other()
        except SourceUnavailableError:
            return [Extent(length, DATA)]  # always right, and as much as can be known
        # a client that is told of a hole does not read it, and it would never be known here
        for extent in found:
            if extent.state & State.ZERO:
                await self._content.put_zeroes(offset, extent.length)
            offset += extent.length
        return found

    async def _bring(self, offset: int, length: int, view: memoryview | None) -> None:
        """Bring what is missing of a range, a batch of chunks at a time, and fill `view`."""
        parts = pieces(offset, length, self._content.chunk)
        while batch := list(islice(parts, self._loader.batch)):
            found: dict[int, memoryview] = {}
            claims: dict[int, Claim[int, memoryview]] = {}
            try:
                missing = [p.unit for p in batch if not self._content.is_ready(p.unit)]
                if view is None:
                    # what could not be kept on disk before is worth another try now
                    self._loader.forget_held(missing)
                self._loader.claim(missing, found, claims)
                for number, start, size, at in batch:
                    data = found.get(number)
                    if data is None and number in claims:
                        data = await claims[number].wait(number)
                    if view is None:
                        continue
                    part = view[at : at + size]
                    if data is None:
                        await self._read_ready(number * self._content.chunk + start, part)
                    else:
                        part[:] = data[start : start + size]
            finally:
                for claim in claims.values():
                    claim.leave()

    async def _read_ready(self, offset: int, view: memoryview) -> None:
        """Read what was ready a moment ago."""
        if self._content.read_nowait(offset, view) or await self._content.read(offset, view):
            return
        await self._bring(offset, len(view), view)  # it was evicted, or cannot be read any more

    async def _load(self, run: range) -> list[Weighed[memoryview]]:
        """Bring a run of chunks: from the disk if they are claimed and right, else from beneath."""
        content = self._content
        await content.refresh()
        async with content.alone(run):
            found = await content.take(run)
            missing = [number for number in run if number not in found]
            for part in runs(missing, self._loader.most):
                found.update(await self._fetch(part))
        if all(map(content.is_ready, run)):
            self._loader.blocks.discard(run)  # no need to hold in memory what is on disk
        return [Weighed(found[number], len(found[number])) for number in run]

    async def _fetch(self, run: range) -> dict[int, memoryview]:
        """Read a run of chunks from beneath, and keep them if that can be done."""
        begin = run.start * self._content.chunk
        buffer = zeroed_buffer(min(run.stop * self._content.chunk, self._info.size) - begin)
        if not self.inner.read_into_nowait(begin, buffer):
            await self.inner.read_into(begin, buffer)
        self._refuse_other()
        await self._store.keep(self._content, run.start, buffer)
        blocks = single_blocks(buffer, self._content.chunk)
        return {number: block.value for number, block in zip(run, blocks, strict=True)}

    def _absent_range(self, offset: int, end: int) -> range:
        """Return the offsets of the first absent chunks in a range; empty ones at its end."""
        first, chunk = offset // self._content.chunk, self._content.chunk
        number = self._content.absent_from(first)
        if number * chunk >= end:
            return range(end, end)
        start = max(number * chunk, offset)
        state, at, length = next(self._content.runs(start, end - start))
        assert state is ChunkState.ABSENT, "nothing was waited for"
        return range(at, at + length)

    async def _stream_beneath(self, offset: int, end: int) -> AsyncGenerator[memoryview, None]:
        """Yield a range as it comes from beneath, and keep the whole chunks of it on the way."""
        chunk = self._content.chunk
        begin = align_down(offset, chunk)
        stop = min(align_up(end, chunk), self._info.size)
        gathered, filled = zeroed_buffer(min(max(RUN, chunk), stop - begin)), 0
        async with aclosing(self.inner.stream(begin, stop - begin)) as parts:
            async for part in parts:
                self._refuse_other()
                view = memoryview(part)
                while view:
                    taken = view[: len(gathered) - filled]
                    gathered[filled : filled + len(taken)] = taken
                    position = begin + filled
                    filled += len(taken)
                    view = view[len(taken) :]
                    wanted = taken[max(offset - position, 0) : max(end - position, 0)]
                    if len(wanted):
                        yield wanted
                    if filled == len(gathered):
                        await self._store.keep(self._content, begin // chunk, gathered)
                        begin += filled
                        gathered, filled = zeroed_buffer(min(len(gathered), stop - begin)), 0

    def _refuse_other(self) -> None:
        """Raise if what has arrived beneath is not what is cached here."""
        if not self._away or not isinstance(self.inner, Absent):
            return
        arrived = self.inner.arrived
        if arrived is None:
            return
        if (arrived.identity, arrived.info.size) != (self._identity, self._info.size):
            raise DeviceError(
                f"cache: the image has changed while its origin was away (was {self._identity!r}, "
                f"is {arrived.identity!r}); reopen the export to serve the new one"
            )
        self._away = False


def _origin_of(device: Device) -> Origin:
    """Describe what is to be cached.

    Raises:
        ConfigError: it cannot be, for want of an identity or because it may be written.
    """
    info = device.info
    if info.can & Capability.WRITE:
        raise ConfigError(
            "is for what is only read, and beneath it can be written; put cow above the cache, or "
            "readonly beneath it", table=_TABLE, key="path",
        )  # fmt: skip
    # all images without a byte are alike, and some servers tell no version of an empty file
    identity = device.identity if info.size else "an empty image"
    if identity is None:
        raise ConfigError(
            "needs something beneath that can be told from any other after a restart (http with an "
            "ETag or a date, xz over it); leave path= out to cache in memory",
            table=_TABLE, key="path",
        )  # fmt: skip
    return Origin(identity, info.size, info.block_size)


def _info_of(origin: Origin, chunk: int) -> DeviceInfo:
    block_size = origin.block_size._replace(preferred=max(origin.block_size.preferred, chunk))
    if block_size.preferred > block_size.maximum:
        block_size = origin.block_size
    return replace(
        DeviceInfo(origin.size, block_size), can=Capability.CACHE | Capability.EXTENTS
    )  # fmt: skip
