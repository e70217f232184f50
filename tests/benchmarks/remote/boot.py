"""A guest that boots from an image until it says so on its serial console."""

import time
from pathlib import Path

from remote.processes import running

__all__ = ["DONE", "boot", "parse_reads"]

DONE = b"BOOT-DONE"

# An address and a router, and nothing behind it: without, systemd waits for them for two minutes.
_NETWORK = ("-netdev", "user,id=net,restrict=on", "-device", "virtio-net-pci,netdev=net,romfile=")


def boot(
    disk: str, *, log: Path, within: float, accel: str, snapshot: bool = False,
    trace: Path | None = None,
) -> float:  # fmt: skip
    """Boot to the marker, then pull the plug; return the seconds from the start of qemu.

    Args:
        disk: a file, or an NBD URI.
        log: what qemu says is appended here.
        within: seconds.
        accel: `tcg`, or `kvm` where that works.
        snapshot: keep the guest's writes out of the file.
        trace: where qemu is to note what it reads.

    Raises:
        RuntimeError: the marker did not come.
    """
    console = log.with_suffix(".console")
    console.write_bytes(b"")
    argv = ["qemu-system-x86_64", "-machine", f"q35,accel={accel}",
            "-cpu", "host" if accel == "kvm" else "max", "-smp", "1", "-m", "1024",
            "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", *_NETWORK,
            "-serial", f"file:{console}", "-drive",
            f"file={disk},format=raw,if=virtio,snapshot={'on' if snapshot else 'off'}"]  # fmt: skip
    if trace is not None:
        argv += ["-trace", f"enable=blk_co_preadv,file={trace}"]
    began = time.monotonic()
    with running(argv, log=log) as qemu:
        while DONE not in console.read_bytes():
            if qemu.poll() is not None:
                raise RuntimeError(f"qemu ended with {qemu.returncode}; see {log}")
            if time.monotonic() > began + within:
                raise RuntimeError(f"the guest did not boot within {within:.0f} s")
            time.sleep(0.02)
        return time.monotonic() - began


def parse_reads(trace: str) -> list[tuple[int, int]]:
    """Read (offset, length) of each read off qemu's trace of blk_co_preadv."""
    found = []
    for line in trace.splitlines():
        words = line.split()
        if "blk_co_preadv" in words:
            found.append(
                (int(words[words.index("offset") + 1]), int(words[words.index("bytes") + 1]))
            )
    return found
