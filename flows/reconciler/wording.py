"""Times and durations as people read them."""

from datetime import datetime, timedelta


def at(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC" if moment else "an unknown time"


def lasting(span: timedelta) -> str:
    """`3 h`, or minutes where it is less than one hour."""
    minutes = span.total_seconds() / 60
    return f"{minutes / 60:g} h" if minutes >= 60 else f"{minutes:g} min"
