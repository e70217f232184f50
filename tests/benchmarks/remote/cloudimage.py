"""A bootable Debian 12 like the ones that clouds boot: BIOS, GRUB, GPT, ext4, systemd, cloud-init.

Built by debootstrap in a folder and `mke2fs -d`, so without a loop device; as root, for a package's
scripts run in a chroot. A unit prints `BOOT-DONE` on the serial console when multi-user.target is
reached, so that a boot has an end to be timed by.

A small image (below 2 GiB) has the kernel and systemd only, and no documentation.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

from grub import install_grub

__all__ = ["build"]

_SUITE = "bookworm"
_UUID = "2b1f6c0e-5d0e-4c57-9c43-6e6264736572"
_SECTOR = 512
_CORE = 2048  # first sector of the BIOS boot partition
_ROOT = 262144  # first sector of the root partition, where Debian's cloud images have it
_PLENTY = 2 << 30  # an image of this size holds a whole cloud image

# Mounts and processes of its own: whatever happens, no mount and no process is left behind, and
# removing the workshop never reaches into this machine's /dev.
_APART = ["unshare", "--mount", "--pid", "--fork", "--kill-child=KILL"]
_MOUNTS = (
    'mount -t proc proc "$0/proc"; for name in sys dev dev/pts; '
    'do mount --bind "/$name" "$0/$name"; done'
)

_TABLE = f"""label: gpt
first-lba: 34
14: start={_CORE}, size=6144, type=21686148-6449-6E6F-744E-656564454649, name="bios"
15: start=8192, size=253952, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B, name="esp"
1: start={_ROOT}, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709, name="root"
"""

_LEAN = "linux-image-cloud-amd64 initramfs-tools systemd-sysv udev dbus"
_CLOUD = """
linux-image-cloud-amd64 initramfs-tools systemd-sysv udev dbus libpam-systemd ca-certificates
locales locales-all apt-utils grub-pc-bin grub2-common cloud-init cloud-guest-utils
cloud-initramfs-growroot gdisk fdisk parted openssh-server openssh-client sudo python3 python3-apt
python3-yaml python3-jinja2 python3-requests ifupdown isc-dhcp-client netplan.io systemd-resolved
systemd-timesyncd dbus-user-session polkitd unattended-upgrades apt-listchanges reportbug
bash-completion vim-tiny nano less man-db manpages curl wget rsync socat tcpdump traceroute
bind9-host bind9-dnsutils iputils-ping iproute2 pciutils usbutils lsof psmisc screen tmux file
xz-utils bzip2 zstd ethtool uuid-runtime git perl qemu-guest-agent qemu-utils krb5-locales
"""
_NO_DOCUMENTS = """path-exclude=/usr/share/doc/*
path-exclude=/usr/share/man/*
path-exclude=/usr/share/locale/*
path-exclude=/usr/share/info/*
"""

_FILES = {
    "etc/fstab": f"UUID={_UUID} / ext4 rw,discard,errors=remount-ro 0 1\n",
    "etc/hostname": "bench\n",
    "etc/machine-id": "",
    "etc/cloud/cloud.cfg.d/91_bench.cfg": "datasource_list: [ NoCloud, None ]\n",
    "var/lib/cloud/seed/nocloud/meta-data": "instance-id: bench-1\nlocal-hostname: bench\n",
    "var/lib/cloud/seed/nocloud/user-data": "#cloud-config\nmanage_etc_hosts: true\n",
    "etc/systemd/system/boot-done.service": """[Unit]
Description=tell that the boot is done
DefaultDependencies=no
After=multi-user.target
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'read up rest < /proc/uptime; echo BOOT-DONE $up > /dev/ttyS0'
[Install]
WantedBy=multi-user.target
""",
}

_GRUB_CFG = """set timeout=0
serial --unit=0 --speed=115200
terminal_output serial
search --no-floppy --fs-uuid --set=root {uuid}
linux /boot/vmlinuz-{version} root=UUID={uuid} ro console=ttyS0,115200 panic=-1
initrd /boot/initrd.img-{version}
boot
"""


def build(path: Path, size: int) -> None:
    """Build an image of `size` bytes; its folder is also the workshop, and is left clean."""
    shop = path.with_suffix(".shop")
    shutil.rmtree(shop, ignore_errors=True)
    shop.mkdir(parents=True)
    fresh = shop / "disk"
    try:
        version = _populate(shop / "tree", size)
        with fresh.open("wb") as disk:
            disk.truncate(size)
        _run(["sfdisk", "-q", fresh], text=_TABLE)
        _run(["mke2fs", "-q", "-F", "-t", "ext4", "-L", "root", "-U", _UUID, "-d", shop / "tree",
              "-E", f"offset={_ROOT * _SECTOR},lazy_itable_init=0,lazy_journal_init=0,nodiscard",
              fresh, f"{_root_size(fresh) // 1024}k"])  # fmt: skip
        install_grub(fresh, _core(shop, version), at=_CORE, room=6144)
        fresh.rename(path)
    finally:
        shutil.rmtree(shop)


def _populate(tree: Path, size: int) -> str:
    """Install Debian into a folder; return its kernel's version."""
    mirror = _mirror()
    _run([*_APART, "debootstrap", "--variant=minbase", _SUITE, tree, mirror])
    _write(tree, "etc/apt/sources.list", f"deb {mirror} {_SUITE} main\n")
    _write(tree, "usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", mode=0o755)  # start no daemon
    if size < _PLENTY:
        _write(tree, "etc/dpkg/dpkg.cfg.d/no-documents", _NO_DOCUMENTS)
    shutil.copy("/etc/resolv.conf", tree / "etc/resolv.conf")
    packages = _CLOUD if size >= _PLENTY else _LEAN
    _in(tree, "apt-get", "-q", "update")
    _in(tree, "apt-get", "-q", "-y", "--no-install-recommends", "install", *packages.split())
    for name, text in _FILES.items():
        _write(tree, name, text)
    _in(tree, "systemctl", "-q", "enable", "boot-done.service")
    _tidy(tree, documents=size >= _PLENTY)
    return _make_bootable(tree)


def _tidy(tree: Path, *, documents: bool) -> None:
    """Remove what building left, as images for clouds have it."""
    _in(tree, "apt-get", "-q", "clean")
    (tree / "usr/sbin/policy-rc.d").unlink()
    (tree / "etc/resolv.conf").unlink()
    emptied = ["var/lib/apt/lists", "tmp"]
    if not documents:
        emptied += [f"usr/share/{name}" for name in ("doc", "man", "locale", "info")]
    for name in emptied:
        shutil.rmtree(tree / name, ignore_errors=True)
        (tree / name).mkdir()
    (tree / "tmp").chmod(0o1777)


def _make_bootable(tree: Path) -> str:
    """Put GRUB's files into /boot; return the kernel's version."""
    version = next((tree / "boot").glob("vmlinuz-*")).name.removeprefix("vmlinuz-")
    place = tree / "boot/grub/i386-pc"
    place.mkdir(parents=True, exist_ok=True)
    for kind in ("*.mod", "*.lst"):
        for file in Path("/usr/lib/grub/i386-pc").glob(kind):
            shutil.copy(file, place)
    _write(tree, "boot/grub/grub.cfg", _GRUB_CFG.format(uuid=_UUID, version=version))
    return version


def _core(shop: Path, version: str) -> bytes:
    """Make GRUB's core, which finds the root by its UUID."""
    early = shop / "early.cfg"
    early.write_text(f"search.fs_uuid {_UUID} root\nset prefix=($root)/boot/grub\n")
    core = shop / f"core-{version}.img"
    _run(["grub-mkimage", "-O", "i386-pc", "-c", early, "-p", "/boot/grub", "-o", core,
          "biosdisk", "part_gpt", "ext2", "search_fs_uuid", "normal"])  # fmt: skip
    return core.read_bytes()


def _root_size(disk: Path) -> int:
    described = json.loads(_run(["sfdisk", "-J", disk]))
    parts = described["partitiontable"]["partitions"]
    return next(int(part["size"]) for part in parts if part["start"] == _ROOT) * _SECTOR


def _in(tree: Path, *words: str) -> None:
    """Run a command in the image, with the file systems that packages' scripts look into."""
    _run([*_APART, "sh", "-ec", f'{_MOUNTS}; exec chroot "$0" "$@"', tree, *words])


def _write(tree: Path, name: str, text: str, mode: int = 0o644) -> None:
    path = tree / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.write_text(text)
    path.chmod(mode)


def _mirror() -> str:
    """Return where this machine's apt has Debian from."""
    listed = _run(["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"])
    found = [line for line in listed.splitlines() if "security" not in line]
    if not found:
        raise RuntimeError("apt has no source of packages; run apt-get update")
    return found[0]


def _run(argv: list[object], text: str | None = None) -> str:
    """Run a command to its end; what it says is shown only if it fails."""
    environment = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive",
                   "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}  # fmt: skip
    done = subprocess.run(
        [str(word) for word in argv], input=text or "", text=True, capture_output=True,
        env=environment, check=False,
    )  # fmt: skip
    if done.returncode:
        said = (done.stdout + done.stderr)[-2000:]
        raise RuntimeError(f"{argv[0]} failed with {done.returncode}: {said}")
    return done.stdout
