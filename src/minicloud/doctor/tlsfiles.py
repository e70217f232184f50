"""What a node has for its guests to speak TLS with: how to look, and to read what was seen.

qemu reads them where libvirt's qemu.conf says. Certificates are public and are read here; of the
private key it is only asked whether it is there, and for whom.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

__all__ = [
    "AUTHORITY",
    "CERTIFICATE",
    "KEY",
    "Certificates",
    "certificates_command",
    "parse_certificates",
]

AUTHORITY, CERTIFICATE, KEY = "ca-cert.pem", "client-cert.pem", "client-key.pem"
_SCRIPT: Final = f"""
LC_ALL=C; export LC_ALL
conf=/etc/libvirt/qemu.conf
of() {{ sed -n "s/^ *$1 *= *\\"\\([^\\"]*\\)\\".*/\\1/p" $conf 2>/dev/null | tail -n 1; }}
dir=$(of nbd_tls_x509_cert_dir)
[ -n "$dir" ] || dir=$(of default_tls_x509_cert_dir)
[ -n "$dir" ] || dir=/etc/pki/qemu
echo "folder $dir"
for one in {AUTHORITY} {CERTIFICATE}; do
  [ -e "$dir/$one" ] && echo "there $one" && sed "s/^/pem $one /" "$dir/$one" 2>/dev/null
done
[ -e "$dir/{KEY}" ] && echo "key $(stat -L -c '%a %U' "$dir/{KEY}")"
:
"""


@dataclass(frozen=True, slots=True)
class Certificates:
    """What a node has for its guests' qemu.

    Attributes:
        folder: where qemu looks.
        files: the text of each file that is there; "" where the shell may not read it.
        key: permission bits and owner of the private key, if it is there.
    """

    folder: str = ""
    files: Mapping[str, str] = field(default_factory=dict)
    key: tuple[int, str] | None = None


def certificates_command() -> list[str]:
    """Return the command that looks."""
    return ["sh", "-c", _SCRIPT]


def parse_certificates(text: str) -> Certificates:
    """Read what it printed; other lines are passed over."""
    folder, key = "", None
    files: dict[str, str] = {}
    for line in text.splitlines():
        kind, _, rest = line.partition(" ")
        if kind == "folder":
            folder = rest
        elif kind == "there":
            files[rest] = ""
        elif kind == "pem":
            name, _, content = rest.partition(" ")
            files[name] = files.get(name, "") + content + "\n"
        elif kind == "key":
            mode, _, owner = rest.partition(" ")
            if mode.isdecimal():
                key = int(mode, 8), owner
    return Certificates(folder, files, key)
