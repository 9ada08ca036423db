"""Several shards' checkpoints become one result.

The routes that were sent out decide what is complete, never the files' own progress: the official merge calls a set
without its last shard finished.
Source: docs/reference/results.md, "The official merge" and "Faults of the official merge".
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from evaluation.errors import InvalidCheckpoint, InvalidConfiguration
from evaluation.results import scoring_v1, scoring_v2
from evaluation.results.checkpoint import Checkpoint, Document
from evaluation.results.metrics import Record
from evaluation.results.records import refuse
from evaluation.routes import RouteRun
from evaluation.submission.model import LeaderboardVersion

Part = tuple[str, Checkpoint]  # a name for messages, and the file's content


@dataclass(frozen=True)
class Merged:
    """`document` is the merged file's content; if incomplete it is Started, not eligible and without figures."""

    document: Document
    missing: tuple[RouteRun, ...]  # in the order of the expected routes
    version: LeaderboardVersion

    @property
    def complete(self) -> bool:
        return not self.missing

    @property
    def routes_done(self) -> int:
        return len(self.document["_checkpoint"]["records"])


def merge(
    parts: Sequence[Part], expected: Sequence[RouteRun], version: LeaderboardVersion, *, sum_by_route: bool = False
) -> Merged:
    """Merge the files of one submission; a shard without a file is simply missing.

    The order of the parts does not matter to 2.x; 1.0 sums in their order, or with `sum_by_route` in that of the
    routes, where it is chance which file holds which. Where repetitions are expected, files of 1.0 with the same routes
    (runs of several seeds) are further repetitions of them, as in the official merge. Raises
    InvalidCheckpoint, naming file and field, for a file of the other version, given twice, with other sensors, or with
    routes that were not expected.
    """
    if not expected:
        raise InvalidConfiguration("There is nothing to merge", "no routes are expected")
    parts = _with_repetitions(parts, expected, version)
    origin = _origins(parts, expected, version)
    _check_totals(parts, len(expected))
    missing = tuple(run for run in expected if run not in origin)
    records = _sorted_records(parts, version)
    document: Document = {
        "_checkpoint": {"global_record": {}, "progress": [len(records), len(expected)], "records": records},
        "entry_status": "Started",
        "eligible": False,
        "sensors": _sensors(parts),
        "values": [],
        "labels": [],
    }
    if not missing:
        _score(document, parts, version, sum_by_route)
    return Merged(document, missing, version)


def global_record(records: Sequence[Record], version: LeaderboardVersion) -> dict[str, Any]:
    """The figures over the records given, one or more, in the form of this version."""
    return scoring_v1.global_record(records) if version is LeaderboardVersion.V1 else scoring_v2.global_record(records)


def _score(document: Document, parts: Sequence[Part], version: LeaderboardVersion, sum_by_route: bool) -> None:
    checkpoint, sensors = document["_checkpoint"], document["sensors"]
    if version is LeaderboardVersion.V1:
        in_file_order = [record for _, part in parts for record in part.records]
        summed = checkpoint["records"] if sum_by_route else in_file_order
        figures, scoring = scoring_v1.global_record(summed), scoring_v1.values
        entry = scoring_v1.entry_status(in_file_order, [part.entry_status for _, part in parts])
        eligible, labels = entry.startswith("Finished"), scoring_v1.LABELS
    else:
        figures, scoring = scoring_v2.global_record(checkpoint["records"]), scoring_v2.values
        entry = scoring_v2.entry_status(checkpoint["records"], sensors)
        eligible, labels = entry == "Finished", scoring_v2.LABELS
    checkpoint["global_record"] = figures
    document |= {"entry_status": entry, "eligible": eligible, "values": scoring(figures), "labels": list(labels)}


def _with_repetitions(parts: Sequence[Part], expected: Sequence[RouteRun], version: LeaderboardVersion) -> list[Part]:
    """1.0 writes no repetition: a route that an earlier file holds is its next one, unless it is the same run again."""
    if version is LeaderboardVersion.V2 or not any(run.repetition for run in expected):
        return list(parts)
    counted: list[Part] = []
    for source, part in parts:
        again = any(part.records and part.records == earlier.records for _, earlier in counted)
        held = Counter(run.route for _, earlier in counted for run in earlier.runs)
        runs = tuple(RouteRun(run.route, run.repetition + (0 if again else held[run.route])) for run in part.runs)
        counted.append((source, replace(part, runs=runs)))
    return counted


def _origins(parts: Sequence[Part], expected: Sequence[RouteRun], version: LeaderboardVersion) -> dict[RouteRun, str]:
    """Which file each route is from; refuses strangers and duplicates."""
    wanted = frozenset(expected)
    origin: dict[RouteRun, str] = {}
    for source, part in parts:
        if part.version is not version:
            raise InvalidCheckpoint(f"{source}: its route ids are of {part.version.value}, not {version.value}")
        for position, run in enumerate(part.runs):
            field = f"_checkpoint.records[{position}].route_id"
            if run not in wanted:
                problem = f"names {run}, which is not expected"
                refuse(source, field, problem, "Leave the file out, or correct the routes or repetitions.")
            if run in origin:
                problem = f"names {run}, which {origin[run]} holds already"
                remedy = "Give each shard's file once; runs of several seeds have to be driven as repetitions"
                remedy += " (1.0: merged with --repetitions)." if version is LeaderboardVersion.V1 else "."
                refuse(source, field, problem, remedy)
            origin[run] = source
    return origin


def _check_totals(parts: Sequence[Part], expected: int) -> None:
    """Refuse files that by their own word have more routes to drive than are expected in all."""
    total = 0
    for source, part in parts:
        total += part.total or 0
        if total > expected:
            problem = f"raises the routes of all files to {total}, but {expected} are expected"
            refuse(source, "_checkpoint.progress[1]", problem, "Leave the file out, or correct the expected routes.")


def _sensors(parts: Sequence[Part]) -> list[str]:
    first: Part | None = None
    for source, part in parts:
        if not part.sensors:
            continue
        if first and part.sensors != first[1].sensors:
            problem = f"differ from those of {first[0]}"
            refuse(source, "sensors", problem, "Merge files of one submission only.")
        first = first or (source, part)
    return list(first[1].sensors) if first else []


def _sorted_records(parts: Sequence[Part], version: LeaderboardVersion) -> list[dict[str, Any]]:
    """All records by route and repetition, reindexed; copies, so that the parts stay as they are."""
    pairs = [pair for _, part in parts for pair in zip(part.runs, part.records, strict=True)]
    records = [record for _, record in sorted(pairs, key=lambda pair: pair[0])]
    if version is LeaderboardVersion.V1:
        return [{**record, "index": index} for index, record in enumerate(records)]
    return [scoring_v2.in_file_order(record, index) for index, record in enumerate(records)]
