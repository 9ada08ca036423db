"""Times and durations as people read them."""

from datetime import datetime, timedelta


def at(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC" if moment else "an unknown time"


def lasting(span: timedelta) -> str:
    """`3 h`, `2.5 h`, `8 min` or `45 s`: rounded to what a person needs."""
    seconds = span.total_seconds()
    if seconds >= 3600:
        return f"{round(seconds / 3600, 1):g} h"
    return f"{round(seconds / 60)} min" if seconds >= 60 else f"{round(seconds)} s"
