"""GRUB put onto a disk image by hand: what grub-bios-setup does on a device that it can probe."""

import os
import struct
from pathlib import Path

__all__ = ["install_grub"]

_SECTOR = 512
_BOOT = Path("/usr/lib/grub/i386-pc/boot.img")


def install_grub(disk: Path, core: bytes, *, at: int, room: int) -> None:
    """Write GRUB's boot sector, and its core behind it.

    Offsets: GRUB's boot.S (kernel sector 0x5c, drive check 0x66) and diskboot.S (block list 0x1f4).

    Args:
        disk: the image; its partition table stays as it is.
        core: what grub-mkimage made.
        at: the first sector that the core may take.
        room: sectors there are for it.
    """
    padded = bytearray(core)
    padded += bytes(-len(padded) % _SECTOR)
    sectors = len(padded) // _SECTOR
    assert sectors <= room
    boot = bytearray(_BOOT.read_bytes())
    struct.pack_into("<Q", boot, 0x5C, at)
    struct.pack_into("<H", boot, 0x66, 0x9090)  # trust the drive number, as for a hard disk
    struct.pack_into("<QHH", padded, 0x1F4, at + 1, sectors - 1, 0x820)
    descriptor = os.open(disk, os.O_RDWR)
    try:
        boot[0x1B8:_SECTOR] = os.pread(descriptor, _SECTOR, 0)[0x1B8:]  # the partition table stays
        os.pwrite(descriptor, boot, 0)
        os.pwrite(descriptor, padded, at * _SECTOR)
    finally:
        os.close(descriptor)
