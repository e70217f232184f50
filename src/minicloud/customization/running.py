"""One run of virt-customize, from what it is fed to what came of it; the same on any machine."""

import asyncio
import codecs
import logging
import tempfile
from collections.abc import Callable
from typing import IO, Final

from minicloud.customization.command import Bundle
from minicloud.customization.places import Input, Place
from minicloud.customization.tool import PROGRAM
from minicloud.customization.wrapper import Ran, archives, header, parse_end, step_text, wrapped
from minicloud.errors import NodeError, Reason, UsageError
from minicloud.storage.exchange import Reader

__all__ = ["OnStep", "run"]

logger = logging.getLogger(__name__)

OnStep = Callable[[str], None]

_PIECE: Final = 1 << 18
_MOST: Final = 1 << 20  # bytes of output kept; it is some lines
_ENDING: Final = 10.0  # seconds it gets to clean up


async def run(place: Place, argv: list[str], made: Bundle, on_step: OnStep) -> Ran:
    """Run it and wait for its end; cancelled, it is ended and nothing of it is left there.

    Args:
        place: where.
        argv: virt-customize's command line.
        made: the commands file and what it names.
        on_step: told what it is doing, as it says so.

    Raises:
        NodeError: it could not be begun, or broke off.
        UsageError: a file cannot be read any more.
    """
    with tempfile.TemporaryFile() as large:
        try:
            small = await asyncio.to_thread(archives, made, large)
        except OSError as exc:
            raise UsageError(f"{exc.filename} cannot be read: {exc.strerror}") from None
        command = wrapped(argv, emulates=place.emulates)
        async with place.opening(command) as (reader, writer):
            try:
                await _send(writer, small, large)
                return _ran(await _listen(reader, on_step))
            except BaseException:
                await _end(reader, writer)
                raise


def _ran(text: str) -> Ran:
    ran = parse_end(text)
    if ran is None:
        last = " ".join(text.split())[-300:]
        raise NodeError(Reason.COMMAND, f"the run of {PROGRAM} broke off: {last or 'no word'}")
    return ran


async def _send(writer: Input, small: bytes, large: IO[bytes]) -> None:
    """Send all; where nobody takes it, what is told in return says why."""
    length = large.tell()
    large.seek(0)
    try:
        writer.write(header(len(small), length) + small)
        await writer.drain()
        while piece := await asyncio.to_thread(large.read, _PIECE):
            writer.write(piece)
            await writer.drain()
    except OSError:
        return


async def _listen(reader: Reader, on_step: OnStep) -> str:
    """Take all it says, to its end."""
    text, rest = "", ""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    while piece := await reader.read(_PIECE):
        new = decoder.decode(piece)
        text = (text + new)[-_MOST:]
        *lines, rest = (rest + new).split("\n")
        for line in lines:
            if (step := step_text(line)) != line:
                on_step(step)
    return text


async def _end(reader: Reader, writer: Input) -> None:
    """End it and let it clean up: it says nothing any more when it is done."""
    try:
        writer.write_eof()
        async with asyncio.timeout(_ENDING):
            while await reader.read(_PIECE):
                pass
    except Exception as exc:  # noqa: BLE001 -- why it is to end is what matters
        logger.info("the run did not end in order: %s", exc)
