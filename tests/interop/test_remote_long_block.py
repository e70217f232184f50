"""An image in one xz block, as many mirrors have them: served early, once, in bounded memory."""

import json
import subprocess

import pytest

from daemon import daemon
from tools import ENVIRONMENT, digest


@pytest.fixture(scope="session")
def one_block_xz(boot_image, web):
    """The boot image in one block, on the web server as one.xz."""
    path = boot_image.with_name("boot.one.xz")
    if not path.exists():
        fresh = boot_image.with_name("boot.one.new")
        with fresh.open("wb") as out:
            subprocess.run(["xz", "-0", "-T1", "--stdout", boot_image], stdout=out, check=True)
        fresh.rename(path)
    link = web.files / "one.xz"
    if not link.exists():
        link.symlink_to(path)
    return path


def test_a_whole_copy_of_one_block_is_one_request_and_little_memory(
    web, boot_image, one_block_xz, tmp_path
):
    copy = tmp_path / "copy.img"
    web.forget()
    with daemon("--layer", "xz", "http", web.url("one.xz")) as server:
        subprocess.run(
            ["nbdcopy", "--connections=4", "--threads=4", server.uri(), copy],
            check=True,
            timeout=300,
        )
        peak = server.peak_rss
    assert digest(copy) == digest(boot_image)
    hits = web.hits()
    fetched = sum(hit.sent for hit in hits) / one_block_xz.stat().st_size
    print(f"requests={len(hits)} fetched={fetched:.4f} rss={peak >> 20}M")
    assert len(hits) <= 3, "the index, and the block"
    assert fetched <= 1.02
    assert peak < 200 << 20


def test_holes_of_the_image_are_told_once_they_were_decoded(web, boot_image, one_block_xz):
    with daemon("--layer", "xz", "http", web.url("one.xz")) as server:
        subprocess.run(["nbdcopy", server.uri(), "null:"], check=True, timeout=300)
        told = subprocess.run(
            ["nbdinfo", "--map", "--json", server.uri()],
            capture_output=True, text=True, check=True, timeout=120, env=ENVIRONMENT,
        )  # fmt: skip
    holes = [part for part in json.loads(told.stdout) if part["type"] == 3]
    with boot_image.open("rb") as image:
        for hole in holes:
            image.seek(hole["offset"])
            assert is_zero(image, hole["length"]), hole
    data = sum(1 << 16 for chunk in chunks(boot_image) if any(chunk))
    found = sum(hole["length"] for hole in holes)
    assert found >= 0.98 * ((1 << 30) - data), "all but the edges of what is zero"


def is_zero(file, length):
    """Read `length` bytes and tell whether all are zero."""
    while length:
        piece = file.read(min(length, 1 << 20))
        if not piece or piece.strip(b"\0"):
            return False
        length -= len(piece)
    return True


def chunks(path):
    with path.open("rb") as file:
        while chunk := file.read(1 << 16):
            yield chunk.strip(b"\0")
