"""Writes checkpoints as the evaluators do: the empty file, a quarantined route's record, the text."""

import json
from collections.abc import Mapping
from typing import Any

from evaluation.results.checkpoint import Document
from evaluation.results.records import (
    SIMULATION_CRASHED,
    crashed_record,
    refuse,
    route_id,
    runs_of,
    shown,
)
from evaluation.routes import RouteRun
from evaluation.submission.model import LeaderboardVersion


def empty_document(total: int) -> Document:
    """The file before its first route."""
    return _started([], [], total)


def append_quarantined(
    document: Document,
    route: RouteRun,
    version: LeaderboardVersion,
    *,
    total: int | None = None,
    status: str = f"Failed - {SIMULATION_CRASHED}",
) -> Document:
    """The document with `route` recorded with this status, all scores zero, ready for a resume.

    A record of that route which the evaluator wrote while the simulator died is replaced. `total` is needed for 1.0's
    empty template only. The given document stays as it is. Raises InvalidCheckpoint when all routes are recorded.
    """
    checkpoint = document["_checkpoint"]
    records = list(checkpoint["records"])
    runs = runs_of(records, version, "the checkpoint")
    if runs and runs[-1] == route:
        records.pop()
    routes = checkpoint["progress"][1] if checkpoint["progress"] else total
    if routes is None or len(records) >= routes:
        problem = f"leaves no room for {route_id(route, version)}: {len(records)} of {shown(routes)} routes are done"
        refuse("the checkpoint", "_checkpoint.progress", problem)
    records.append(crashed_record(route, len(records), version, status))
    return {**document, **_started(records, document["sensors"], routes)}


def _started(records: list[Any], sensors: list[str], total: int) -> Document:
    """A document that an evaluator goes on from: with any other entry status it repeats the last route, or refuses."""
    return {
        "_checkpoint": {"global_record": {}, "progress": [len(records), total], "records": records},
        "entry_status": "Started",
        "eligible": False,
        "sensors": list(sensors),
        "values": [],
        "labels": [],
    }


def render_document(document: Mapping[str, Any], version: LeaderboardVersion) -> str:
    """The file's text, as the evaluator of this version writes it: no newline at the end, 1.0 sorts all keys."""
    return json.dumps(document, indent=4, sort_keys=version is LeaderboardVersion.V1, allow_nan=False)
