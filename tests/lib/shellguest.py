"""A guest without a disk to talk to: a shell on its serial console, sshd, a power button.

Debian's cloud kernel, busybox, and this machine's own sshd with the libraries it needs, all in an
initramfs. It obeys its command line: `guest.ip=ADDRESS/BITS` for its card, `guest.deaf` to ignore
the power button, `guest.key=TYPE:BASE64` of the one who may log in as root, `guest.agent` to have
QEMU's guest agent answer on its channel, `guest.dhcp` to ask for an address.
"""

import gzip
import re
import shutil
import subprocess
from pathlib import Path

from guestkernel import _modules, unpacked_kernel, vmlinuz

__all__ = ["READY", "shell_guest"]

READY = "GUEST-READY"

_INIT = f"""#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin HOME=/home
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
mkdir -p /dev/pts /run/sshd; mount -t devpts devpts /dev/pts
while read module; do insmod /lib/modules/$module; done < /lib/modules/order
given() {{ tr ' ' '\\n' < /proc/cmdline | sed -n "s/^guest\\.$1=//p"; }}
pressed() {{ echo GUEST-BUTTON; poweroff -f; }}
ip link set lo up
if [ -n "$(given ip)" ]; then ip link set eth0 up; ip addr add "$(given ip)" dev eth0; fi
grep -q guest.dhcp /proc/cmdline && ip link set eth0 up && udhcpc -q -n -i eth0 -s /bin/leased
if [ -n "$(given key)" ]; then
  given key | tr ':' ' ' > /home/.ssh/authorized_keys
  ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/key
  /usr/sbin/sshd -f /etc/ssh/sshd_config
fi
if grep -q guest.agent /proc/cmdline; then
  for port in /sys/class/virtio-ports/*; do
    grep -q guest_agent $port/name || continue
    qemu-ga -d -m virtio-serial -p /dev/${{port##*/}} -t /run -f /run/ga
  done
fi
for button in /dev/input/event*; do
  grep -q guest.deaf /proc/cmdline || (head -c 24 $button > /dev/null && pressed) &
done
echo {READY}
while :; do setsid cttyhack sh; done
"""

_LEASED = """#!/bin/sh
[ "$1" = bound ] && ip addr add "$ip/$mask" dev "$interface"
"""

_SSHD = """HostKey /etc/ssh/key
UsePAM no
StrictModes no
PasswordAuthentication no
PermitRootLogin yes
AuthorizedKeysFile /home/.ssh/authorized_keys
"""


def shell_guest(folder: Path, cache: Path) -> tuple[Path, Path]:
    """Make the guest.

    Args:
        folder: where to; every user may read what is put there.
        cache: where the unpacked kernel package is kept between runs.

    Returns:
        Paths of its kernel and its initramfs.
    """
    kernel = unpacked_kernel(cache)
    tree = folder / "shellguest.tree"
    shutil.rmtree(tree, ignore_errors=True)
    for name in (
        "bin", "proc", "sys", "dev", "run", "lib/modules", "home/.ssh", "etc/ssh", "var/empty"
    ):  # fmt: skip
        (tree / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", tree / "bin/busybox")
    order = _modules(kernel)
    for module in order:
        shutil.copy(module, tree / "lib/modules" / module.name)
    (tree / "lib/modules/order").write_text("".join(f"{m.name}\n" for m in order))
    (tree / "init").write_text(_INIT)
    (tree / "bin/leased").write_text(_LEASED)
    for name in ("init", "bin/leased"):
        (tree / name).chmod(0o755)
    _sshd(tree)
    initrd = folder / "shellguest.initrd"
    initrd.write_bytes(_archive(tree))
    shutil.rmtree(tree)
    return Path(shutil.copy(vmlinuz(kernel), folder / "vmlinuz")), initrd


def _sshd(tree: Path) -> None:
    """Copy sshd, what makes its host key, and the guest agent, with all they load."""
    for name in ("/usr/sbin/sshd", "/usr/bin/ssh-keygen", "/usr/sbin/qemu-ga"):
        program = Path(name)
        loaded = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
        for path in {program, *map(Path, re.findall(r"(/\S+)", loaded))}:
            target = tree / str(path)[1:]
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    for name in ("usr/bin/ssh-keygen", "usr/sbin/qemu-ga"):
        (tree / name).rename(tree / "bin" / Path(name).name)
    (tree / "etc/ssh/sshd_config").write_text(_SSHD)
    (tree / "etc/passwd").write_text(
        "root::0:0:root:/home:/bin/sh\nsshd:x:100:100::/run/sshd:/bin/false\n"
    )
    (tree / "etc/group").write_text("root:x:0:\nsshd:x:100:\n")


def _archive(tree: Path) -> bytes:
    names = "\n".join(str(path.relative_to(tree)) for path in sorted(tree.rglob("*")))
    made = subprocess.run(
        ["cpio", "-o", "-H", "newc", "--quiet", "-R", "0:0"],
        cwd=tree, input=names.encode(), capture_output=True, check=True,
    ).stdout  # fmt: skip
    return gzip.compress(made, 1)
