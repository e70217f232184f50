"""The nbdserve command, as the installed script and as `python -m nbdserve`.

A Ctrl-C while modules are still imported ends it as quietly as any program, not by a traceback.
"""

import signal
from typing import NoReturn

__all__ = ["main"]


def main() -> NoReturn:
    """Run the command and exit with its status."""
    usual = signal.getsignal(signal.SIGINT)
    if usual is signal.default_int_handler:  # else it is ignored: started in the background
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from nbdserve.cli import main as command  # noqa: PLC0415 -- see above

    signal.signal(signal.SIGINT, usual)
    command()


if __name__ == "__main__":
    main()
