"""`nbdctl inspect IMAGE`: what an image is, what one sector of it costs, and the remedy."""

import argparse
import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

from nbdserve.build import open_chain
from nbdserve.device import Device
from nbdserve.errors import NotSupportedError
from nbdserve.formats.xz import XzIndex
from nbdserve.inspection import Inspection, gather, gather_xz, pack_command, render
from nbdserve.logs import configure
from nbdserve.nbdctl.image import add_layer_option, image_spec, is_bare
from nbdserve.nbdctl.voice import answer, answer_json
from nbdserve.packing.reading import is_xz
from nbdserve.spec import ElementSpec, ExportSpec
from nbdserve.xzengine.indexing import index_of

__all__ = ["add_parser", "run"]

_XZ = "xz"


def add_parser(commands: Any) -> argparse.ArgumentParser:
    """Add the command's own parser."""
    made: argparse.ArgumentParser = commands.add_parser(
        "inspect",
        help="tell what an image is and what reading it costs",
        usage="nbdctl inspect [options] PATH|URL | [--layer NAME[:key=value,…]]… SOURCE [ARG] "
        "[key=value …]",
    )
    add_layer_option(made)
    made.add_argument("--json", action="store_true", help="print one JSON document")
    made.add_argument("-v", "--verbose", action="store_true", help="log DEBUG messages")
    made.add_argument("words", nargs="+", metavar="IMAGE")
    return made


def run(arguments: argparse.Namespace) -> int:
    """Carry it out; return the exit status."""
    configure(verbose=arguments.verbose, form="text", quiet=True)
    found = asyncio.run(_inspect(arguments.words, arguments.layer))
    if arguments.json:
        answer_json(found.as_json())
    else:
        answer(render(found))
    return 0


async def _inspect(words: list[str], layers: list[str]) -> Inspection:
    spec = image_spec(words, layers)
    names = [layer.name for layer in spec.layers]
    if _XZ in names:
        above = names.index(_XZ)
        async with _opened(replace(spec, layers=spec.layers[above + 1 :])) as packed:
            index = await index_of(packed)
        return _with_xz(await _upper(spec, index.size, above), index, words, layers, spec)
    async with _opened(spec) as device:
        if is_bare(words, layers) and await is_xz(device):
            index = await index_of(device)
            spec = replace(spec, layers=(ElementSpec(_XZ),))
            return _with_xz(_unknown(spec, index.size), index, words, layers, spec)
        data, zero = await gather(device)
        return Inspection(device.info.size, _elements(spec), data, zero)


async def _upper(spec: ExportSpec, size: int, above: int) -> Inspection:
    """Look at what stands on the xz layer; nothing is known of the image itself unread."""
    if above == 0:
        return _unknown(spec, size)
    try:
        async with _opened(spec) as device:
            data, zero = await gather(device)
            return Inspection(device.info.size, _elements(spec), data, zero)
    except NotSupportedError:  # its blocks are too large to be served: the warnings say so
        return _unknown(spec, size)


def _unknown(spec: ExportSpec, size: int) -> Inspection:
    return Inspection(size, _elements(spec), size, 0)


def _with_xz(
    found: Inspection, index: XzIndex, words: list[str], layers: list[str], spec: ExportSpec
) -> Inspection:
    image = next((str(value) for key, value in spec.source.given if key in _NAMING), "image")
    remedy = pack_command(*_to_pack(words, layers), image=image)
    return replace(found, xz=gather_xz(index), remedy=remedy)


_NAMING = ("", "path", "url")


def _to_pack(words: list[str], layers: list[str]) -> tuple[list[str], list[str]]:
    """Write what is to be packed as shortly as it can be."""
    plain = len(words) == 2 and words[0] in {"file", "http"} and "=" not in words[1]
    if plain and layers == [_XZ]:
        return words[1:], []
    return words, layers


def _elements(spec: ExportSpec) -> tuple[str, ...]:
    return (*(layer.name for layer in spec.layers), spec.source.name)


@contextlib.asynccontextmanager
async def _opened(spec: ExportSpec) -> AsyncIterator[Device]:
    chain = await open_chain(spec)
    try:
        yield chain.outermost
    finally:
        await chain.close()
