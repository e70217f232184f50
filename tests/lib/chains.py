"""Chains with known contents, opened as the daemon opens them, for the conformance tests."""

import contextlib
import lzma
import struct

from aiohttp import web

from nbdserve.build import open_chain
from nbdserve.spec import ExportSpec, parse_layer, parse_source
from nbdserve.testing.model import Subject


def pattern(size, base=0):
    """Bytes that tell their place: each 8-byte word is its own offset."""
    return b"".join(struct.pack(">Q", at) for at in range(base, base + size, 8))[:size]


def sparse(size):
    """The pattern, with zeroes in every other 32 KiB."""
    data = bytearray(pattern(size))
    for at in range(0, size, 64 << 10):
        data[at : at + (32 << 10)] = bytes(len(data[at : at + (32 << 10)]))
    return bytes(data)


def packed(data, unit=50_000):
    """Compress into several xz streams with padding between them."""
    streams = [lzma.compress(data[at : at + unit]) for at in range(0, len(data), unit)]
    return bytes(4).join(streams or [lzma.compress(b"")])


@contextlib.asynccontextmanager
async def chain(source, *layers, contents, fill=False, **promises):
    """Open a chain and close it at the end.

    Args:
        source: the words of the source, as on the command line.
        layers: as after `--layer`, nearest the client first.
        contents: what the chain holds.
        fill: bytes to write to the source once the chain is open, or True for `contents`.
        promises: further attributes of the Subject.
    """
    spec = ExportSpec(parse_source(source), tuple(parse_layer(layer) for layer in layers))
    opened = await open_chain(spec)
    try:
        if fill:
            data = contents if fill is True else fill
            await opened.devices[0].write(0, memoryview(data), fua=False)
        yield Subject(opened.outermost, contents, **promises)
    finally:
        await opened.close()


@contextlib.asynccontextmanager
async def website(folder):
    """Serve the files of a folder with Range support; gives the URL of the folder."""
    app = web.Application()
    app.router.add_static("/", folder)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0]
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()
