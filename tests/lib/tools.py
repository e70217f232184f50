"""Debian's own tools, found before anything else that bears their names."""

import os

__all__ = ["ENVIRONMENT"]

# nbdsh runs the first python3 of the PATH, and only Debian's has the libnbd module
ENVIRONMENT = {**os.environ, "PATH": f"/usr/sbin:/usr/bin:/sbin:/bin:{os.environ.get('PATH', '')}"}
