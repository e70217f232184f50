"""A real bootable disk image, made without root, without loop devices and without mounting.

BIOS, GRUB in the gap before the first partition, ext4 by `mke2fs -d`, Debian's cloud kernel and a
busybox initramfs that mounts the disk it was booted from, prints a marker and powers off.
"""

import gzip
import os
import shutil
import subprocess
from pathlib import Path

from grub import install_grub

__all__ = ["MARKER", "bootable_image"]

MARKER = "GUEST-MARKER the disk it booted from is readable"

_SECTOR = 512
_PARTITION = 2048  # first sector of the partition, as every partitioning tool has it
_CORE = 1  # GRUB's core image follows the boot sector
_MODULES = ("virtio_pci", "virtio_blk")

_INIT = """#!/bin/sh
export PATH=/bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
while read module; do insmod /lib/modules/$module; done < /lib/modules/order
tries=0
while [ ! -b /dev/vda1 ] && [ $tries -lt 100 ]; do sleep 0.1; tries=$((tries+1)); done
mount -t ext4 /dev/vda1 /mnt && cat /mnt/marker.txt
if grep -q guest.write /proc/cmdline; then
  echo written > /mnt/written.txt && sync && cat /mnt/written.txt
fi
umount /mnt; sync; poweroff -f
"""

_GRUB_CFG = """
serial --unit=0
terminal_output serial
linux /vmlinuz console=ttyS0 panic=-1 quiet guest.write
initrd /initrd
boot
"""


def bootable_image(path: Path, *, size: int, cache: Path, filler: int = 0) -> None:
    """Write a raw disk image of `size` bytes that boots by BIOS from its first partition.

    Args:
        path: where to.
        size: of the whole disk, bytes; most of it is a hole.
        cache: where the unpacked kernel package is kept between runs.
        filler: bytes of data that compresses about as well as programs do.
    """
    kernel = _kernel(cache)
    tree = path.parent / f"{path.name}.tree"
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    (tree / "marker.txt").write_text(MARKER + "\n")
    shutil.copy(next(kernel.glob("boot/vmlinuz-*")), tree / "vmlinuz")
    (tree / "initrd").write_bytes(_initramfs(kernel, cache / "initramfs"))
    (tree / "grub.cfg").write_text(_GRUB_CFG)
    if filler:
        _fill(tree / "filler", filler)
    with path.open("wb") as disk:
        disk.truncate(size)
    subprocess.run(
        ["sfdisk", "-q", path], input=f"label: dos\nstart={_PARTITION}, type=83, bootable\n",
        text=True, check=True,
    )  # fmt: skip
    blocks = (size - _PARTITION * _SECTOR) // 1024
    subprocess.run(
        ["mke2fs", "-q", "-F", "-t", "ext4", "-L", "GUEST", "-d", tree,
         "-E", f"offset={_PARTITION * _SECTOR}", path, f"{blocks}k"],
        check=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    _install_grub(path, tree)
    shutil.rmtree(tree)


def _kernel(cache: Path) -> Path:
    """Unpack Debian's cloud kernel; the package is downloaded, never installed."""
    root = cache / "kernel"
    if not root.exists():
        cache.mkdir(parents=True, exist_ok=True)
        described = subprocess.run(
            ["apt-cache", "depends", "linux-image-cloud-amd64"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        package = next(word for word in described.split() if word.startswith("linux-image-6"))
        subprocess.run(
            ["apt-get", "-q", "download", package], cwd=cache, check=True, capture_output=True
        )
        unpacked = cache / "kernel.new"
        for deb in cache.glob("linux-image-*.deb"):
            subprocess.run(["dpkg-deb", "-x", deb, unpacked], check=True)
            deb.unlink()
        unpacked.rename(root)
    return root


def _initramfs(kernel: Path, tree: Path) -> bytes:
    shutil.rmtree(tree, ignore_errors=True)
    for folder in ("bin", "proc", "sys", "dev", "mnt", "lib/modules"):
        (tree / folder).mkdir(parents=True)
    shutil.copy("/bin/busybox", tree / "bin/busybox")
    for applet in ("sh", "mount", "umount", "cat", "insmod", "sleep", "grep", "echo", "sync",
                   "poweroff"):  # fmt: skip
        (tree / "bin" / applet).symlink_to("busybox")
    order = _modules(kernel)
    for module in order:
        shutil.copy(module, tree / "lib/modules" / module.name)
    (tree / "lib/modules/order").write_text("".join(f"{m.name}\n" for m in order))
    init = tree / "init"
    init.write_text(_INIT)
    init.chmod(0o755)
    names = "\n".join(str(p.relative_to(tree)) for p in sorted(tree.rglob("*")))
    archive = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet", "-R", "0:0"],
        cwd=tree, input=names.encode(), capture_output=True, check=True,
    ).stdout  # fmt: skip
    return gzip.compress(archive, 1)


def _modules(kernel: Path) -> list[Path]:
    """List the modules the guest needs, each after those it depends on."""
    release = next(kernel.glob("lib/modules/*")).name
    subprocess.run(["depmod", "-b", kernel, release], check=True)
    order: list[Path] = []
    for name in _MODULES:
        shown = subprocess.run(
            ["modprobe", "-d", kernel, "-S", release, "--show-depends", name],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        for line in shown.splitlines():
            module = Path(line.split()[1]) if line.startswith("insmod") else None
            if module is not None and module not in order:
                order.append(module)
    return order


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
