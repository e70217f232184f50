"""One socket for two descriptors: bytes both ways, and nothing lost at the end."""

import contextlib
import os
import socket

import pytest

from nbdserve.server.duplex import duplex

PAYLOAD = os.urandom(400_000)


@pytest.fixture
def pipes():
    """Two pipes: what is read from, and what is written to, as (read end, write end) each."""
    ends = [*os.pipe(), *os.pipe()]
    yield ends
    for fd in (ends[1], ends[0], *ends[2:]):  # the writer first: it lets a waiting reader go
        with contextlib.suppress(OSError):
            os.close(fd)


def test_bytes_go_both_ways(pipes):
    read_in, write_in, read_out, write_out = pipes
    pair = duplex(read_in, write_out)
    pair.sock.setblocking(True)
    os.write(write_in, b"request")
    assert pair.sock.recv(100) == b"request"
    pair.sock.sendall(b"reply")
    assert os.read(read_out, 100) == b"reply"
    os.close(write_in)
    assert pair.sock.recv(100) == b""
    pair.sock.close()
    assert pair.delivered(60)


def test_what_was_sent_before_the_close_is_delivered(pipes):
    read_in, _, read_out, write_out = pipes
    pair = duplex(read_in, write_out)
    pair.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * len(PAYLOAD))
    sent = pair.sock.send(PAYLOAD)  # more than a pipe holds
    assert sent > 1 << 16
    pair.sock.close()
    assert not pair.delivered(0)
    received = b""
    while len(received) < sent:
        received += os.read(read_out, sent - len(received))
    assert received == PAYLOAD[:sent]
    assert pair.delivered(60)


def test_a_reader_that_is_gone_is_told_to_the_sender(pipes):
    read_in, _, read_out, write_out = pipes
    pair = duplex(read_in, write_out)
    pair.sock.setblocking(True)
    os.close(read_out)
    with pytest.raises(OSError, match="Broken pipe"):
        pair.sock.sendall(PAYLOAD * 100)  # far more than anybody holds
    pair.sock.close()
    assert pair.delivered(60)


def test_a_socket_that_is_both_is_used_as_it_is():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        pair = duplex(theirs.fileno(), theirs.fileno())
        with pair.sock:
            ours.send(b"x")
            assert pair.sock.recv(1) == b"x"
        assert pair.delivered(0)
