"""The files of a node, in a folder that stays over power cuts: configuration, keys, state, logs.

Of this machine's own /etc only the users are copied: a node is the same everywhere.
"""

import os
import subprocess
import uuid
from pathlib import Path

__all__ = ["NodeFiles", "make_key"]

# By number: who guests run as, not whoever has these names here. libvirtd still looks up the names
# it was built with (Debian's), and ends if they are not there, as without libvirt-daemon-system.
_QEMU_ID = 64055
_QEMU_USER = f"+{_QEMU_ID}"
_NAMES = {
    "passwd": ["libvirt-qemu:x:64055:64055::/var/lib/libvirt:/usr/sbin/nologin"],
    "group": ["libvirt-qemu:x:64055:", "kvm:x:64056:"],
}

_LIBVIRTD = """
host_uuid = "{uuid}"
unix_sock_rw_perms = "0700"
auth_unix_rw = "none"
max_client_requests = 32
log_outputs = "2:file:/var/log/libvirt/libvirtd.log"
"""

_QEMU = """
stdio_handler = "logd"
security_driver = "none"
remember_owner = 0
cgroup_controllers = [ ]
user = "{user}"
group = "{user}"
migration_host = "{address}"
default_tls_x509_cert_dir = "/etc/libvirt/pki"
"""

_SSHD = """
Port 22
HostKey /etc/ssh/ssh_host_ed25519_key
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
AuthorizedKeysFile /etc/ssh/authorized_keys
MaxStartups 200
MaxSessions 200
UseDNS no
PidFile none
LogLevel VERBOSE
Subsystem sftp internal-sftp
"""


class NodeFiles:
    """The folder of one node."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ssh = folder / "etc-ssh"
        self.libvirt = folder / "etc-libvirt"
        self.pki = self.libvirt / "pki"  # certificates of its guests' qemu; there are none
        self.log = folder / "log"
        self.state = folder / "init"  # what its pid 1 writes of itself
        self.host_key = self.ssh / "ssh_host_ed25519_key"
        self._first_key = self.ssh / "first_key"

    def create(self, *, name: str, address: str, public_key: Path, hosts: str) -> None:
        """Write them, for a new node."""
        for folder in ("etc-ssh", "etc-libvirt", "lib", "log/qemu", "cache/qemu/capabilities"):
            (self.folder / folder).mkdir(parents=True)
        self.pki.mkdir()
        (self.folder / "hosts").write_text(hosts)
        for file, lines in _NAMES.items():
            (self.folder / file).write_text(_completed(Path("/etc", file).read_text(), lines))
        (self.libvirt / "libvirtd.conf").write_text(_LIBVIRTD.format(uuid=uuid.uuid4()))
        (self.libvirt / "qemu.conf").write_text(_QEMU.format(user=_QEMU_USER, address=address))
        (self.libvirt / "virtlogd.conf").touch()
        (self.ssh / "sshd_config").write_text(_SSHD)
        (self.ssh / "authorized_keys").write_bytes(public_key.read_bytes())
        make_key(self.host_key, name)

    def binds(self, capabilities: Path) -> dict[str, str]:
        """Say what the node sees where; `capabilities` is libvirt's cache of what qemu can do.

        That cache may be shared: its files are named and checked by what they are about, and
        replaced as a whole. Asking qemu takes a node a second.
        """
        folder = self.folder
        return {
            "/etc/libvirt": str(self.libvirt),
            "/etc/ssh": str(self.ssh),
            **{f"/etc/{file}": str(folder / file) for file in ("hosts", *_NAMES)},
            "/var/lib/libvirt": str(folder / "lib"),
            "/var/log/libvirt": str(self.log),
            "/var/cache/libvirt": str(folder / "cache"),
            "/var/cache/libvirt/qemu/capabilities": str(capabilities),
        }

    def public_host_key(self) -> str:
        """Return it as known_hosts has it: type and key."""
        return " ".join(self.host_key.with_suffix(".pub").read_text().split()[:2])

    def change_host_key(self) -> None:
        """Make another one, as a machine that was installed anew has; the first one is kept."""
        if not self._first_key.exists():
            self.host_key.rename(self._first_key)
            self.host_key.with_suffix(".pub").rename(self._first_key.with_suffix(".pub"))
        make_key(self.host_key, "changed")

    def restore_host_key(self) -> None:
        """Put the first one back."""
        self._first_key.rename(self.host_key)
        self._first_key.with_suffix(".pub").rename(self.host_key.with_suffix(".pub"))

    def let_guests_read_keys(self) -> None:
        """Give the private keys among the certificates to the user that guests run as."""
        for path in self.pki.glob("*-key.pem"):
            os.chown(path, _QEMU_ID, _QEMU_ID)

    def defined(self) -> list[str]:
        """Name the persistent domains."""
        return [path.stem for path in (self.libvirt / "qemu").glob("*.xml")]

    def forget_domains(self) -> None:
        """Remove all definitions, while the node is off."""
        for path in (self.libvirt / "qemu").glob("**/*.xml"):
            path.unlink()


def make_key(path: Path, comment: str) -> None:
    """Make a key pair without a passphrase, in place of any other."""
    path.unlink(missing_ok=True)
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", path],
        check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
    )  # fmt: skip


def _completed(text: str, lines: list[str]) -> str:
    """Add the lines whose names are not in `text`, a file as passwd(5)."""
    names = {line.partition(":")[0] for line in text.splitlines()}
    return text + "".join(f"{line}\n" for line in lines if line.partition(":")[0] not in names)
