"""Debian's cloud kernel, and an initramfs of busybox that does what guest-init.sh says."""

import gzip
import shutil
import subprocess
from pathlib import Path

__all__ = ["INIT", "initramfs", "unpacked_kernel", "vmlinuz"]

INIT = Path(__file__).with_name("guest-init.sh")

_MODULES = (
    "virtio_pci", "virtio_blk", "virtio_net", "virtio_scsi", "sd_mod", "isofs", "button", "evdev",
    "virtio_console",
)  # fmt: skip

_BANNER = """#!/bin/sh
echo SSH-2.0-guest
exec cat >/dev/null
"""


def unpacked_kernel(cache: Path) -> Path:
    """Unpack the cloud kernel below `cache`, once; the package is downloaded, never installed."""
    root = cache / "kernel"
    if not root.exists():
        cache.mkdir(parents=True, exist_ok=True)
        described = subprocess.run(
            ["apt-cache", "depends", "linux-image-cloud-amd64"],
            capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip
        package = next(word for word in described.split() if word.startswith("linux-image-6"))
        subprocess.run(
            ["apt-get", "-q", "-o", "Acquire::Retries=5", "download", package],
            cwd=cache, check=True, capture_output=True,
        )  # fmt: skip
        unpacked = cache / "kernel.new"
        for deb in cache.glob("linux-image-*.deb"):
            subprocess.run(["dpkg-deb", "-x", deb, unpacked], check=True)
            deb.unlink()
        unpacked.rename(root)
    return root


def vmlinuz(kernel: Path) -> Path:
    """Find the kernel itself."""
    return next(kernel.glob("boot/vmlinuz-*"))


def initramfs(kernel: Path, tree: Path) -> bytes:
    """Make the initramfs; `tree` is where its files are put together."""
    shutil.rmtree(tree, ignore_errors=True)
    for folder in ("bin", "proc", "sys", "dev", "mnt", "seed", "tmp", "lib/modules"):
        (tree / folder).mkdir(parents=True)
    shutil.copy("/bin/busybox", tree / "bin/busybox")
    order = _modules(kernel)
    for module in order:
        shutil.copy(module, tree / "lib/modules" / module.name)
    (tree / "lib/modules/order").write_text("".join(f"{m.name}\n" for m in order))
    (tree / "init").write_text(INIT.read_text())
    (tree / "banner").write_text(_BANNER)
    for program in ("init", "banner"):
        (tree / program).chmod(0o755)
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
