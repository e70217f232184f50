"""Bytes on their way in: ahead by a bound, in order, errors after what came before them."""

import asyncio

import pytest

from nbdserve.errors import SourceUnavailableError
from nbdserve.xzengine.intake import Intake


class Stream:
    def __init__(self, pieces, error=None):
        self.pieces = pieces
        self.error = error
        self.given = 0
        self.closed = False

    async def __call__(self):
        try:
            for piece in self.pieces:
                self.given += 1
                yield piece
            if self.error is not None:
                raise self.error
        finally:
            self.closed = True


async def turns():
    for _ in range(10):
        await asyncio.sleep(0)


async def test_it_receives_ahead_up_to_its_bound_and_on_when_they_are_taken():
    stream = Stream([b"ab", b"cd", b"ef", b"gh", b"ij"])
    async with Intake(stream(), 10, limit=4) as intake:
        await turns()
        assert stream.given == 2
        assert await intake.take() == [b"ab", b"cd"]
        await turns()
        assert stream.given == 4
        assert await intake.take() == [b"ef", b"gh"]
        assert await intake.take() == [b"ij"]
    assert stream.closed


async def test_with_no_room_it_receives_piece_by_piece():
    stream = Stream([b"ab", b"cd"])
    async with Intake(stream(), 4, limit=0) as intake, asyncio.timeout(30):
        await turns()
        assert stream.given == 1
        assert await intake.take() == [b"ab"]
        assert await intake.take() == [b"cd"]


async def test_a_failure_comes_after_what_came_before_it():
    stream = Stream([b"ab"], SourceUnavailableError("away"))
    async with Intake(stream(), 100, limit=100) as intake:
        await turns()
        assert await intake.take() == [b"ab"]
        with pytest.raises(SourceUnavailableError, match="away"):
            await intake.take()


async def test_more_than_there_is_is_an_error():
    async with Intake(Stream([b"ab"])(), 4, limit=100) as intake:
        await intake.take()
        with pytest.raises(SourceUnavailableError, match="ended within a block"):
            await intake.take()


async def test_leaving_early_closes_the_stream():
    stream = Stream([b"ab"] * 100)
    async with Intake(stream(), 10, limit=4) as intake:
        await intake.take()
    assert stream.closed
    assert stream.given < 10


async def test_it_is_not_left_before_the_stream_is_closed_however_often_that_is_cancelled():
    closing, closed = asyncio.Event(), asyncio.Event()

    async def stream():
        try:
            while True:
                yield b"ab"
        finally:
            closing.set()
            await closed.wait()

    async def take():
        async with Intake(stream(), 10, limit=4) as intake:
            await intake.take()
            await asyncio.Event().wait()

    task = asyncio.create_task(take())
    await turns()
    task.cancel()
    await closing.wait()
    task.cancel()
    await turns()
    assert not task.done()
    closed.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_who_is_cancelled_while_it_closes_is_cancelled():
    """Else a job that parks while its export is closed would go on, and never be asked again."""
    closing, go = asyncio.Event(), asyncio.Event()

    async def stream():
        try:
            while True:
                yield b"ab"
        finally:
            closing.set()
            await go.wait()

    async def leave():
        async with Intake(stream(), 100, limit=1) as intake:
            await intake.take()
        return "went on"

    task = asyncio.create_task(leave())
    await closing.wait()
    task.cancel()
    await turns()
    assert not task.done()
    go.set()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_it_tells_what_is_missing_and_when_that_changes():
    missing = []
    intake = Intake(
        Stream([b"ab", b"cd"])(), 4, limit=100, moved=lambda: missing.append(intake.missing)
    )
    assert intake.missing == 4
    intake.start()
    await turns()
    assert missing == [2, 0, 0]
    assert intake.lying == 4
    await intake.take()
    assert len(missing) == 4
    assert intake.lying == 0
    assert not intake.failed
    await intake.close()


async def test_what_is_cut_short_or_closed_has_nothing_missing():
    broken = Intake(Stream([b"ab"], SourceUnavailableError("away"))(), 4, limit=100)
    broken.start()
    await turns()
    assert broken.failed
    assert broken.missing == 0
    await broken.close()
    early = Intake(Stream([b"ab"])(), 4, limit=100)
    early.start()
    await early.close()  # before it ran at all
    assert early.missing == early.lying == 0
