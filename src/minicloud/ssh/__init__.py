"""One ssh connection a node: reaching it, knowing it, logging in, and what goes through it.

asyncssh is imported here first, and quickly: it looks for liboqs and nettle by `ctypes.util`, which
runs ldconfig, gcc and ld one after the other. What it would find are algorithms no sshd insists on.
That search was a fifth of the import's processor time, and half of its wall-clock time.
"""

import ctypes.util

_find_library = ctypes.util.find_library
ctypes.util.find_library = lambda name: None  # noqa: ARG005 -- as its own is called
try:
    import asyncssh  # noqa: F401 -- for its effect
finally:
    ctypes.util.find_library = _find_library
