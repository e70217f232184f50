"""Wake-on-LAN: nodes are switched on by magic packets, as machines are whose card listens on."""

import contextlib
import socket
import threading
from collections.abc import Iterator, Mapping

from .network import Hub
from .node import Node

__all__ = ["waking"]

_DISCARD = 9  # the port that magic packets are customarily sent to
_SYNC = b"\xff" * 6


@contextlib.contextmanager
def waking(hub: Hub, nodes: Mapping[int, Node]) -> Iterator[list[str]]:
    """Boot, for the time of the block, each node that is off and whose magic packet comes.

    Yields the names of the nodes that were woken so far.
    """
    woken: list[str] = []
    by_packet = {
        _SYNC + bytes.fromhex(node.mac.replace(":", "")) * 16: node for node in nodes.values()
    }
    with hub.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("", _DISCARD))

        def listen() -> None:
            while packet := sock.recv(2048):
                node = next((n for magic, n in by_packet.items() if magic in packet), None)
                if node is not None and not node.is_on():
                    node.on()
                    woken.append(node.name)

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield woken
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ending:
                ending.sendto(b"", ("127.0.0.1", _DISCARD))
            thread.join()
