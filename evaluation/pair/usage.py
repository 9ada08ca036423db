"""How long the GPUs of a submission were in use, and for what: seconds over all pairs. Pure, from the timelines.

Source: docs/operations.md, "GPU time and cost".
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from typing import Self

from evaluation.moments import parse_moment
from evaluation.pair.timeline import Activity, AttemptTimeline, Span


@dataclass(frozen=True)
class Seconds:
    """Of all pairs together. `waiting`, for machine and images, is before a pair's first start: no GPU time."""

    waiting: float = 0.0
    starting: float = 0.0  # of each pair's first start in an attempt, and of those for the next routes that it pulls
    driving: float = 0.0
    retries_agent: float = 0.0  # drives that broke off, pauses and further starts, charged to the agent
    retries_infrastructure: float = 0.0  # the same, charged to the installation

    @property
    def gpu(self) -> float:
        """From each pair's first start to its end."""
        return self.starting + self.driving + self.retries_agent + self.retries_infrastructure

    def __add__(self, other: "Seconds") -> "Seconds":
        return Seconds(*(getattr(self, name) + getattr(other, name) for name in NAMES))


@dataclass(frozen=True)
class Price:
    """Of a GPU hour on one cluster."""

    gpu_hour: float
    currency: str

    def of(self, seconds: Seconds) -> float:
        return seconds.gpu / 3600 * self.gpu_hour


NAMES = tuple(each.name for each in fields(Seconds))


@dataclass(frozen=True)
class AttemptUsage:
    """What one attempt used. `began` is its claim, UTC."""

    attempt: int
    began: datetime
    seconds: Seconds

    def described(self) -> dict[str, object]:
        """As the ledger keeps it."""
        used = {name: round(getattr(self.seconds, name), 3) for name in NAMES}
        return {"began": self.began.isoformat(), **used}

    @classmethod
    def read(cls, attempt: str, kept: Mapping[str, object]) -> Self:
        """What `described` made; raises ValueError for what it did not."""
        values = {name: kept.get(name, 0.0) for name in NAMES}
        if not all(isinstance(value, int | float) for value in values.values()):
            raise ValueError("seconds that are no numbers")
        seconds = Seconds(**{name: float(str(value)) for name, value in values.items()})
        return cls(int(attempt), parse_moment(kept["began"]), seconds)


def usage_of(timeline: AttemptTimeline) -> AttemptUsage:
    """The seconds of one attempt."""
    used = total(_of(span) for pair in timeline.pairs for span in pair.spans)
    return AttemptUsage(timeline.attempt, timeline.begin, used)


def total(parts: Iterable[Seconds]) -> Seconds:
    return sum(parts, start=Seconds())


def read_usage(kept: object) -> tuple[AttemptUsage, ...]:
    """The ledger's attribute, by attempt; what cannot be read is left out."""
    return tuple(sorted(_read(kept), key=lambda usage: usage.attempt))


def _read(kept: object) -> Iterator[AttemptUsage]:
    for attempt, values in kept.items() if isinstance(kept, Mapping) else ():
        try:
            yield AttemptUsage.read(str(attempt), values)
        except (ValueError, KeyError, TypeError, AttributeError):
            continue


def _of(span: Span) -> Seconds:
    if span.activity is Activity.WAITING:
        return Seconds(waiting=span.seconds)
    if span.activity is Activity.DRIVING:
        return Seconds(driving=span.seconds)
    if span.cause is None:
        return Seconds(starting=span.seconds)
    if span.cause.charged_to_agent:
        return Seconds(retries_agent=span.seconds)
    return Seconds(retries_infrastructure=span.seconds)


def used_in(usages: Sequence[AttemptUsage], begin: datetime, end: datetime) -> Seconds:
    """Of the attempts that began from `begin` on and before `end`."""
    return total(usage.seconds for usage in usages if begin <= usage.began < end)
