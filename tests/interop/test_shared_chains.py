"""Two exports of one remote image: opened once, each block fetched once, whoever reads it."""

import os
import subprocess

import pytest

from daemon import daemon
from nginx import nginx

BLOCKS = 48


@pytest.fixture
def origin(tmp_path):
    """A web server with an image of 48 blocks of 64 KiB, larger than what one request brings."""
    with nginx(tmp_path / "origin") as server:
        raw = tmp_path / "disk.img"
        raw.write_bytes(os.urandom(BLOCKS * (64 << 10)))
        subprocess.run(["xz", "-0", "--block-size=64KiB", "-k", raw], check=True)
        (server.files / "disk.img.xz").symlink_to(raw.with_suffix(".img.xz"))
        yield server


EXPORT = """
[[export]]
name = "{name}"
layers = [{layers}]
source = {{ type = "http", url = "{url}" }}
"""


def test_two_guests_on_one_image_open_it_once_and_fetch_each_block_once(origin, tmp_path):
    config = tmp_path / "nbdserve.toml"
    url = origin.url("disk.img.xz")
    layers = {"one": '"cow", "xz"', "two": '"cow", "xz"', "bare": '"xz"'}
    config.write_text(
        "".join(EXPORT.format(name=name, layers=layers[name], url=url) for name in layers)
    )
    with daemon(options=["--config", config]) as server:
        assert len(origin.hits()) == 1, "the index is read once"
        copies = {name: tmp_path / f"{name}.img" for name in layers}
        copying = [
            subprocess.Popen(["nbdcopy", server.uri(name), copy]) for name, copy in copies.items()
        ]
        assert [process.wait(120) for process in copying] == [0, 0, 0]
        write = subprocess.run(
            ["qemu-io", "-f", "raw", "-c", "write -P 7 0 64k", server.uri("one")], check=False
        )
        assert write.returncode == 0
        check = subprocess.run(
            ["qemu-img", "compare", "-f", "raw", "-F", "raw", copies["two"], server.uri("two")],
            check=False,
        )
        assert check.returncode == 0, "what one guest writes is its own"
    image = (tmp_path / "disk.img").read_bytes()
    assert all(copy.read_bytes() == image for copy in copies.values())
    blocks = [hit.range for hit in origin.hits()[1:]]
    assert len(blocks) == len(set(blocks)), "a block was fetched twice"
    size = (tmp_path / "disk.img.xz").stat().st_size
    assert sum(hit.sent for hit in origin.hits()) <= size + (64 << 10)
