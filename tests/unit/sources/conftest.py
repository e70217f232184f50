"""Image files with locatable bytes."""

import struct

import pytest

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
