"""On a pseudo-terminal, as an operator's."""

import asyncio
import os
import pty
import termios

import pytest

from minicloud.render.terminal import StandardTerminal


@pytest.fixture
def ends():
    """Both ends of a terminal."""
    far, near = pty.openpty()
    yield far, near
    os.close(far)
    os.close(near)


@pytest.fixture
def terminal(ends):
    with open(ends[1], "r+b", buffering=0, closefd=False) as stream:
        yield StandardTerminal(stream, stream)


def settings(place):
    return termios.tcgetattr(place)


def test_a_terminal_is_interactive_and_a_pipe_is_not(terminal):
    assert terminal.is_interactive
    reading, writing = os.pipe()
    with open(reading, "rb") as stream, open(writing, "wb"):
        assert not StandardTerminal(stream).is_interactive


def test_a_raw_terminal_is_put_back_whatever_happens(ends, terminal):
    _, near = ends
    before = settings(near)
    during = []

    def fail():
        with terminal.raw():
            during.extend(settings(near))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert during[3] & termios.ISIG == 0  # ^C is a key
    assert settings(near) == before


def test_what_was_typed_beyond_the_end_does_not_reach_the_shell(ends, terminal):
    far, near = ends
    with terminal.raw():
        os.write(far, b"rm -rf /\n")
    os.write(far, b"ls\n")
    assert os.read(near, 100) == b"ls\n"


async def test_keys_come_one_by_one_and_uncooked(ends, terminal):
    far, _ = ends
    with terminal.raw():
        os.write(far, b"\x03")
        assert await terminal.read() == b"\x03"
        reading = asyncio.create_task(terminal.read())
        os.write(far, b"a")
        assert await reading == b"a"


async def test_bytes_are_printed_as_they_are(ends, terminal):
    far, _ = ends
    with terminal.raw():
        await terminal.write(b"a\nb\x1b[0m")
    assert os.read(far, 100) == b"a\nb\x1b[0m"


async def test_a_terminal_nobody_reads_does_not_keep_the_loop(ends, terminal):
    far, _ = ends
    with terminal.raw():
        writing = asyncio.create_task(terminal.write(bytes(1 << 20)))
        for _ in range(3):
            await asyncio.sleep(0)
        assert not writing.done()
        got = 0
        while got < 1 << 20:
            got += len(await asyncio.to_thread(os.read, far, 1 << 16))
        await writing


async def test_a_hung_up_terminal_is_the_end_of_input():
    far, near = pty.openpty()
    os.close(far)
    with open(near, "rb", buffering=0) as stream:
        assert await StandardTerminal(stream).read() == b""


def test_what_is_said_cannot_steer_the_terminal(capsys):
    StandardTerminal().say("web1\x1b[2J")
    StandardTerminal().show("vnc://127.0.0.1:5900")
    assert capsys.readouterr() == ("vnc://127.0.0.1:5900\n", "web1?[2J\n")
