"""Buffers: zeroed, writable, and alive as long as a view of them."""

import pytest

from nbdserve.buffers import MAPPED, fill_zeroes, zeroed_buffer


@pytest.mark.parametrize("size", [0, 1, MAPPED - 1, MAPPED, 3 * MAPPED + 5])
def test_a_buffer_is_zeroed_and_writable(size):
    buffer = zeroed_buffer(size)
    assert (len(buffer), buffer.format, buffer.readonly) == (size, "B", False)
    assert not any(buffer)
    buffer[size // 2 :] = b"x" * (size - size // 2)
    assert buffer[size // 2 :] == b"x" * (size - size // 2)


def test_a_buffer_lives_as_long_as_a_view_of_it():
    part = zeroed_buffer(2 * MAPPED)[MAPPED:]
    part[:3] = b"abc"
    assert bytes(part[:4]) == b"abc\0"


@pytest.mark.parametrize("size", [0, 1, MAPPED, 2 * MAPPED + 7])
def test_zeroes_fill_all_of_a_view_and_nothing_else(size):
    buffer = memoryview(bytearray(b"x" * (size + 2)))
    fill_zeroes(buffer[1:-1])
    assert buffer == b"x" + bytes(size) + b"x"
