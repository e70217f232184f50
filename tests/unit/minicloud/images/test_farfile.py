"""A file read by the commands that a machine has, run here."""

import asyncio
import hashlib
import os

import pytest

from minicloud.errors import StorageError
from minicloud.images.farfile import FarFile, far_sum
from minicloud.ssh.session import Completed

DATA = os.urandom(200_000)


class Here:
    """Runs on this machine what would be run on another."""

    async def run(self, argv, *, stdin=b"", deadline=10):
        process = await asyncio.create_subprocess_exec(
            *argv, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await process.communicate()
        return Completed(process.returncode, out, err)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "back\\slash and\nline"
    path.write_bytes(DATA)
    return path


@pytest.fixture
async def device(path):
    device = FarFile(Here(), str(path))
    await device.open(read_only=True)
    return device


async def test_any_range_is_what_lies_there(device):
    assert device.info.size == len(DATA)
    for offset, length in [(0, 1), (0, 512), (65_535, 70_000), (len(DATA) - 12, 12)]:
        assert await device.read(offset, length) == DATA[offset : offset + length]


async def test_a_link_is_followed(path, tmp_path):
    (tmp_path / "link").symlink_to(path)
    device = FarFile(Here(), str(tmp_path / "link"))
    await device.open(read_only=True)
    assert device.info.size == len(DATA)


async def test_a_file_that_shrinks_is_told(device, path):
    path.write_bytes(b"")
    with pytest.raises(StorageError, match="became shorter") as caught:
        await device.read(100, 100)
    assert caught.value.kind == "damaged"


@pytest.mark.parametrize("name", ["sha256", "sha512"])
async def test_a_sum_is_hashlibs(path, name):
    assert await far_sum(Here(), str(path), name) == hashlib.new(name, DATA).hexdigest()


async def test_what_a_command_complains_of_is_told(tmp_path):
    with pytest.raises(StorageError, match=r"sha256sum: .*No such file") as caught:
        await far_sum(Here(), str(tmp_path / "no"), "sha256")
    assert caught.value.kind == "unreachable"


async def test_a_sum_that_is_none_is_told(path):
    class Odd(Here):
        async def run(self, argv, *, stdin=b"", deadline=10):
            return Completed(0, b"", b"")

    with pytest.raises(StorageError, match="printed no sum"):
        await far_sum(Odd(), str(path), "sha256")
