"""HTTP range requests, the pure half: headers in, values out, and what may be believed.

An entity is pinned when it is opened; every later answer is held against it, so that the bytes of
two versions of a file never mix. Source: RFC 9110, sections 8.8 (validators), 10.2.3 (Retry-After),
13.1.5 (If-Range), 14 (range requests).
"""

import email.utils
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

__all__ = [
    "ContentRange",
    "Entity",
    "backoff_ceiling",
    "parse_content_range",
    "parse_retry_after",
    "transient_status",
]

_NUMBER = r"[0-9]{1,19}"  # more digits are no size; thousands would be int()'s own error
_CONTENT_RANGE = re.compile(
    rf"bytes\s+(?:({_NUMBER})-({_NUMBER})|\*)/({_NUMBER}|\*)", re.IGNORECASE
)
_SECONDS = re.compile(_NUMBER)
_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_FIRST_WAIT = 0.1  # seconds; a mirror that hiccups has recovered by then
_LONGEST_WAIT = 10.0


class ContentRange(NamedTuple):
    """A Content-Range: `start` and `end` (inclusive) are None for an unsatisfied range."""

    start: int | None
    end: int | None
    total: int | None


@dataclass(frozen=True, slots=True)
class Entity:
    """What tells one version of a file from another.

    Attributes:
        size: bytes.
        etag: as sent, quotes and `W/` included; None if there is none.
        last_modified: as sent; None if there is none.
    """

    size: int
    etag: str | None
    last_modified: str | None

    @classmethod
    def of(cls, headers: Mapping[str, str], size: int) -> "Entity":
        """Take the validators out of an answer's headers."""
        return cls(size, headers.get("ETag"), headers.get("Last-Modified"))

    @property
    def if_range(self) -> str | None:
        """The value of If-Range: a strong ETag, else the date; None where neither will do."""
        if self.etag is not None and not self.etag.startswith("W/"):
            return self.etag
        return self.last_modified

    def difference(self, other: "Entity") -> str | None:
        """Say how another answer is of another version; None if it is of this one.

        An answer need not repeat each validator (RFC 9110, section 15.3.7), but one that confirms
        none, of a version that has some, could be of any version.
        """
        if self.etag and other.etag and self.etag != other.etag:
            return f"ETag {self.etag} -> {other.etag}"
        if self.last_modified and other.last_modified and self.last_modified != other.last_modified:
            return f"Last-Modified {self.last_modified} -> {other.last_modified}"
        if self.size != other.size:
            return f"size {self.size} -> {other.size}"
        if (self.etag and other.etag) or (self.last_modified and other.last_modified):
            return None
        pinned = f"ETag {self.etag}" if self.etag else f"Last-Modified {self.last_modified}"
        return f"{pinned} -> none" if self.etag or self.last_modified else None


def parse_content_range(value: str | None) -> ContentRange | None:
    """Parse a Content-Range header; None if it is absent or makes no sense."""
    match = _CONTENT_RANGE.fullmatch((value or "").strip())
    if match is None:
        return None
    start, end, total = match.groups()
    found = ContentRange(
        int(start) if start else None,
        int(end) if end else None,
        None if total == "*" else int(total),
    )
    if found.start is None or found.end is None:
        return found
    sound = found.start <= found.end and (found.total is None or found.end < found.total)
    return found if sound else None


def parse_retry_after(value: str | None, now: float | None = None) -> float | None:
    """Parse Retry-After, seconds or a date, into seconds from now; None if there is none.

    Args:
        value: the header.
        now: seconds since the epoch; the present by default.
    """
    if not value:
        return None
    if _SECONDS.fullmatch(value.strip()):
        return float(value)
    try:
        then = email.utils.parsedate_to_datetime(value)
    except (ValueError, OverflowError):  # a zone of days, say
        return None
    return max(0.0, then.timestamp() - (time.time() if now is None else now))


def transient_status(status: int) -> bool:
    """Whether the same request may succeed later."""
    return status in _TRANSIENT


def backoff_ceiling(attempt: int) -> float:
    """Return the longest wait, in seconds, before attempt number `attempt` (from 1).

    The wait itself is drawn evenly from 0 to here ("full jitter"), so that many clients of a
    mirror that recovers do not come back all at once.
    """
    return min(_LONGEST_WAIT, _FIRST_WAIT * 2.0 ** min(attempt - 1, 16))
