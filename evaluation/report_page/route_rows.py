"""A report's rows of routes: score, infractions, durations, and how often each was driven."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.report_page.safe_text import shown
from evaluation.report_page.source import Audience, Pair, ReportSource
from evaluation.results.metrics import METRICS, SCORES, Record, spelled
from evaluation.results.quarantine import is_quarantined
from evaluation.results.records import runs_of
from evaluation.routes import RouteRun
from evaluation.submission.model import LeaderboardVersion

MOST_ROWS = 2000
MOST_MESSAGES = 3000  # on one page
MESSAGES_PER_ROUTE = 12
_LONGEST_MESSAGE = 200


@dataclass(frozen=True)
class RouteRow:
    """One route's drive that counts; without figures where it has no record."""

    name: str
    status: str
    mark: str  # "done", "failed", "quarantined", "missing": the icon and the colour
    pair: int
    score: float | None = None  # 0 to 100
    completion: float | None = None  # 0 to 100
    penalty: float | None = None  # 0 to 1
    infractions: tuple[tuple[str, int], ...] = ()
    system_seconds: float | None = None
    game_seconds: float | None = None
    drives: int = 1
    messages: tuple[str, ...] = ()  # for operators: they say where on the route
    metres: float | None = None  # likewise


def route_rows(source: ReportSource, audience: Audience) -> list[RouteRow]:
    """A row for each route that was sent out, in their order; at most MOST_ROWS."""
    records = dict(zip(_runs(source), source.records, strict=True))
    pair_of = {run: pair.index for pair in source.pairs for run in pair.runs}
    drives = _drives(source.pairs)
    expected = source.runs or list(records)
    rows = [
        _row(run, records.get(run), pair_of.get(run, 0), drives[run], source.subject.version)
        for run in expected[:MOST_ROWS]
    ]
    return rows if audience is Audience.TEAM else list(_with_messages(rows, expected, records))


def _runs(source: ReportSource) -> Sequence[RouteRun]:
    return runs_of(source.records, source.subject.version, "the merged file")


def _drives(pairs: Sequence[Pair]) -> Counter[RouteRun]:
    """How often each route was driven again."""
    return Counter(redrive.run for pair in pairs if pair.seen for redrive in pair.seen.redrives)


def _row(run: RouteRun, record: Record | None, pair: int, again: int, version: LeaderboardVersion) -> RouteRow:
    name = f"{run.route}" + (f" (repetition {run.repetition})" if run.repetition else "")
    if record is None:
        return RouteRow(name, "No result", "missing", pair, drives=1 + again)
    scores, meta = record["scores"], record["meta"]
    return RouteRow(
        name,
        shown(str(record["status"]), _LONGEST_MESSAGE),
        _mark(record),
        pair,
        score=scores["score_composed"],
        completion=scores["score_route"],
        penalty=scores["score_penalty"],
        infractions=tuple(_infractions(record, version)),
        system_seconds=_duration(meta["duration_system"]),
        game_seconds=_duration(meta["duration_game"]),
        drives=1 + again,
    )


def _mark(record: Record) -> str:
    if is_quarantined(record):
        return "quarantined"
    return "failed" if str(record["status"]).startswith("Failed") else "done"


def _duration(seconds: float) -> float | None:
    return seconds if seconds > 0 else None  # -1 and 0 are "unset"


def _infractions(record: Record, version: LeaderboardVersion) -> Iterator[tuple[str, int]]:
    kept = record["infractions"]
    for metric in METRICS[version][len(SCORES) :]:
        count = len(kept.get(spelled(metric.key, kept), ()))
        if count:
            yield metric.name, count


def _with_messages(
    rows: Sequence[RouteRow], runs: Sequence[RouteRun], records: Mapping[RouteRun, Mapping[str, Any]]
) -> Iterator[RouteRow]:
    """What the evaluator wrote of each infraction, until the page is full of them."""
    left = MOST_MESSAGES
    for run, row in zip(runs, rows, strict=False):
        record = records.get(run)
        texts = [text for each in record["infractions"].values() for text in each] if record else []
        kept = texts[: min(MESSAGES_PER_ROUTE, left)]
        left -= len(kept)
        messages = [shown(str(text), _LONGEST_MESSAGE) for text in kept]
        if len(texts) > len(kept):
            messages.append(f"{len(texts) - len(kept)} more in merged.json")
        metres = record["meta"]["route_length"] if record else None
        yield RouteRow(**{**vars(row), "messages": tuple(messages), "metres": metres})
