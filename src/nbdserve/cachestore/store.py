"""One folder of cached images, open in this process: who shares what, and how much may be kept.

Layers that cache the same image share one `Content`, and all of a folder share its bound. The
bound counts the folder's files whoever wrote them: what other processes add is seen now and then,
and this process evicts, least recently used first, from its own images and from those nobody has
open.

Invariants: what is reserved or on disk never exceeds the bound by this process's doing; who finds
the folder locked by another process does without, and never waits for it while a client waits.
"""

import asyncio
import contextlib
import errno
import logging
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple
from weakref import WeakKeyDictionary

from nbdserve.cachestore.chunkfile import FULL
from nbdserve.cachestore.content import Content
from nbdserve.cachestore.folder import Folder
from nbdserve.cachestore.imagefiles import ImageFiles
from nbdserve.cachestore.opening import open_idle_images, open_image_files, open_nowhere
from nbdserve.errors import DeviceError
from nbdserve.threads import run_io
from nbdserve.unbroken import run_unbroken

__all__ = ["Store", "open_store"]

log = logging.getLogger(__name__)

_STEP: Final = 64  # a folder is measured anew when a 64th of its bound was added
_SLACK: Final = 16  # and evicted from until a 16th of the bound is free
_TEND: Final = 30.0  # seconds
_OPEN_TRIES, _OPEN_PAUSE = 200, 0.05  # another process evicts for a moment, never for 10 s


# A lock on a file is one for a whole loop: two loops in one process are as two processes.
_stores: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Path, "Store"]] = WeakKeyDictionary()


class _Victim(NamedTuple):
    """A group that may be evicted; sorts by when it was last used."""

    used: int
    name: str
    group: int
    length: int


class Store:
    """The cache in one folder; get it from `open_store`, and end each use with `close`.

    Attributes:
        path: the folder.
        used: bytes that all images take on disk, as far as is known.
    """

    def __init__(self, path: Path, folder: Folder) -> None:
        self.path = path
        self.used = 0
        self._folder = folder
        self._bounds: list[int] = []
        self._room: int | None = None  # what a full disk lets us have, if it is less
        self._reserved = 0
        self._added = 0
        self._contents: dict[str, Content] = {}
        self._users: dict[str, int] = {}
        self._changing = asyncio.Lock()
        self._tending: asyncio.Task[None] | None = None
        self._opened = 0
        self._warned = False

    @property
    def bound(self) -> int:
        """Bytes that may be used: the least that a layer was given, or less if the disk is full."""
        least = min(self._bounds, default=0)
        return least if self._room is None else min(least, self._room)

    def open(self) -> "Store":
        """Count one more user."""
        self._opened += 1
        return self

    def close(self) -> None:
        """End one use; the last one closes the folder."""
        self._opened -= 1
        if not self._opened:
            stores = _stores[asyncio.get_running_loop()]
            del stores[self.path]
            self._folder.close()

    # Opening and closing images

    async def open_content(self, identity: str, size: int, chunk: int, bound: int) -> Content:
        """Open the chunks of an image, or share them with those who have them open.

        Args:
            identity: of the image.
            size: its bytes.
            chunk: bytes in a chunk, if there is none of this image yet.
            bound: the most bytes that the folder may take.

        Raises:
            DeviceError: they cannot be had.
        """
        name = self._folder.name_of(identity)
        async with self._changing:
            if name not in self._contents:
                self._contents[name] = await self._open_new(name, identity, size, chunk)
            self._users[name] = self._users.get(name, 0) + 1
            self._bounds.append(bound)
            if self._tending is None:
                self._tending = asyncio.get_running_loop().create_task(self._tend())
        return self._contents[name]

    async def close_content(self, content: Content, bound: int) -> None:
        """End one use of an image."""
        async with self._changing:
            self._bounds.remove(bound)
            self._users[content.name] -= 1
            if not self._users[content.name]:
                del self._contents[content.name]
                await content.settle()
                await run_unbroken(content.close)
            if not self._contents and self._tending is not None:
                self._tending.cancel()
                self._tending = None

    async def _open_new(self, name: str, identity: str, size: int, chunk: int) -> Content:
        async with self._locked():
            try:
                self.used = await run_io(self._folder.usage)
                files = await run_unbroken(
                    open_image_files, self._folder, identity, size, chunk, undo=ImageFiles.close
                )
            except DeviceError:
                raise
            except OSError as exc:
                if exc.errno not in FULL:
                    raise DeviceError(
                        f"cache: {self._folder.data(name)}: {exc.strerror}; check the folder, "
                        "or name another path=", exc.errno,
                    ) from exc  # fmt: skip
                log.warning(
                    "no room for a cache at all, nothing of this image is kept; make room "
                    "path=%s: %s", self.path, exc.strerror,
                )  # fmt: skip
                files = open_nowhere(name, identity, size, chunk)
        return await run_unbroken(Content, files, self._may_lend, undo=Content.close)

    @contextlib.asynccontextmanager
    async def _locked(self) -> AsyncIterator[None]:
        """Hold the folder's lock, at opening and closing, when somebody may be waited for."""
        for _ in range(_OPEN_TRIES):
            if await self._try_lock():
                break
            await asyncio.sleep(_OPEN_PAUSE)
        else:
            raise DeviceError(
                f"cache: {self.path}: is kept locked by another process; end that one", errno.EBUSY
            )
        try:
            yield
        finally:
            self._folder.unlock()

    async def _try_lock(self) -> bool:
        return await run_unbroken(
            self._folder.try_lock, undo=lambda locked: self._folder.unlock() if locked else None
        )

    # Room

    async def keep(self, content: Content, first: int, data: memoryview) -> bool:
        """Keep whole neighbouring chunks of an image, evicting others to make room.

        Returns:
            Whether they are kept. If not, the bound, the disk or another process is in the way,
            and that is no error to anybody.
        """
        if not content.writable or not await self._make_room(len(data)):
            return False
        self._reserved += len(data)
        taken = len(data)  # if this call is cancelled: the chunks are written all the same
        try:
            taken = await content.put(first, data)
        except OSError as exc:
            taken = 0
            await self._failed(content, exc)
            return False
        finally:
            self._reserved -= len(data)
            self.used += taken
            self._added += taken
        return content.is_ready(first)

    async def _make_room(self, length: int) -> bool:
        if length > self.bound:
            return False
        if self._lacks(length) > 0 or self._added > self.bound // _STEP:
            async with self._changing:
                # whoever was here before may have done it already
                if self._lacks(length) > 0 or self._added > self.bound // _STEP:
                    try:
                        await self._trim(length)
                    except OSError as exc:
                        self._warn(
                            "the folder of the cache cannot be looked into, nothing more is kept; "
                            "restore it, and open the exports again path=%s: %s",
                            self.path, exc.strerror,
                        )  # fmt: skip
                        return False
        return self._lacks(length) <= 0

    def _lacks(self, length: int) -> int:
        return self.used + self._reserved + length - self.bound

    async def _trim(self, length: int) -> None:
        """Measure the folder, and evict from it until there is room for `length` and some more.

        Raises:
            OSError: the folder cannot be looked into; it may have been removed.
        """
        if not await self._try_lock():
            return
        try:
            self.used, self._added = await run_io(self._folder.usage), 0
            lacks = self._lacks(length)
            if lacks > 0:
                await self._evict(lacks + self.bound // _SLACK)
                self.used = await run_io(self._folder.usage)
        finally:
            self._folder.unlock()

    async def _evict(self, goal: int) -> None:
        """Evict at least `goal` bytes if there are as many; the folder is locked."""
        writable = [one for one in self._contents.values() if one.writable]
        idle: list[Content] = []
        try:
            ours = [one for one in writable if await run_unbroken(one.files.data.try_alone)]
            idle = await run_unbroken(self._open_idle, undo=_close_all)
            found = [(one, one.evictable()) for one in (*ours, *idle)]
            chosen = await run_io(_choose, found, goal)
            for one, _ in found:
                groups = [victim.group for victim in chosen if victim.name == one.name]
                if groups:
                    await one.evict(groups)
            log.debug("evicted path=%s groups=%d", self.path, len(chosen))
        except OSError as exc:
            log.warning("cache cannot be evicted from path=%s: %s", self.path, exc.strerror)
        finally:
            for one in writable:
                one.files.data.share()
            await run_unbroken(self._drop_idle, idle)

    def _open_idle(self) -> list[Content]:
        besides = frozenset(self._contents)
        return [Content(files, self._may_lend) for files in open_idle_images(self._folder, besides)]

    def _drop_idle(self, idle: Sequence[Content]) -> None:
        """Close images that were opened to be evicted from; remove those of which nothing is left.

        The folder is still locked, so nobody opens one between the two.
        """
        for one in idle:
            empty = not one.stored
            one.close()
            if empty:
                with contextlib.suppress(OSError):  # the others are to be closed all the same
                    self._folder.remove(one.name)

    def _may_lend(self, length: int) -> bool:
        """Half of the bound at most is lent and so unmovable; the rest goes on being a cache."""
        lent = sum(one.lent for one in self._contents.values())
        return lent + length <= self.bound // 2

    async def _failed(self, content: Content, exc: OSError) -> None:
        """A write to the cache failed: make do with less, and say so once."""
        if exc.errno not in FULL:
            content.give_up()
            self._warn(
                "cache cannot be written, nothing more of this image is kept; check the disk "
                "file=%s: %s", content.files.data.path, exc.strerror,
            )  # fmt: skip
            return
        with contextlib.suppress(OSError):  # then what was known of it has to do
            self.used = await run_io(self._folder.usage)
        self._room = self.used - self.used // _SLACK
        self._warn(
            "no room left for the cache, it makes do with what it has; make room, or give less "
            "size= path=%s used=%d size=%d: %s",
            self.path, self.used, min(self._bounds, default=0), exc.strerror,
        )  # fmt: skip

    def _warn(self, text: str, *facts: object) -> None:
        """Say once what is wrong with the cache, and only for who looks for it after that."""
        log.log(logging.DEBUG if self._warned else logging.WARNING, text, *facts)
        self._warned = True

    # Keeping house

    async def _tend(self) -> None:
        while True:
            await asyncio.sleep(_TEND)
            try:
                for content in list(self._contents.values()):
                    await content.tend()
                self.used = await run_io(self._folder.usage)
                if self._room is not None:
                    space = await run_io(os.statvfs, self.path)
                    if space.f_bavail * space.f_frsize > min(self._bounds, default=0) // _SLACK:
                        self._room = None  # somebody has made room
            except OSError as exc:
                log.debug("cache cannot be tended path=%s: %s", self.path, exc)


async def open_store(path: Path) -> Store:
    """Open the cache in a folder, or share it with who has it open in this process.

    Raises:
        DeviceError: the folder cannot be had.
    """
    path = await run_io(path.resolve)
    stores = _stores.setdefault(asyncio.get_running_loop(), {})
    if path not in stores:
        folder = await run_unbroken(Folder, path, undo=Folder.close)
        if path in stores:  # another layer was faster
            folder.close()
        else:
            stores[path] = Store(path, folder)
    return stores[path].open()


def _choose(found: Sequence[tuple[Content, list[tuple[int, int]]]], goal: int) -> list[_Victim]:
    """Choose what to evict: the least recently used groups of all images together; takes long."""
    coldest = sorted(
        _Victim(content.used_at(group), content.name, group, length)
        for content, groups in found
        for group, length in groups
    )
    chosen, length = [], 0
    for victim in coldest:
        if length >= goal:
            break
        chosen.append(victim)
        length += victim.length
    return chosen


def _close_all(contents: Sequence[Content]) -> None:
    for content in contents:
        content.close()
