"""What is measured: each work drives one fresh server and returns its seconds.

Whatever begins with a server that does not run yet is timed from the command that starts it, for
servers differ in what they put off: nbdkit opens the image anew for each connection, nbdserve once
at start. Only the cold sector and the crowd of readers are timed on connections that are open.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from remote.boot import boot
from remote.layout import Block, Layout
from remote.processes import finished
from remote.session import Session
from remote.trace import replay

__all__ = ["READERS", "WORKS", "Work"]

READERS = 64

Ranges = Sequence[tuple[int, int]]

_SECTOR = 512
_CONNECTIONS = 4


@dataclass(frozen=True, slots=True)
class Work:
    """One row of the table, for each server.

    Attributes:
        name: for `--only`.
        run: does it on a fresh server; returns seconds.
        needs: the blocks that it cannot do without, given the ranges that a boot reads.
        connections: to the server at once.
        jumps: whether a connection reads here and there.
        writable: whether a guest writes.
        again: whether it is about what an earlier boot left in a persistent cache.
        away: whether the web server is gone by then.
    """

    name: str
    run: Callable[[Session], float]
    needs: Callable[[Layout, Ranges], list[Block]]
    connections: int = 1
    jumps: bool = False
    writable: bool = False
    again: bool = False
    away: bool = False


def _open(session: Session) -> float:
    async def work() -> float:
        async with session.client():
            session.answered = time.time()
            return time.monotonic() - session.started

    return asyncio.run(work())


def _first(session: Session) -> float:
    async def work() -> float:
        async with session.client() as client:
            data = await client.read(0, _SECTOR)
            session.answered = time.time()
            took = time.monotonic() - session.started
        session.check(0, data)
        return took

    return asyncio.run(work())


def _middle(session: Session) -> float:
    _, sector = _layout(session).middle()

    async def work() -> float:
        async with session.client() as client:
            session.restart()
            began = time.monotonic()
            data = await client.read(sector, _SECTOR)
            took = time.monotonic() - began
        session.check(sector, data)
        return took

    return asyncio.run(work())


def _readers(session: Session) -> float:
    block, _ = _layout(session).middle()
    step = block.size // READERS // _SECTOR * _SECTOR
    offsets = [block.start + step * number for number in range(READERS)]

    async def work() -> float:
        async with contextlib.AsyncExitStack() as stack:
            clients = await asyncio.gather(
                *(stack.enter_async_context(session.client()) for _ in offsets)
            )
            session.restart()
            began = time.monotonic()
            answers = await asyncio.gather(
                *(client.read(at, _SECTOR) for client, at in zip(clients, offsets, strict=True))
            )
            took = time.monotonic() - began
        for at, data in zip(offsets, answers, strict=True):
            session.check(at, data)
        return took

    return asyncio.run(work())


def _copy(session: Session) -> float:
    """Copy all to nowhere by nbdcopy, four threads with a connection each."""
    session.ready().close()
    finished(
        ["nbdcopy", f"--threads={_CONNECTIONS}", f"--connections={_CONNECTIONS}", session.uri,
         "null:"], log=session.log, within=session.within,
    )  # fmt: skip
    return time.monotonic() - session.started


def _convert(session: Session) -> float:
    """Copy all to nowhere by qemu-img, one connection."""
    session.ready().close()
    finished(
        ["qemu-img", "convert", "-n", "-f", "raw", session.uri, "--target-image-opts",
         "driver=null-co,size=1P"], log=session.log, within=session.within,
    )  # fmt: skip
    return time.monotonic() - session.started


def _replay(session: Session) -> float:
    async def work() -> float:
        async with session.client() as client:
            await replay(session.reads, client.read)
            return time.monotonic() - session.started

    return asyncio.run(work())


def _boot(session: Session) -> float:
    session.ready().close()
    boot(session.uri, log=session.log, within=session.within, accel=session.accel)
    return time.monotonic() - session.started


def _layout(session: Session) -> Layout:
    assert session.layout is not None
    return session.layout


def _none(_: Layout, __: Ranges) -> list[Block]:
    return []


def _all(layout: Layout, _: Ranges) -> list[Block]:
    return list(layout.blocks)


def _zeroth(layout: Layout, _: Ranges) -> list[Block]:
    return [layout.blocks[0]]


def _one(layout: Layout, _: Ranges) -> list[Block]:
    return [layout.middle()[0]]


WORKS = {
    work.name: work
    for work in (
        Work("open", _open, _none),
        Work("first", _first, _zeroth),
        Work("middle", _middle, _one),
        Work("copy", _copy, _all, connections=_CONNECTIONS),
        Work("convert", _convert, _all),
        Work("replay", _replay, Layout.touched, jumps=True),
        Work("boot", _boot, Layout.touched, jumps=True, writable=True),
        Work("again", _boot, Layout.touched, jumps=True, writable=True, again=True),
        Work("gone", _boot, Layout.touched, jumps=True, writable=True, again=True, away=True),
        Work("readers", _readers, _one, connections=READERS),
    )
}
