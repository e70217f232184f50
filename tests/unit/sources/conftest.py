"""Image files and web servers with locatable bytes."""

import os
import struct

import pytest

from httpsources import CONTENTS, opened_sources
from nbdserve.sources.imagefile import ImageFile
from webserver import webserver

SIZE = 1 << 20
PATTERN = b"".join(struct.pack(">Q", at) for at in range(0, SIZE, 8))


@pytest.fixture
def pattern():
    """The contents of the image at `path`: each 8-byte word is its own offset."""
    return PATTERN


@pytest.fixture
def path(tmp_path):
    """An image file of 1 MiB."""
    path = tmp_path / "disk.img"
    path.write_bytes(PATTERN)
    return path


@pytest.fixture
def image(path):
    """The image at `path`, none of it in the page cache."""
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    made = ImageFile(path, fd, SIZE)
    yield made
    made.close()


@pytest.fixture
async def web():
    """A web server that has `CONTENTS`."""
    async with webserver(CONTENTS) as server:
        yield server


@pytest.fixture
async def make():
    """Open http sources: `make(*urls, **params)`; they are closed at the end."""
    async with opened_sources() as opener:
        yield opener


@pytest.fixture
def opened(web, make):
    """Open a source, and forget the requests that took."""

    async def make_one(path="disk.img", *, forget=True, **given):
        source = await make(web.url(path), **given)
        if forget:
            web.asked.clear()
        return source

    return make_one
