"""A disk that libguestfs takes for a Debian: busybox and some files, 32 MiB, made in no time."""

import subprocess
from pathlib import Path

__all__ = ["read_file", "small_debian"]

_FOLDERS = (
    "bin", "boot", "dev", "etc", "etc/ssh", "home", "proc", "root", "run", "sbin", "sys", "tmp",
    "usr/bin", "usr/sbin", "var/lib/urandom", "var/log",
)  # fmt: skip
_FILES = {
    "etc/debian_version": "12.0\n",
    "etc/fstab": "LABEL=small / ext4 defaults 0 1\n",
    "etc/group": "root:x:0:\n",
    "etc/hostname": "small\n",
    "etc/hosts": "127.0.0.1 localhost\n127.0.1.1 small\n",
    "etc/machine-id": "",
    "etc/os-release": 'ID=debian\nVERSION_ID="12"\nPRETTY_NAME="Debian 12"\n',
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "etc/shadow": "root:!:19000:0:99999:7:::\n",
}


def small_debian(folder: Path, disk: Path) -> None:
    """Make it.

    Args:
        folder: for what goes into it.
        disk: to be made, a raw image of one file system.
    """
    for name in _FOLDERS:
        folder.joinpath(name).mkdir(parents=True, exist_ok=True)
    folder.joinpath("tmp").chmod(0o1777)
    for name, text in _FILES.items():
        folder.joinpath(name).write_text(text)
    busybox = folder / "bin" / "busybox"
    busybox.write_bytes(Path("/bin/busybox").read_bytes())
    busybox.chmod(0o755)
    told = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True)
    for applet in set(told.stdout.split()) - {"busybox"}:
        folder.joinpath("bin", applet).symlink_to("busybox")
    subprocess.run(
        ["mke2fs", "-q", "-t", "ext4", "-d", folder, "-L", "small", disk, "32M"],
        check=True, capture_output=True,
    )  # fmt: skip


def read_file(disk: Path, name: str) -> str:
    """Read a file of it."""
    told = subprocess.run(
        ["debugfs", "-R", f"cat {name}", disk], capture_output=True, text=True, check=True
    )
    return told.stdout
