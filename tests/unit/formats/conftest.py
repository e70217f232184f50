"""xz files as the xz tool and liblzma make them."""

import lzma
import struct
import subprocess

import pytest


def words(size, start=0):
    """Data with locatable bytes: each 8-byte word is its own offset."""
    first = start // 8
    count = size // 8 + 2
    data = struct.pack(f">{count}Q", *((first + n) * 8 for n in range(count)))
    return data[start % 8 :][:size]


@pytest.fixture
def xz():
    """Compress bytes by the xz tool: `xz(data, "--block-size=4KiB", …)`."""

    def compress(data, *options):
        done = subprocess.run(
            ["xz", "-c", "-0", *options], input=data, capture_output=True, check=True
        )
        return done.stdout

    return compress


@pytest.fixture
def empty_stream():
    return lzma.compress(b"")
