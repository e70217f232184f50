"""Debian's own tools, found before anything else that bears their names; and what files hold."""

import hashlib
import os
from pathlib import Path

__all__ = ["ENVIRONMENT", "digest"]

# nbdsh runs the first python3 of the PATH, and only Debian's has the libnbd module
ENVIRONMENT = {**os.environ, "PATH": f"/usr/sbin:/usr/bin:/sbin:/bin:{os.environ.get('PATH', '')}"}


def digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
