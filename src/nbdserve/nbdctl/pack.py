"""`nbdctl pack IN OUT`: compress an image anew, in blocks that can be read one by one.

IN is a path or URL (an xz file is unpacked on the way), or a source with layers as for nbdserve.
"""

import argparse
import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

from nbdserve.build import open_chain
from nbdserve.cli import argument_kind
from nbdserve.device import Device
from nbdserve.errors import ConfigError, DeviceError
from nbdserve.formats.magic import container
from nbdserve.formats.xz import Check
from nbdserve.formats.xzpack import Packing
from nbdserve.inspection import short_size
from nbdserve.logs import configure
from nbdserve.nbdctl.image import add_layer_option, image_spec, is_bare
from nbdserve.nbdctl.meter import Meter
from nbdserve.nbdctl.voice import answer
from nbdserve.packing.outputfile import OutputFile
from nbdserve.packing.packer import Packed, pack
from nbdserve.packing.progress import Progress
from nbdserve.packing.reading import DeviceReader, ImageReader, XzReader, is_xz
from nbdserve.params import INTEGER, SIZE
from nbdserve.unbroken import run_unbroken
from nbdserve.xzengine.indexing import index_of

__all__ = ["add_parser", "run"]

_BLOCK: Final = 16 << 20
_LEAST_BLOCK: Final = 64 << 10
_MOST_BLOCK: Final = 512 << 20  # what the xz layer serves without being told to
_HEAD: Final = 512
_LOOK: Final = 0.1  # seconds between two looks at the progress
_STOPPING = (signal.SIGTERM, signal.SIGHUP)  # SIGINT is asyncio.run's own


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the command's own parser."""
    made: argparse.ArgumentParser = commands.add_parser(
        "pack",
        help="compress an image in blocks that can be read one by one",
        usage="nbdctl pack [options] IN OUT | [--layer NAME[:key=value,…]]… SOURCE [ARG] "
        "[key=value …] OUT",
    )
    add_layer_option(made)
    made.add_argument(
        "--block-size", type=argument_kind(SIZE), default=_BLOCK, metavar="SIZE",
        help="data in each block; a read costs a whole one (default 16M)",
    )  # fmt: skip
    made.add_argument(
        "-T", "--threads", type=argument_kind(INTEGER), default=0, metavar="N",
        help="blocks compressed at once (default 0: as many as there are cores)",
    )  # fmt: skip
    for preset in range(10):
        made.add_argument(
            f"-{preset}", dest="preset", action="store_const", const=preset, default=6,
            help={0: "fastest", 6: "the default", 9: "smallest"}.get(preset, argparse.SUPPRESS),
        )  # fmt: skip
    made.add_argument(
        "--check", choices=[check.name.lower() for check in Check], default="crc64",
        help="integrity check of each block (default crc64)",
    )  # fmt: skip
    made.add_argument("--force", action="store_true", help="replace OUT if it is there")
    made.add_argument("-q", "--quiet", action="store_true", help="show no progress")
    made.add_argument("-v", "--verbose", action="store_true", help="log DEBUG messages")
    made.add_argument("words", nargs="+", metavar="IN… OUT")
    return made


def run(arguments: argparse.Namespace) -> int:
    """Carry it out; return the exit status."""
    configure(verbose=arguments.verbose, form="text", quiet=True)
    packing = _packing(arguments)
    threads = arguments.threads or os.cpu_count() or 1
    if len(arguments.words) < 2:
        raise ConfigError("name the image and the file to write: nbdctl pack IN OUT.xz")
    *words, out = arguments.words
    return asyncio.run(_pack(arguments, words, Path(out), packing, threads))


async def _pack(
    arguments: argparse.Namespace, words: list[str], out: Path, packing: Packing, threads: int
) -> int:
    with _stopped_by_signals() as stopped_by:
        try:
            with OutputFile(out, force=arguments.force) as output:
                async with _opened(words, arguments.layer) as reader:
                    progress = Progress(reader.size)
                    async with _shown(progress, quiet=arguments.quiet):
                        done = await pack(
                            reader, output, packing, threads=threads, progress=progress
                        )
                    await run_unbroken(output.commit)
        except asyncio.CancelledError:
            if not stopped_by:
                raise
            return 128 + stopped_by[0]
    answer(_summary(out, done))
    return 0


@contextlib.asynccontextmanager
async def _opened(words: list[str], layers: list[str]) -> AsyncIterator[ImageReader]:
    """Open what is to be packed."""
    chain = await open_chain(image_spec(words, layers))
    device = chain.outermost
    try:
        if not is_bare(words, layers):
            yield DeviceReader(device)
        elif await is_xz(device):
            async with contextlib.aclosing(XzReader(device, await index_of(device))) as unpacked:
                yield unpacked
        else:
            await _refuse_container(device, words[0])
            yield DeviceReader(device)
    finally:
        await chain.close()


async def _refuse_container(device: Device, name: str) -> None:
    """Keep a qcow2 image, or a file of another compressor, from being packed as if it were raw."""
    what = container(await device.read(0, min(_HEAD, device.info.size)))
    if what is not None:
        raise DeviceError(f"{name}: {what}; to pack its bytes as they are: nbdctl pack file {name}")


@contextlib.asynccontextmanager
async def _shown(progress: Progress, *, quiet: bool) -> AsyncIterator[None]:
    """Show the progress during the block."""
    if quiet:
        yield
        return
    meter = Meter(progress.total)

    async def look() -> None:
        while True:
            meter.show(progress.done)
            await asyncio.sleep(_LOOK)

    looking = asyncio.create_task(look())
    try:
        yield
        meter.show(progress.done)
    finally:
        looking.cancel()
        meter.close()


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[list[int]]:
    """Cancel the current task when asked to stop; gives the signals that came."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task is not None
    came: list[int] = []

    def stop(number: int) -> None:
        came.append(number)
        task.cancel()

    for number in _STOPPING:
        loop.add_signal_handler(number, stop, number)
    try:
        yield came
    finally:
        for number in _STOPPING:
            loop.remove_signal_handler(number)


def _packing(arguments: argparse.Namespace) -> Packing:
    size = arguments.block_size
    if not _LEAST_BLOCK <= size <= _MOST_BLOCK or size % 4096:
        raise ConfigError(
            f"--block-size {SIZE.show(size)} will not do: a multiple of 4K from "
            f"{_LEAST_BLOCK >> 10}K to {_MOST_BLOCK >> 20}M, e.g. 16M"
        )
    return Packing(size, arguments.preset, Check[arguments.check.upper()])


def _summary(out: Path, done: Packed) -> str:
    part = f" ({done.packed_size / done.size:.1%})" if done.size else ""
    return (
        f"{out}: {short_size(done.size)} in {short_size(done.packed_size)}{part}, "
        f"{done.blocks} blocks, {done.zero_blocks} of them zero"
    )
