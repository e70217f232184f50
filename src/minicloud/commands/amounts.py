"""Memory and time as people read them."""

from datetime import datetime, timedelta
from typing import Final

__all__ = ["age_text", "memory_text"]

_GIB: Final = 1 << 30
_MIB: Final = 1 << 20


def memory_text(size: int) -> str:
    """Write bytes as mclu did: `15.2G`; less than a GiB in `M`."""
    if abs(size) >= _GIB or size == 0:
        return f"{size / _GIB:.1f}G"
    return f"{size / _MIB:.0f}M"


def age_text(since: datetime, now: datetime) -> str:
    """Write how long ago something was, in the one unit that matters: `40s`, `5m`, `3h`, `12d`."""
    age = max(timedelta(), now - since)
    if age.days:
        return f"{age.days}d"
    minutes, seconds = divmod(age.seconds, 60)
    if not minutes:
        return f"{seconds}s"
    return f"{minutes}m" if minutes < 60 else f"{minutes // 60}h"
