"""The bars of a timeline, in percent of their axis, with the text that says the same."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC

from evaluation.pair.timeline import Activity, AttemptTimeline, PairTimeline, Span

_LEAST_WIDTH = 0.25  # percent: what is shorter can still be seen


@dataclass(frozen=True)
class Box:
    activity: Activity
    x: str  # percent
    width: str
    title: str


@dataclass(frozen=True)
class Bar:
    """One pair: its drawing, the sentence for who does not see that, and the durations in the order of ACTIVITIES."""

    pair: int
    boxes: tuple[Box, ...]
    alternative: str
    durations: tuple[str, ...]
    restarts: int


@dataclass(frozen=True)
class Chart:
    attempt: int
    begin: str
    end: str
    length: str
    bars: tuple[Bar, ...]
    totals: tuple[str, ...]  # of all pairs, with their share
    restarts: int


ACTIVITIES = tuple(Activity)


def duration(seconds: float) -> str:
    """`41 s`, `6 min 5 s`, `3 h 20 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min" + (f" {rest} s" if rest and minutes < 10 else "")
    return f"{minutes // 60} h {minutes % 60:02} min"


def chart(attempt: AttemptTimeline) -> Chart:
    """The drawing and the table of one attempt."""
    sums = [sum(pair.seconds(activity) for pair in attempt.pairs) for activity in ACTIVITIES]
    whole = sum(sums) or 1.0
    bars = tuple(_bar(pair, attempt) for pair in attempt.pairs)
    return Chart(
        attempt=attempt.attempt,
        begin=f"{attempt.begin.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC",
        end=f"{attempt.end.astimezone(UTC):%H:%M:%S} UTC",
        length=duration(attempt.seconds),
        bars=bars,
        totals=tuple(f"{duration(each)} ({100 * each / whole:.0f} %)" if each else "-" for each in sums),
        restarts=sum(bar.restarts for bar in bars),
    )


def _bar(pair: PairTimeline, attempt: AttemptTimeline) -> Bar:
    seconds = [(activity, pair.seconds(activity)) for activity in ACTIVITIES]
    words = ", ".join(f"{activity.value} {duration(each)}" for activity, each in seconds if each)
    return Bar(
        pair.pair,
        tuple(_box(span, attempt) for span in pair.drawn),
        f"Pair {pair.pair}: {words or 'nothing'}",
        tuple(duration(each) if each else "-" for _, each in seconds),
        len(pair.starts) - 1,
    )


def _box(span: Span, attempt: AttemptTimeline) -> Box:
    x = 100 * (span.begin - attempt.begin).total_seconds() / attempt.seconds
    width = max(_LEAST_WIDTH, 100 * span.seconds / attempt.seconds)
    title = f"{span.activity.value}, {duration(span.seconds)}, from {span.begin.astimezone(UTC):%H:%M:%S} UTC"
    return Box(span.activity, f"{x:.2f}%", f"{width:.2f}%", title)


def slug(activity: Activity) -> str:
    """The activity as a CSS class and an id."""
    return activity.name.lower()


def legend() -> Sequence[tuple[Activity, str]]:
    """Each activity, and what it means."""
    return tuple(_MEANINGS.items())


_MEANINGS = {
    Activity.WAITING: "for a machine and its images",
    Activity.STARTING: "the simulator warms up",
    Activity.DRIVING: "routes that got their result",
    Activity.LOST: "the drive broke off, and its route was driven again or given up",
    Activity.RETRYING: "between two starts of the pair",
}
