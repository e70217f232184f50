"""NBD URIs: how the server tells clients where an export is.

Source: doc/uri.md of the NBD project.
"""

from pathlib import Path
from urllib.parse import quote

__all__ = ["tcp_uri", "unix_uri"]


def tcp_uri(host: str, port: int, export: str) -> str:
    """Make the URI of an export on a TCP address; IPv6 addresses are put in brackets."""
    where = f"[{host}]" if ":" in host else host
    name = f"/{quote(export, safe='')}" if export else ""
    return f"nbd://{where}:{port}{name}"


def unix_uri(path: Path | str, export: str) -> str:
    """Make the URI of an export on a Unix socket."""
    return f"nbd+unix:///{quote(export, safe='')}?socket={quote(str(path), safe='/')}"
