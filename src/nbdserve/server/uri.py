"""NBD URIs: how the server tells clients where an export is.

Source: doc/uri.md of the NBD project.
"""

from pathlib import Path
from urllib.parse import quote

__all__ = ["tcp_uri", "unix_uri"]


def tcp_uri(host: str, port: int, export: str, *, tls: bool = False) -> str:
    """Make the URI of an export on a TCP address; IPv6 addresses are put in brackets."""
    where = f"[{host}]" if ":" in host else host
    name = f"/{quote(export, safe='')}" if export else ""
    return f"nbd{'s' if tls else ''}://{where}:{port}{name}"


def unix_uri(path: Path | str, export: str, *, tls: bool = False) -> str:
    """Make the URI of an export on a Unix socket."""
    scheme = "nbds+unix" if tls else "nbd+unix"
    return f"{scheme}:///{quote(export, safe='')}?socket={quote(str(path), safe='/')}"
