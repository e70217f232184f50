"""The `nbdctl` command: what an image is, make it better, and what a running daemon does.

As systemctl is systemd's: the daemon is `nbdserve`, this is its tool. One module a command; each
has `add_parser` and `run`. Every answer is text for a person or, with --json, one JSON document.
"""

from nbdserve.nbdctl.command import main, parser

__all__ = ["main", "parser"]
