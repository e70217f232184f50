"""The disk that stands on the command line."""

import pytest

from nbdserve.errors import ConfigError
from nbdserve.extents import DATA, ZERO_HOLE, Extent
from nbdserve.params import params_from
from nbdserve.sources.data import DataParams, DataSource


def make(**given):
    pairs = [("" if key == "argument" else key, value) for key, value in given.items()]
    return DataSource(params_from(DataParams, pairs, element="source data"))


@pytest.mark.parametrize(
    ("given", "contents"),
    [
        ({"argument": "text"}, b"text"),
        ({"text": "ü"}, b"\xc3\xbc"),
        ({"hex": "55aa"}, b"\x55\xaa"),
        ({"hex": "55 AA"}, b"\x55\xaa"),
        ({"base64": "AQID"}, b"\1\2\3"),
        ({"argument": "x", "size": "4"}, b"x\0\0\0"),
        ({"argument": "", "size": "2"}, b"\0\0"),
        ({"argument": ""}, b""),
    ],
)
async def test_it_is_what_was_written_down(given, contents):
    disk = make(**given)
    assert disk.info.size == len(contents)
    assert await disk.read(0, len(contents)) == contents


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "exactly one"),
        ({"argument": "a", "hex": "00"}, "exactly one"),
        ({"hex": "5"}, "hexadecimal"),
        ({"hex": "zz"}, "hexadecimal"),
        ({"base64": "?"}, "base64"),
        ({"argument": "long", "size": "1"}, "smaller than the contents"),
    ],
)
def test_what_will_not_do_is_told(given, message):
    with pytest.raises(ConfigError, match=message):
        make(**given)


@pytest.mark.parametrize(
    ("offset", "length", "wanted"),
    [
        (0, 1 << 40, [(3, DATA), ((1 << 40) - 3, ZERO_HOLE)]),
        (1, 1, [(1, DATA)]),
        (2, 2, [(1, DATA), (1, ZERO_HOLE)]),
        (3, 9, [(9, ZERO_HOLE)]),
    ],
)
async def test_what_size_adds_is_a_hole(offset, length, wanted):
    disk = make(argument="abc", size="1T")
    assert await disk.extents(offset, length) == [Extent(*extent) for extent in wanted]
    assert await disk.read((1 << 40) - 5, 5) == bytes(5)
