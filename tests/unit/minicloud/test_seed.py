"""The seed is read back by programs that know nothing of the library that made it."""

import json
import subprocess

import pytest

from minicloud.errors import UsageError
from minicloud.seed import LARGEST, Seed, seed_image


def image_file(tmp_path, **fields):
    seed = Seed(
        **{"instance_id": "6f1a", "hostname": "web1", "user_data": b"#!/bin/sh\n", **fields}
    )
    path = tmp_path / "seed.iso"
    path.write_bytes(seed_image(seed))
    return path


def listed(path, names):
    done = subprocess.run(
        ["isoinfo", "-i", path, names, "-f"], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def contents(path, name, names="-R"):
    argv = ["isoinfo", "-i", path, names, "-x", f"/{name}"]
    return subprocess.run(argv, capture_output=True, check=True).stdout


def test_cloud_init_finds_it_by_its_label(tmp_path):
    path = image_file(tmp_path)
    done = subprocess.run(
        ["blkid", "-p", "-o", "export", path], capture_output=True, text=True, check=True
    )
    assert {"LABEL=CIDATA", "TYPE=iso9660"} <= set(done.stdout.split())
    assert path.stat().st_size % 2048 == 0


@pytest.mark.parametrize("names", ["-R", "-J"], ids=["rock ridge", "joliet"])
def test_the_files_have_their_names_and_contents(tmp_path, names):
    path = image_file(tmp_path, user_data=bytes(range(256)) * 300, network_config=b"version: 2\n")
    assert set(listed(path, names)) == {"/meta-data", "/user-data", "/network-config"}
    assert contents(path, "user-data", names) == bytes(range(256)) * 300
    assert contents(path, "network-config", names) == b"version: 2\n"
    meta = json.loads(contents(path, "meta-data", names))
    assert meta == {"instance-id": "6f1a", "local-hostname": "web1"}


def test_without_a_network_config_there_is_no_such_file(tmp_path):
    assert set(listed(image_file(tmp_path), "-R")) == {"/meta-data", "/user-data"}


def test_empty_user_data_is_a_file_too(tmp_path):
    assert contents(image_file(tmp_path, user_data=b""), "user-data") == b""


def test_the_largest_is_bounded(tmp_path):
    assert image_file(tmp_path, user_data=bytes(400 << 10)).stat().st_size <= LARGEST
    for size in (LARGEST - 4096, LARGEST + 1):
        with pytest.raises(UsageError, match=f"at most {LARGEST} fit"):
            image_file(tmp_path, user_data=bytes(size))
