"""Real images, a real web server: made once a session, shared by all tests here."""

import struct
import subprocess
from pathlib import Path

import pytest

from guest import bootable_image
from nginx import nginx

BLOCK = 16 << 20


@pytest.fixture(scope="session")
def build(pytestconfig) -> Path:
    """Where what takes long to make is kept between runs; ignored by git."""
    path = pytestconfig.rootpath / "build" / "tests"
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture(scope="session")
def boot_image(build) -> Path:
    """A bootable raw image of 1 GiB with some 100 MB of data."""
    path = build / "boot.img"
    if not path.exists():
        fresh = build / "boot.new"
        bootable_image(fresh, size=1 << 30, cache=build / "guest", filler=64 << 20)
        fresh.rename(path)
    return path


@pytest.fixture(scope="session")
def boot_image_xz(boot_image) -> Path:
    """The same in xz blocks of 16 MiB."""
    path = boot_image.with_name("boot.img.xz")
    if not path.exists():
        fresh = boot_image.with_name("boot.new.xz")
        with fresh.open("wb") as out:
            subprocess.run(
                ["xz", "-0", "-T0", f"--block-size={BLOCK}", "--stdout", boot_image],
                stdout=out, check=True,
            )  # fmt: skip
        fresh.rename(path)
    return path


@pytest.fixture(scope="session")
def pattern() -> bytes:
    """4 MiB in which each 8-byte word is its own offset, with a hole in the middle."""
    words = b"".join(struct.pack(">Q", at) for at in range(0, 4 << 20, 8))
    return words[: 1 << 20] + bytes(1 << 20) + words[2 << 20 :]


@pytest.fixture(scope="session")
def web(tmp_path_factory, boot_image_xz):
    """An nginx that serves the boot image as boot.img.xz."""
    with nginx(tmp_path_factory.mktemp("web")) as server:
        (server.files / "boot.img.xz").symlink_to(boot_image_xz)
        yield server


@pytest.fixture
def image(tmp_path, pattern) -> Path:
    """A writable raw image holding `pattern`."""
    path = tmp_path / "disk.img"
    path.write_bytes(pattern)
    return path
