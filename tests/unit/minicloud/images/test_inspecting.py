"""Images looked at where they lie: a real file, a real web server, a real xz file."""

import hashlib
import lzma
import os

import pytest

from minicloud.errors import StorageError, UsageError
from minicloud.images.inspecting import check_layers, inspect_image
from templates import bare_template
from webserver import broken_off, status, webserver

DATA = os.urandom(3 << 20) + bytes(1 << 20)


async def test_a_file_is_looked_at_and_not_read(tmp_path):
    path = tmp_path / "disk.raw"
    path.write_bytes(DATA)
    facts = await inspect_image(str(path))
    assert (facts.size, facts.format, facts.head) == (len(DATA), "raw", DATA[:512])
    assert facts.sums == {}


async def test_an_xz_file_on_a_server_has_its_blocks_and_its_sums():
    packed = lzma.compress(DATA, preset=0)
    told = []
    async with webserver(packed) as server:
        facts = await inspect_image(
            server.url("disk.raw.xz"), sums=["sha256", "sha512"],
            progress=lambda done, total: told.append((done, total)),
        )  # fmt: skip
    assert facts.xz.layout.size == len(DATA)
    assert facts.sums == {
        "sha256": hashlib.sha256(packed).hexdigest(),
        "sha512": hashlib.sha512(packed).hexdigest(),
    }
    assert told == sorted(told)
    assert told[-1] == (len(packed), len(packed))
    assert len(told) >= 2
    assert facts.remedy.startswith("nbdctl pack http://")


async def test_without_sums_only_the_ends_are_fetched():
    packed = lzma.compress(DATA, preset=0)
    async with webserver(packed) as server:
        await inspect_image(server.url())
        assert server.sent < len(packed) // 2


async def test_an_empty_file_is_one():
    async with webserver(b"") as server:
        facts = await inspect_image(server.url(), sums=["sha256"])
    assert facts.size == 0
    assert facts.sums == {"sha256": hashlib.sha256().hexdigest()}


async def test_what_is_not_there_is_told():
    async with webserver(b"", always=status("404 Not Found")) as server:
        with pytest.raises(StorageError, match="404 Not Found") as caught:
            await inspect_image(server.url())
    assert caught.value.kind == "unreachable"
    with pytest.raises(StorageError, match=r"/no/such\.img"):
        await inspect_image("/no/such.img")


async def test_a_url_nbdserve_refuses_is_told():
    with pytest.raises(StorageError, match="Port out of range"):
        await inspect_image("http://127.0.0.1:99999/x")


async def test_a_cut_xz_file_is_told(tmp_path):
    path = tmp_path / "disk.xz"
    path.write_bytes(lzma.compress(DATA, preset=0)[:-8])
    with pytest.raises(StorageError, match="xz") as caught:
        await inspect_image(str(path))
    assert caught.value.kind == "damaged"


async def test_a_broken_connection_does_not_spoil_a_sum():
    async with webserver(DATA) as server:
        server.script = [broken_off(1 << 20)] * 3
        facts = await inspect_image(server.url(), sums=["sha256"])
    assert facts.sums["sha256"] == hashlib.sha256(DATA).hexdigest()


def test_layers_are_checked_to_the_last_parameter():
    check_layers(bare_template(layers=("cache:size=64M", "xz")))
    with pytest.raises(UsageError, match=r"templates\.t: layers: .*did you mean 'size'") as caught:
        check_layers(bare_template(layers=("cache:sise=64M",)))
    assert (caught.value.table, caught.value.key) == ("templates.t", "layers")
