"""Time as people read it."""

from datetime import datetime, timedelta

__all__ = ["age_text"]


def age_text(since: datetime, now: datetime) -> str:
    """Write how long ago something was, in the one unit that matters: `40s`, `5m`, `3h`, `12d`."""
    age = max(timedelta(), now - since)
    if age.days:
        return f"{age.days}d"
    minutes, seconds = divmod(age.seconds, 60)
    if not minutes:
        return f"{seconds}s"
    return f"{minutes}m" if minutes < 60 else f"{minutes // 60}h"
