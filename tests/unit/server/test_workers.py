"""What the parent of several workers makes of what they tell the service manager."""

import os
import socket
import subprocess
import sys

from nbdserve.server.workers import _Messages, _Watchdog

TELL = """
import socket, sys
with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
    sock.sendto(b"WATCHDOG=1\\nSTATUS=well", sys.argv[1])
"""


def test_messages_are_known_by_the_process_that_sent_them():
    with _Messages.listening() as messages:
        assert messages.take() == (0, [])
        with subprocess.Popen([sys.executable, "-c", TELL, messages.path]) as child:
            assert child.wait(60) == 0
        assert messages.take() == (child.pid, ["WATCHDOG=1", "STATUS=well"])
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"READY=1", os.fspath(messages.path))
        assert messages.take() == (os.getpid(), ["READY=1"])


def test_all_turn_only_when_each_has_said_so():
    watchdog = _Watchdog()
    alive = [11, 12, 13]
    assert not any(watchdog.pat(pid, alive) for pid in (11, 12, 11, 12, 11, 12))
    assert watchdog.pat(13, alive)
    assert not watchdog.pat(13, alive), "each anew"
    assert not watchdog.pat(12, alive)
    assert watchdog.pat(12, alive[1:]), "who has ended is not waited for"
