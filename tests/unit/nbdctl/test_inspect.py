"""`nbdctl inspect`: the cost of a sector and the remedy, on files of the xz tool."""

import json
import os
import shlex
import subprocess

import pytest

from nbdctl_command import run_nbdctl
from nbdserve.inspection import ReadCost, pack_command
from nginx import nginx

UNIT = 1 << 20


@pytest.fixture
def packed(tmp_path):
    """Compress 20 MiB, of which 4 MiB are noise and the rest zeroes: `packed(name, options…)`."""

    def compress(name, *options):
        path = tmp_path / name
        data = os.urandom(4 * UNIT) + bytes(16 * UNIT)
        with path.open("wb") as file:
            subprocess.run(["xz", "-0", "-c", *options], input=data, stdout=file, check=True)
        return path

    return compress


def inspected(*words):
    done = run_nbdctl("inspect", "--json", *words)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("how", [["{}"], ["--layer", "xz", "file", "{}"]], ids=["bare", "chain"])
def test_a_file_in_good_blocks_has_its_cost_and_no_warning(packed, how):
    path = packed("disk.raw.xz", "--block-size=1MiB")
    found = inspected(*(word.format(path) for word in how))
    assert found["elements"] == ["xz", "file"]
    assert found["size"] == 20 * UNIT
    assert found["warnings"] == []
    assert found["remedy"] is None
    xz = found["xz"]
    assert xz["blocks"] == 20
    typical, largest = xz["one_sector"]["typical"], xz["one_sector"]["largest"]
    # 16 of the 20 blocks are zeroes of some 200 bytes, but no read of data meets one
    assert typical["fetch_bytes"] > UNIT
    assert typical["decode_bytes"] == largest["decode_bytes"] == UNIT
    assert typical["fetch_bytes"] <= largest["fetch_bytes"]
    assert largest["fetch_seconds_at_100_mbit"] == pytest.approx(8 * UNIT / 1e8, rel=0.01)


def test_a_file_in_one_block_has_the_remedy_that_works(packed, tmp_path):
    path = packed("disk.raw.xz", "-T1")
    found = inspected(path)
    assert "all of it is one block" in found["warnings"][0]
    program, *words = shlex.split(found["remedy"])
    assert program == "nbdctl"
    assert run_nbdctl(*words, cwd=tmp_path).returncode == 0
    mended = inspected(tmp_path / "disk.raw.16M.xz")
    assert mended["warnings"] == []
    assert mended["xz"]["blocks"] == 2


def test_large_blocks_have_the_remedy(tmp_path):
    """130 MiB of zeroes in two blocks: the xz layer would warn, inspect tells what to type."""
    path = tmp_path / "a b.xz"
    with path.open("wb") as file:
        subprocess.run(
            ["xz", "-0", "-c", "--block-size=65MiB"],
            input=bytes(130 << 20),
            stdout=file,
            check=True,
        )
    done = run_nbdctl("inspect", path)
    assert "its blocks are large" in done.stdout
    assert f"nbdctl pack '{path}' 'a b.16M.xz' --block-size 16M" in done.stdout
    assert "decode 65 MiB (about 0.65 s)" in done.stdout


def test_a_file_that_the_xz_layer_refuses_is_inspected_all_the_same(packed):
    path = packed("disk.xz", "-T1")
    found = inspected("--layer", "cow", "--layer", "xz:max-block=1M", "file", path)
    assert found["elements"] == ["cow", "xz", "file"]
    assert found["remedy"].startswith("nbdctl pack --layer cow --layer xz:max-block=1M file ")


def test_a_layer_above_is_looked_at_as_a_whole(packed):
    found = inspected("--layer", "slice:length=1M", "--layer", "xz", "file", packed("d.xz"))
    assert found["size"] == UNIT
    assert found["xz"]["blocks"] >= 1


def test_a_url_is_inspected_by_a_few_requests(packed, tmp_path):
    with nginx(tmp_path / "web") as web:
        packed("web/files/disk.raw.xz", "-T1")
        found = inspected(web.url("disk.raw.xz"))
        assert len(web.hits()) <= 4
        assert web.url("disk.raw.xz") in found["remedy"]
        assert found["elements"] == ["xz", "http"]


def test_a_raw_file_has_its_holes_told(tmp_path):
    path = tmp_path / "disk.img"
    with path.open("wb") as file:
        file.truncate(8 * UNIT)
        file.write(b"x" * UNIT)
    found = inspected(path)
    assert found["extents"] == {"data": UNIT, "zero": 7 * UNIT}
    assert "xz" not in found


def test_seconds_are_those_of_100_mbit():
    assert ReadCost(12_500_000, 0).fetch_seconds == 1.0


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("/a/disk.raw.xz", "disk.raw.16M.xz"),
        ("https://x/y/disk.raw.xz?token=a/b", "disk.raw.16M.xz"),
        ("disk", "disk.16M.xz"),
        ("https://x/", "x.16M.xz"),
    ],
)
def test_the_new_file_is_named_after_the_old(image, name):
    assert f" {name} " in pack_command([image], [], image=image)
