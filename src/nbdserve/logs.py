"""Where log lines go, and in which form: for a person, for the journal, or for a machine.

Under systemd each line carries its priority as `<N>` (sd-daemon(3)), so that `journalctl -p` works.
"""

import json
import logging
import os
import sys
import time
from typing import Literal

__all__ = ["LogFormat", "configure"]

LogFormat = Literal["text", "json"]

_PRIORITY = {
    logging.CRITICAL: 2,
    logging.ERROR: 3,
    logging.WARNING: 4,
    logging.INFO: 6,
    logging.DEBUG: 7,
}


class _Text(logging.Formatter):
    """`nbdserve: warning: message`, or `<4>message` for the journal."""

    def __init__(self, *, journal: bool) -> None:
        super().__init__()
        self._journal = journal

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        if self._journal:
            prefix = f"<{_PRIORITY.get(record.levelno, 6)}>"
            return "\n".join(prefix + line for line in text.splitlines())
        return f"nbdserve: {record.levelname.lower()}: {text}"


class _Json(logging.Formatter):
    """One JSON object a line: time (RFC 3339), level, logger, message."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S") + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, ensure_ascii=False)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:  # noqa: N802
        return time.strftime(datefmt or "%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))


def configure(*, verbose: bool, form: LogFormat, quiet: bool = False) -> None:
    """Send the project's log to stderr; `verbose` adds DEBUG, `quiet` leaves INFO out."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if form == "json" else _Text(journal=_is_journal()))
    root = logging.getLogger("nbdserve")
    root.handlers[:] = [handler]
    usual = logging.WARNING if quiet else logging.INFO
    root.setLevel(logging.DEBUG if verbose else usual)
    root.propagate = False


def _is_journal() -> bool:
    """Whether stderr goes to the journal (systemd.exec(5), JOURNAL_STREAM)."""
    try:
        info = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{info.st_dev}:{info.st_ino}"
