"""Two TUN devices in two network namespaces, joined by a link of some delay and rate.

The kernel's own TCP runs on both ends, so slow start, windows and retransmissions are genuine; it
takes the place of netem where the kernel has none. One process, one loop; it says `ready` when both
devices are there, and ends on SIGTERM.
"""

import ctypes
import fcntl
import gc
import os
import select
import signal
import struct
import sys
import time

from remote.direction import Direction

__all__ = ["DEVICE", "main"]

DEVICE = "far0"

_NEWNET = 0x40000000  # setns(2), CLONE_NEWNET
_SET_IFF = 0x400454CA  # linux/if_tun.h, TUNSETIFF
_TUN, _NO_INFO = 0x0001, 0x1000  # IFF_TUN, IFF_NO_PI
_PACKET = 65536
# Packets enter and leave the link once a tick: a hundredth of the delay, and a quarter of the CPU
# time that a wake-up for each packet takes.
_TICK = 0.0005
_LIBC = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    """Run: NAMESPACE NAMESPACE RTT_MS MBIT QUEUE_KIB LOSS_PERCENT."""
    near, far = (_device(name) for name in sys.argv[1:3])
    rtt, mbit, queue, loss = map(float, sys.argv[3:7])
    there, back = (
        Direction(delay=rtt / 2000, rate=mbit * 1e6, queue=int(queue * 1024), loss=loss / 100)
        for _ in range(2)
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it ends it
    gc.disable()  # nothing here makes cycles, and a link does not pause
    print("ready", flush=True)
    try:
        _forward([(near, far, there), (far, near, back)])
    finally:
        print(f"dropped: {there.dropped} there, {back.dropped} back", file=sys.stderr)


def _device(namespace: str) -> int:
    """Make a TUN device in a namespace; it vanishes with its descriptor."""
    descriptor = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        if _LIBC.setns(descriptor, _NEWNET):
            raise OSError(ctypes.get_errno(), f"cannot enter the network namespace {namespace}")
    finally:
        os.close(descriptor)
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, _SET_IFF, struct.pack("16sH22x", DEVICE.encode(), _TUN | _NO_INFO))
    return device


def _forward(ways: list[tuple[int, int, Direction]]) -> None:
    """Move packets for ever: a turn a tick while any are under way, else when one comes."""
    clock = time.monotonic
    sources = [source for source, _, _ in ways]
    while True:
        now = clock()
        for source, target, direction in ways:
            _take(source, direction, now)
            while (packet := direction.arrived(now)) is not None:
                try:
                    os.write(target, packet)
                except OSError:  # its queue is full, or that end is not up yet
                    direction.dropped += 1
        dues = [due for _, _, direction in ways if (due := direction.due()) is not None]
        if dues:
            time.sleep(_TICK)
        else:
            select.select(sources, (), ())


def _take(source: int, direction: Direction, now: float) -> None:
    try:
        while True:
            direction.send(os.read(source, _PACKET), now)
    except BlockingIOError:
        return


if __name__ == "__main__":
    main()
