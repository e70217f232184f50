"""A real bootable disk image, made without root, without loop devices and without mounting.

BIOS, GRUB in the gap before the first partition, ext4 by `mke2fs -d`, Debian's cloud kernel and a
busybox initramfs that mounts the disk it was booted from, prints a marker and does what it is told
by words, on the kernel's command line, in the image, or in its cloud-init seed (guest-init.sh).
"""

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from grub import install_grub
from guestkernel import INIT, initramfs, unpacked_kernel, vmlinuz

__all__ = ["MARKER", "bootable_image", "kernel_and_initrd", "revision"]

MARKER = "GUEST-MARKER the disk it booted from is readable"

_SECTOR = 512
_PARTITION = 2048  # first sector of the partition, as every partitioning tool has it
_CORE = 1  # GRUB's core image follows the boot sector

# without the first, a kernel whose emulated timer comes late on a busy machine hangs; the others
# save a tenth of a boot's work
_CHEAP = "no_timer_check mitigations=off nokaslr"

_GRUB_CFG = f"""
serial --unit=0
terminal_output serial
linux /vmlinuz console=ttyS0 panic=-1 quiet {_CHEAP}
initrd /initrd
boot
"""


def bootable_image(
    path: Path, *, size: int, cache: Path, filler: int = 0, spare: int = 0,
    words: str = "guest.write",
) -> None:  # fmt: skip
    """Write a raw disk image of `size` bytes that boots by BIOS from its first partition.

    Args:
        path: where to.
        size: of the whole disk, bytes; most of it is a hole.
        cache: where the unpacked kernel package is kept between runs.
        filler: bytes of data that compresses about as well as programs do.
        spare: bytes of a second partition, at the disk's end, for guest.verify; 4 MiB are enough.
        words: what every guest of it does (see guest-init.sh).
    """
    tree = path.parent / f"{path.name}.tree"
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    (tree / "marker.txt").write_text(MARKER + "\n")
    (tree / "guest.conf").write_text(words + "\n")
    kernel = unpacked_kernel(cache)
    shutil.copy(vmlinuz(kernel), tree / "vmlinuz")
    (tree / "initrd").write_bytes(initramfs(kernel, cache / "initramfs"))
    (tree / "grub.cfg").write_text(_GRUB_CFG)
    if filler:
        _fill(tree / "filler", filler)
    with path.open("wb") as disk:
        disk.truncate(size)
    sectors = (size - spare) // _SECTOR - _PARTITION
    table = f"label: dos\nstart={_PARTITION}, size={sectors}, type=83, bootable\n"
    if spare:
        table += f"start={_PARTITION + sectors}, type=83\n"
    subprocess.run(["sfdisk", "-q", path], input=table, text=True, check=True)
    subprocess.run(
        ["mke2fs", "-q", "-F", "-t", "ext4", "-L", "GUEST", "-d", tree,
         "-E", f"offset={_PARTITION * _SECTOR}", path, f"{sectors // 2}k"],
        check=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    _install_grub(path, tree)
    shutil.rmtree(tree)


def kernel_and_initrd(folder: Path, *, cache: Path) -> tuple[Path, Path]:
    """Put the kernel and the initramfs into `folder`, for guests that are booted directly."""
    unpacked = unpacked_kernel(cache)
    kernel, initrd = folder / "vmlinuz", folder / "initrd"
    shutil.copy(vmlinuz(unpacked), kernel)
    initrd.write_bytes(initramfs(unpacked, cache / "initramfs"))
    return kernel, initrd


def revision() -> str:
    """Return a word that changes with what guests do, to name kept images by."""
    sources = [Path(__file__), INIT, INIT.with_name("guestkernel.py")]
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()[:8]


def _install_grub(disk: Path, tree: Path) -> None:
    """Put GRUB into the gap before the first partition."""
    config = tree / "early.cfg"
    config.write_text("set root=(hd0,msdos1)\nset prefix=(hd0,msdos1)/\nconfigfile /grub.cfg\n")
    core_path = tree / "core.img"
    subprocess.run(
        ["grub-mkimage", "-O", "i386-pc", "-c", config, "-p", "(hd0,msdos1)/", "-o", core_path,
         "biosdisk", "part_msdos", "ext2", "linux", "serial", "terminal", "configfile", "normal"],
        check=True,
    )  # fmt: skip
    install_grub(disk, core_path.read_bytes(), at=_CORE, room=_PARTITION - _CORE)


def _fill(path: Path, size: int) -> None:
    """Write data of the density of programs: half of each 4 KiB random, half repeated."""
    noise = memoryview(os.urandom(1 << 20))
    text = (b"locatable text " * 300)[:2048]
    with path.open("wb") as out:
        for at in range(0, size, 4096):
            start = at * 2654435761 % ((1 << 20) - 2048)
            out.write(at.to_bytes(8, "big"))
            out.write(noise[start : start + 2040])
            out.write(text)
