"""Where the time of each pair went: waiting, starting, driving, retrying. Pure, from what the supervisors saw.

The moments are the pods' own clocks, but for the claim's, which is that of the flow run's machine.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import pairwise

from evaluation.pair.observations import Observations, SeenRecord, SeenStart

MOST_SPANS = 150  # drawn of one pair in one attempt; the sums have all of them


class Activity(StrEnum):
    WAITING = "waiting"  # from the claim to the pair's first start: plan, machine, images
    STARTING = "starting"  # the simulator warms up, at first or for the next routes that the pair pulls
    DRIVING = "driving"  # routes that got their record
    LOST = "driving in vain"  # a drive that ended without a record
    RETRYING = "retrying"  # between two starts


@dataclass(frozen=True)
class Span:
    """`cause` is the start whose end it comes from, of what a pair does again; None of its first start."""

    activity: Activity
    begin: datetime
    end: datetime
    cause: SeenStart | None = None

    @property
    def seconds(self) -> float:
        return max(0.0, (self.end - self.begin).total_seconds())


@dataclass(frozen=True)
class PairTimeline:
    """One pair in one attempt. `starts` are all of its starts, the first included."""

    pair: int
    spans: tuple[Span, ...]
    starts: tuple[SeenStart, ...]

    def seconds(self, activity: Activity) -> float:
        return sum(span.seconds for span in self.spans if span.activity is activity)

    @property
    def drawn(self) -> Sequence[Span]:
        """The spans that are drawn: the longest of too many, in their order."""
        if len(self.spans) <= MOST_SPANS:
            return self.spans
        longest = set(sorted(self.spans, key=lambda span: -span.seconds)[:MOST_SPANS])
        return [span for span in self.spans if span in longest]


@dataclass(frozen=True)
class AttemptTimeline:
    """All pairs in one attempt, on one axis."""

    attempt: int
    begin: datetime
    end: datetime
    pairs: tuple[PairTimeline, ...]

    @property
    def seconds(self) -> float:
        return max(1.0, (self.end - self.begin).total_seconds())


def timelines(
    seen: Mapping[int, Observations | None], attempt: int, claimed_at: datetime | None
) -> list[AttemptTimeline]:
    """All attempts, oldest first, of what each pair's supervisor saw; `claimed_at` is when `attempt` began."""
    by_attempt: dict[int, list[tuple[int, list[SeenStart], Observations]]] = defaultdict(list)
    for pair, observations in seen.items():
        starts: dict[int, list[SeenStart]] = defaultdict(list)
        for start in observations.starts if observations else ():
            starts[start.attempt].append(start)
        for number, each in starts.items():
            assert observations is not None  # noqa: S101 - it has the starts
            by_attempt[number].append((pair, each, observations))
    return [
        _attempt(number, by_attempt[number], claimed_at if number == attempt else None) for number in sorted(by_attempt)
    ]


def _attempt(
    number: int, seen: Sequence[tuple[int, list[SeenStart], Observations]], claimed_at: datetime | None
) -> AttemptTimeline:
    first = min(starts[0].began_at for _, starts, _ in seen)
    begin = min(claimed_at, first) if claimed_at else first
    pairs = tuple(
        PairTimeline(index, tuple(_spans(begin, starts, observations)), tuple(starts))
        for index, starts, observations in seen
    )
    end = max((span.end for pair in pairs for span in pair.spans), default=begin)
    return AttemptTimeline(number, begin, end, pairs)


def _spans(begin: datetime, starts: Sequence[SeenStart], seen: Observations) -> Iterator[Span]:
    records: dict[tuple[int, int], list[datetime]] = defaultdict(list)
    for event in seen.events:
        if isinstance(event, SeenRecord):
            records[event.attempt, event.start].append(event.at)
    yield from _span(Activity.WAITING, begin, starts[0].began_at)
    before: SeenStart | None = None
    for start, following in pairwise([*starts, None]):
        if start is None:
            continue
        moments = records[start.attempt, start.number]
        end = start.ended_at or max([start.ready_at or start.began_at, *moments])
        yield from _of_start(start, end, moments, before)
        if following is not None:
            again = None if start.drove_all else start  # else it is a start for the next routes
            yield from _span(Activity.RETRYING if again else Activity.STARTING, end, following.began_at, again)
        before = None if start.drove_all else start


def _of_start(start: SeenStart, end: datetime, records: Sequence[datetime], before: SeenStart | None) -> Iterator[Span]:
    ready = start.ready_at or end
    yield from _span(Activity.STARTING, start.began_at, ready, before)
    useful = max(records, default=ready) if start.interrupted else end
    yield from _span(Activity.DRIVING, ready, min(useful, end))
    yield from _span(Activity.LOST, max(useful, ready), end, start)


def _span(activity: Activity, begin: datetime, end: datetime, cause: SeenStart | None = None) -> Iterator[Span]:
    if end > begin:
        yield Span(activity, begin, end, cause)
