"""Times that others have written: EvalAI, and whoever can write to the ledger."""

from datetime import UTC, datetime

_FIRST, _LAST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)


def parse_moment(value: object) -> datetime:
    """The ISO 8601 time (without a zone: UTC) in UTC; raises ValueError for what is none, or not of these centuries.

    At the calendar's ends the difference to another time does not exist, and every comparison would break.
    """
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("not an ISO time") from None
    if not _FIRST <= moment < _LAST:
        raise ValueError("not a time of these centuries")
    return moment
