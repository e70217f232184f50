"""The option reader: exact cuts, and no more held than stated, however the bytes arrive."""

import struct

import pytest

from nbdserve.errors import ProtocolError
from nbdserve.protocol.option_reader import ABSURD_LENGTH, OptionReader, ReceivedOption
from nbdserve.protocol.options import encode_option

WANTED, OTHER = 7, 3


def read(data, step):
    """Feed bytes `step` at a time; return the options and the most that was held in between."""
    reader, found, most = OptionReader({WANTED}), [], 0
    for at in range(0, len(data), step):
        reader.receive(data[at : at + step])
        while (option := reader.next_option()) is not None:
            found.append(option)
        most = max(most, reader.held)
    return found, most


@pytest.mark.parametrize("step", [1, 5, 16, 17, 1000, 1 << 20])
def test_options_are_cut_exactly(step):
    data = (
        encode_option(WANTED, b"wanted")
        + encode_option(OTHER, b"not" * 1000)
        + encode_option(WANTED)
        + encode_option(OTHER)
        + b"rest"
    )
    found, _ = read(data, step)
    assert found == [
        ReceivedOption(WANTED, 6, b"wanted"),
        ReceivedOption(OTHER, 3000, b""),
        ReceivedOption(WANTED, 0, b""),
        ReceivedOption(OTHER, 0, b""),
    ]
    assert [option.is_passed_over for option in found] == [False, True, False, False]


@pytest.mark.parametrize("step", [1000, 16 << 10])
@pytest.mark.parametrize(
    ("option", "length", "most"),
    [
        (WANTED, 64 << 10, OptionReader.MOST_HELD),
        (WANTED, (64 << 10) + 1, 16),
        (WANTED, ABSURD_LENGTH, 16),
        (OTHER, ABSURD_LENGTH, 16),
    ],
)
def test_no_more_is_held_than_stated(option, length, most, step):
    found, held = read(encode_option(option, bytes(length)) * 3, step)
    assert [received.length for received in found] == [length] * 3
    assert held < most


def test_an_absurd_option_is_an_error_before_its_data():
    with pytest.raises(ProtocolError, match="1048577 bytes"):
        read(b"IHAVEOPT" + struct.pack(">II", OTHER, ABSURD_LENGTH + 1), 16)
