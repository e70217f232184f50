"""Opened http sources for tests, over servers that misbehave by script."""

import contextlib
import struct

from nbdserve.params import params_from
from nbdserve.sources.http import HttpSource
from webserver import webserver

__all__ = ["CONTENTS", "SIZE", "opened_sources", "servers"]

SIZE = 300_000
CONTENTS = b"".join(struct.pack(">Q", at) for at in range(0, SIZE, 8))


@contextlib.asynccontextmanager
async def opened_sources():
    """Give a function that opens a source of these URLs and keys; all are closed at the end."""
    async with contextlib.AsyncExitStack() as stack:

        async def make(*urls, **given):
            words = [("", urls[0])] if urls else []
            words += [("url", url) for url in urls[1:]]
            words += [(key.replace("_", "-"), value) for key, value in given.items()]
            source = HttpSource(params_from(HttpSource.Params, words, element="http"))
            await source.open(read_only=True)
            stack.push_async_callback(source.close)
            return source

        yield make


@contextlib.asynccontextmanager
async def servers(*contents):
    """Run a server for each of `contents`."""
    async with contextlib.AsyncExitStack() as stack:
        yield [await stack.enter_async_context(webserver(held)) for held in contents]
