"""What is said of an image that does not fit its template."""

import pytest

from minicloud.images.facts import ImageFacts, checksums_of, complaints
from nbdserve.formats.xz import XzLayout
from nbdserve.inspection import ReadCost, XzFacts
from templates import bare_template

RAW = bytes(510) + b"\x55\xaa"
GIB = 1 << 30


def xz(*, size=GIB, largest=16 << 20, blocks=64):
    layout = XzLayout(
        size=size, packed_size=size // 4, streams=1, blocks=blocks, checks=(), padding=0,
        largest_block=largest, largest_packed_block=largest // 4,
    )  # fmt: skip
    return XzFacts(layout, ReadCost(1, 1))


def test_a_raw_image_is_one_as_it_is():
    facts = ImageFacts(GIB, RAW)
    assert facts.format == "raw"
    assert facts.disk(bare_template()) == GIB
    assert complaints(facts, bare_template()) == []
    assert facts.warnings == []


def test_an_xz_file_holds_a_disk_of_another_size():
    facts = ImageFacts(GIB // 4, b"\xfd7zXZ\0", xz())
    assert facts.format == "xz"
    assert facts.disk(bare_template(layers=("cache:size=1M", "xz"))) == GIB
    assert complaints(facts, bare_template(layers=("xz",))) == []


def test_nothing_is_said_of_a_disk_that_a_layer_changes():
    assert ImageFacts(GIB, RAW).disk(bare_template(layers=("slice:offset=1M",))) is None
    assert complaints(ImageFacts(GIB, RAW), bare_template(layers=("slice",), size=1)) == []


@pytest.mark.parametrize(
    ("facts", "keys", "part"),
    [
        (ImageFacts(GIB, RAW), {"layers": ("xz",)}, "no xz file, but layers has xz: it looks like"),
        (ImageFacts(GIB, b"\xfd7z", xz()), {}, 'write layers = ["xz"]'),
        (ImageFacts(GIB, b"QFI\xfb"), {}, "no disk image: it is a qcow2 image"),
        (ImageFacts(2 * GIB, RAW), {"size": GIB}, "size is 1 GiB, but the disk in it has 2 GiB"),
        (
            ImageFacts(1, b"\xfd", xz(size=2 * GIB)),
            {"size": GIB, "layers": ("xz",)},
            "a disk only grows",
        ),
        (
            ImageFacts(1, RAW, sums={"sha256": "aa"}),
            {"sha256": "bb"},
            "its sha256 is aa, not bb as the inventory says",
        ),
    ],
)
def test_what_is_wrong_is_told(facts, keys, part):
    (text,) = complaints(facts, bare_template(**keys))
    assert part in text


def test_checksums_that_agree_or_were_not_taken_are_fine():
    given = bare_template(sha256="aa", sha512="bb")
    assert checksums_of(given) == {"sha256": "aa", "sha512": "bb"}
    assert complaints(ImageFacts(1, RAW, sums={"sha256": "aa", "sha512": "bb"}), given) == []
    assert complaints(ImageFacts(1, RAW), given) == []


def test_large_blocks_are_warned_of_with_the_remedy():
    facts = ImageFacts(1, b"", xz(largest=192 << 20), remedy="nbdctl pack x")
    (text,) = facts.warnings
    assert "192 MiB" in text
    assert text.endswith("nbdctl pack x")
    assert complaints(facts, bare_template(layers=("xz",))) == []
