"""The real `nbdctl` command."""

import subprocess
import sys

__all__ = ["nbdctl_argv", "run_nbdctl"]


def nbdctl_argv(*words: object) -> list[str]:
    """Build the command line, run by this very interpreter."""
    return [sys.executable, "-m", "nbdserve.nbdctl", *map(str, words)]


def run_nbdctl(*words: object, **options) -> subprocess.CompletedProcess[str]:
    """Run `nbdctl` to its end."""
    return subprocess.run(
        nbdctl_argv(*words), capture_output=True, text=True, check=False, timeout=120,
        stdin=subprocess.DEVNULL, **options,
    )  # fmt: skip
