"""What a guest's making leaves at a real nbdserve when a step fails, breaks off or is cancelled."""

import asyncio

import pytest

from daemon import daemon
from guestplans import make_plan
from minicloud.booting.launch import Making, make
from minicloud.booting.undo import Undo
from minicloud.errors import StorageError
from minicloud.model.inventory import NbdService
from minicloud.storage.exchange import dial_local
from minicloud.storage.service import Storage


class StopError(Exception):
    """Ends the making before a node is asked."""


async def stop():
    raise StopError


@pytest.fixture
def nbd(tmp_path):
    control, overlays = tmp_path / "c.sock", tmp_path / "overlays"
    options = [
        "--control", control, "--state-dir", tmp_path / "state", "--overlay-dir", overlays,
    ]  # fmt: skip
    with daemon(options=options):
        yield NbdService(address="localhost", control=str(control), overlays=str(overlays))


def making(nbd, **fields):
    overlay = f"{nbd.overlays}/web1.cow"
    disk = {
        "name": "guest/web1",
        "exclusive": True,
        "layers": [{"type": "cow", "path": overlay}],
        "source": {"type": "null", "size": "1M"},
    }
    seed = {"name": "seed/web1", "source": {"type": "null", "size": "1M"}}
    given = {"plan": make_plan(), "disk": disk, "overlay": overlay, "others": (seed,)}
    return Making(**{**given, "before_start": stop, **fields})


async def begin(making, storage, expected):
    async with Undo() as undo:
        with pytest.raises(expected) as caught:
            await make(making, storage, None, undo)
        raise caught.value


async def left(nbd):
    storage = Storage(nbd)
    names = {one.name for one in await storage.exports()}
    return names | {one.name for one in await storage.overlays()}


async def test_a_step_that_fails_takes_the_earlier_ones_back(nbd):
    seen = set()

    async def look():
        seen.update(await left(nbd))
        raise StopError

    with pytest.raises(StopError):
        await begin(making(nbd, before_start=look), Storage(nbd), StopError)
    assert seen == {"guest/web1", "seed/web1", "web1.cow"}
    assert await left(nbd) == set()


async def test_an_export_of_somebody_else_is_left_alone(nbd):
    await Storage(nbd).add({"name": "seed/web1", "source": {"type": "null", "size": "2M"}})
    with pytest.raises(StorageError, match="there is an export"):
        await begin(making(nbd), Storage(nbd), StorageError)
    assert await left(nbd) == {"seed/web1"}


async def test_an_answer_that_never_came_may_mean_that_it_is_there(nbd):
    """The line breaks when the request for the disk was sent; nbdserve may still carry it out."""
    breaks = [True]

    async def dial(path):
        reader, writer = await dial_local(path)
        if breaks.pop() if breaks else False:
            reader.feed_eof()
        return reader, writer

    with pytest.raises(StorageError) as caught:
        await begin(making(nbd), Storage(nbd, dial=dial), StorageError)
    assert caught.value.kind == "unreachable"
    assert await left(nbd) == set()


async def test_cancelled_while_an_export_is_opened_it_leaves_nothing(nbd):
    asked = asyncio.Event()

    async def silent(reader, writer):
        asked.set()
        while await reader.read(4096):  # to the end: nbdserve gives up
            pass
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        disk = making(nbd).disk | {
            "source": {"type": "http", "url": [f"http://127.0.0.1:{port}/image"]}
        }
        task = asyncio.create_task(
            begin(making(nbd, disk=disk), Storage(nbd), asyncio.CancelledError)
        )
        await asked.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await left(nbd) == set()
