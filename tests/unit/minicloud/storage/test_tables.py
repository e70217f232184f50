import base64
import lzma
from dataclasses import replace

import pytest

from guestplans import TEMPLATE
from minicloud.model.inventory import NbdService
from minicloud.storage.tables import guest_export, seed_export
from nbdserve.control.codec import LONGEST_REQUEST
from nbdserve.errors import ConfigError

NBD = NbdService(address="nbd.lan", overlays="/var/lib/overlays")


def test_a_guests_disk_is_an_overlay_over_the_image():
    assert guest_export(TEMPLATE, "web1", NBD) == {
        "name": "guest/web1",
        "description": "disk of guest web1, template debian",
        "exclusive": True,
        "layers": [{"type": "cow", "path": "/var/lib/overlays/web1.cow"}, {"type": "xz"}],
        "source": {"type": "http", "url": ["https://images.example/debian-12.raw.xz"]},
    }


@pytest.mark.parametrize(
    ("of_template", "asked", "grown"), [(None, 5, 5), (7, None, 7), (7, 5, 5), (None, None, None)]
)
def test_a_size_grows_it_beneath_the_overlay(of_template, asked, grown):
    layers = guest_export(replace(TEMPLATE, size=of_template), "web1", NBD, size=asked)["layers"]
    assert [layer["type"] for layer in layers] == ["cow", *["grow"] * (grown is not None), "xz"]
    if grown is not None:
        assert layers[1]["size"] == grown


def test_mirrors_and_hash_go_with_the_image():
    template = replace(TEMPLATE, image=("https://a/x", "https://b/x"), sha256="00ff", sha512="11")
    assert guest_export(template, "web1", NBD)["source"] == {
        "type": "http",
        "url": ["https://a/x", "https://b/x"],
        "sha256": "00ff",
    }


def test_an_image_may_be_a_file_of_the_server():
    template = replace(TEMPLATE, image=("/srv/debian.raw",), layers=())
    assert guest_export(template, "web1", NBD)["source"] == {
        "type": "file",
        "path": "/srv/debian.raw",
    }


def test_layers_are_written_as_on_the_command_line():
    template = replace(TEMPLATE, layers=("cache:path=/c,size=1G", "log:a=1,a=2,a=3", "xz"))
    assert guest_export(template, "web1", NBD)["layers"][1:] == [
        {"type": "cache", "path": "/c", "size": "1G"},
        {"type": "log", "a": ["1", "2", "3"]},
        {"type": "xz"},
    ]
    with pytest.raises(ConfigError):
        guest_export(replace(TEMPLATE, layers=("cache:",)), "web1", NBD)


def test_a_seed_lies_in_its_table_packed():
    image = bytes(66 << 10) + b"user-data"
    table = seed_export("web1", image)
    assert (table["name"], table["read-only"]) == ("seed/web1", True)
    packed = base64.b64decode(table["source"]["base64"])
    assert lzma.decompress(packed) == image
    assert len(packed) < 1000


def test_the_largest_seed_fits_a_request(tmp_path):
    import random

    table = seed_export("web1", random.Random(1).randbytes(512 << 10))
    assert len(table["source"]["base64"]) + 1000 < LONGEST_REQUEST
