"""A result as text for people: EvalAI's stdout, and what `leaderboard merge` prints beside the file."""

from collections.abc import Mapping, Sequence
from typing import Any

from evaluation.results.evalai_result import LABELS
from evaluation.results.merge import global_record
from evaluation.results.metrics import Record, metric_values
from evaluation.results.quarantine import points_lost
from evaluation.results.records import count_driven
from evaluation.routes import RouteRun, format_runs
from evaluation.submission.model import LeaderboardVersion

NO_SCORE = "No score: the evaluation did not finish."
_TICKS_PER_SECOND = 20  # of game time, in both versions


def summary_text(
    document: Mapping[str, Any],
    version: LeaderboardVersion,
    total_routes: int,
    missing: Sequence[RouteRun] = (),
    redriven: Sequence[str] = (),
    restarts: Sequence[str] = (),
    *,
    scored: bool = True,
) -> str:
    """Sensors, routes, speed, metrics and one line a route, of a merged file that may be incomplete.

    `missing`, `redriven` and `restarts` say what is missing, what was driven again and how often pairs were started
    again, which the file itself does not know. `scored` is False for what failed: its routes so far are no score, and
    no figure over them is shown. Ends with a newline.
    Source: docs/reference/results.md, "What EvalAI is sent".
    """
    records = document["_checkpoint"]["records"]
    lines = [
        f"CARLA Leaderboard {version.value}: {document['entry_status']}",
        f"Sensors: {', '.join(document['sensors']) or 'none recorded'}",
        *_coverage(len(records), total_routes, missing),
        *_undriven(records),
        _speed(records),
        "",
        *(_metrics(records, document["_checkpoint"]["global_record"], version) if scored else [NO_SCORE]),
        *_paragraph(points_lost(records, total_routes)),
        *_paragraph(restarts),
        *_paragraph(redriven),
        "",
        *_routes(records),
    ]
    return "\n".join(lines) + "\n"


def _coverage(done: int, total_routes: int, missing: Sequence[RouteRun]) -> list[str]:
    lines = [f"Routes completed: {done} of {total_routes}"]
    if done < total_routes:
        lines.append(f"INCOMPLETE: {total_routes - done} are missing; what follows covers those driven so far.")
        lines += [f"Missing: {format_runs(missing)}"] if missing else []
    return lines


def _undriven(records: Sequence[Record]) -> list[str]:
    count = len(records) - count_driven(records)
    why = "the agent could not be set up, or its sensors are invalid"
    return [f"Not driven, although recorded: {count} ({why})"] if count else []


def _speed(records: Sequence[Record]) -> str:
    """Game time over system time; routes whose durations were never set do not count."""
    timed = [record["meta"] for record in records if _ratio(record) is not None]
    system = sum(meta["duration_system"] for meta in timed)
    if not system:
        return "Game time / system time: unknown"
    ratio = sum(meta["duration_game"] for meta in timed) / system
    return f"Game time / system time: {ratio:.3f} ({_TICKS_PER_SECOND * ratio:.1f} FPS)"


def _ratio(record: Record) -> float | None:
    meta = record["meta"]
    if meta["duration_system"] < 0.001 or meta["duration_game"] < 0:  # files keep milliseconds; -1 and 0 are "unset"
        return None
    return float(meta["duration_game"] / meta["duration_system"])


def _metrics(records: Sequence[Record], figures: Record, version: LeaderboardVersion) -> list[str]:
    if not records:
        return ["No metrics yet."]
    values = metric_values(figures or global_record(records, version), version)
    width = max(map(len, LABELS[version]))
    return [f"{name:<{width}}  {value:10.3f}" for name, value in zip(LABELS[version], values, strict=True)]


def _paragraph(sentences: Sequence[str]) -> list[str]:
    return ["", *sentences] if sentences else []


def _routes(records: Sequence[Record]) -> list[str]:
    ids = max([len("route"), *(len(record["route_id"]) for record in records)])
    statuses = max([len("status"), *(len(record["status"]) for record in records)])
    lines = [f"{'index':>5}  {'route':<{ids}}  {'status':<{statuses}}  ratio"]
    for record in records:
        ratio = _ratio(record)
        shown = "-" if ratio is None else f"{ratio:.3f}"
        lines.append(f"{record['index']:>5}  {record['route_id']:<{ids}}  {record['status']:<{statuses}}  {shown:>5}")
    return lines
