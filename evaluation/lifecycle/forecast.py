"""When a submission is expected to start and to end, from what earlier ones took, and how good that was. Pure.

Times are UTC; durations are wall time in seconds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from statistics import fmean, median

from evaluation.lifecycle.shard_progress import ShardProgress, routes_done
from evaluation.moments import parse_moment
from evaluation.pair.timeline import Activity, AttemptTimeline
from evaluation.queue_place import QueuePlace
from evaluation.shards import ENDED, ShardState, ShardStatuses

_NO_NODE = frozenset({ShardState.WAITING, ShardState.PULLING})
_LEAST_SECONDS = 1.0
_TIMES = ("start", "end", "made_at", "first_start", "first_end")


@dataclass(frozen=True)
class Past:
    """What a finished submission took, as its supervisors saw it."""

    submission: int
    waited_seconds: float  # from its claim to its first pair's first start
    pair_seconds: tuple[float, ...]  # of each pair, from its first start to its end
    off: float | None = None  # error of the first estimated end, by the time from estimate to end; None without one


def past_of(submission: int, timeline: AttemptTimeline, first: "Forecast | None") -> Past | None:
    """The submission as later ones know it; None where no pair has started."""
    driven = [
        sum(span.seconds for span in pair.spans if span.activity is not Activity.WAITING) for pair in timeline.pairs
    ]
    started = _started(timeline)
    if started is None:
        return None
    off = first.off(timeline.end) if first else None
    return Past(submission, (started - timeline.begin).total_seconds(), tuple(driven), off)


def median_off(past: Sequence[Past]) -> tuple[float, int] | None:
    """By how much of its time an estimated end was off, in the median, and of how many; None without any."""
    offs = [each.off for each in past if each.off is not None]
    return (median(offs), len(offs)) if offs else None


@dataclass(frozen=True)
class Forecast:
    """Of one attempt: where it stands, when it is expected to start and to end, and what came of that."""

    attempt: int
    queue: QueuePlace | None = None  # of its next shard that waits
    start: datetime | None = None  # when its first pair starts; the true time once it has
    end: datetime | None = None  # when its last pair ends; the true time once it has
    made_at: datetime | None = None  # of the first estimate, which is what counts when it is judged
    first_start: datetime | None = None
    first_end: datetime | None = None
    started: bool = False
    ended: bool = False

    def described(self) -> dict[str, object]:
        """As the ledger keeps it; what is not known is left out."""
        times = {name: getattr(self, name) for name in _TIMES}
        kept = {name: moment.isoformat(timespec="seconds") for name, moment in times.items() if moment}
        queue = {"queue": vars(self.queue)} if self.queue else {}
        return {"attempt": self.attempt, **kept, **queue, "started": self.started, "ended": self.ended}

    def shown(self) -> dict[str, object]:
        """As the command line's JSON has it; times in ISO 8601."""
        start, end = (moment.isoformat(timespec="seconds") if moment else None for moment in (self.start, self.end))
        return {"queue": vars(self.queue) if self.queue else None, "expected_start": start, "expected_end": end}

    def off(self, ended: datetime) -> float | None:
        """By how much of its time the first estimate of the end was off; None where there was none."""
        if self.first_end is None or self.made_at is None:
            return None
        lasted = max(_LEAST_SECONDS, (ended - self.made_at).total_seconds())
        return abs((ended - self.first_end).total_seconds()) / lasted

    def over(self, timeline: AttemptTimeline) -> "Forecast":
        """With the true times in the place of the expected ones."""
        started = _started(timeline)
        return replace(self, queue=None, start=started, end=timeline.end, started=started is not None, ended=True)

    @property
    def sentence(self) -> str:
        """`queued: 3 of 12 (...); expected to start at ... and to end at ...`; "" where nothing is known."""
        verb = "ended" if self.ended else "expected to end"
        words = [str(self.queue)] if self.queue else []
        if self.start and not self.started:
            words.append(f"expected to start at {_at(self.start)}")
        if self.end:
            words.append(f"{verb} at {_at(self.end)}")
        return "; ".join(words)


def read_forecast(kept: object) -> Forecast | None:
    """What `described` made; None for what it did not."""
    if not isinstance(kept, Mapping):
        return None
    try:
        times = {name: parse_moment(kept[name]) for name in _TIMES if name in kept}
        queue = QueuePlace(**kept["queue"]) if "queue" in kept else None
        started, ended = bool(kept.get("started")), bool(kept.get("ended"))
        return Forecast(int(str(kept["attempt"])), queue, **times, started=started, ended=ended)
    except (KeyError, TypeError, ValueError):
        return None


def next_place(statuses: ShardStatuses) -> QueuePlace | None:
    """The place of the shard that starts next; None where none waits in a queue."""
    places = [status.queue for status in statuses.values() if status.queue]
    return min(places, key=lambda place: place.position, default=None)


def forecast(
    before: Forecast, statuses: ShardStatuses, shards: Sequence[ShardProgress], past: Sequence[Past], now: datetime
) -> Forecast:
    """What is expected now, from the forecast before. Without earlier submissions only the queue and true times.

    A slot of a full queue frees whenever one of its pairs ends: every mean duration by the number of pairs. Once routes
    are driven, their pace counts by the share that is done.
    """
    running = [index for index, status in statuses.items() if status.state not in _NO_NODE | ENDED]
    started = before.started or bool(running) or any(status.state in ENDED for status in statuses.values())
    start = before.start if before.started else (now if started else None)
    seen = replace(before, queue=next_place(statuses), start=start, end=None, started=started)
    if not past:
        return seen
    mean = median(fmean(each.pair_seconds) for each in past)
    longest = median(max(each.pair_seconds) for each in past)
    begins = [_begin(status.queue, before, past, mean, now) for status in statuses.values() if status.state in _NO_NODE]
    if not started:
        seen = replace(seen, start=min(begins))
    assert seen.start is not None  # noqa: S101 - it has started, or some shard waits
    end = max((each + timedelta(seconds=longest) for each in (seen.start, *begins)), default=now)
    seen = replace(seen, end=max(now, end if begins else _by_pace(end, seen.start, shards, now)))
    if seen.first_end is None:
        seen = replace(seen, made_at=now, first_start=seen.start, first_end=seen.end)
    return seen


def _begin(place: QueuePlace | None, before: Forecast, past: Sequence[Past], mean: float, now: datetime) -> datetime:
    if place and place.running:
        return now + timedelta(seconds=mean * place.position / place.running)
    waits = timedelta(seconds=median(each.waited_seconds for each in past))
    return max(now, (before.made_at or now) + waits)


def _by_pace(end: datetime, started: datetime, shards: Sequence[ShardProgress], now: datetime) -> datetime:
    done, total = routes_done(shards)
    if not done or not total:
        return end
    share, elapsed = done / total, (now - started).total_seconds()
    left = share * elapsed * (total - done) / done + (1 - share) * (end - now).total_seconds()
    return now + timedelta(seconds=left)


def _started(timeline: AttemptTimeline) -> datetime | None:
    begins = (span.begin for pair in timeline.pairs for span in pair.spans if span.activity is not Activity.WAITING)
    return min(begins, default=None)


def _at(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
