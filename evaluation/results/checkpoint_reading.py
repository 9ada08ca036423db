"""Reads and checks a checkpoint file in full. Whatever breaks the format is refused in one line.

An evaluator neither writes the file atomically nor checks it on a resume, and it runs beside a team's code.
Source: docs/reference/results.md, "The checkpoint file" and "Faults of the official merge".
"""

from collections.abc import Mapping
from typing import Any

from evaluation.results.checkpoint import Checkpoint, Document
from evaluation.results.checkpoint_json import read_json
from evaluation.results.records import (
    check_record,
    member,
    refuse,
    runs_of,
    shown,
    texts,
)
from evaluation.submission.model import LeaderboardVersion

_MAX_ROUTES = 100_000
_ENTRY_STATUS = frozenset(
    {
        "",  # 1.0 at the start
        "Started",
        "Finished",
        "Finished with agent errors",
        "Finished with missing data",
        "Rejected",
        "Crashed",
        "Invalid",
    }
)


def parse_checkpoint(data: bytes, source: str, version: LeaderboardVersion | None = None) -> Checkpoint:
    """Read and check a whole file; raises InvalidCheckpoint, one line that names `source`, the field and a remedy.

    Without `version` the route ids show it: 2.x ends them with `_rep<k>`. A file without records is then 1.0's if
    its keys are sorted.
    """
    document = read_json(data, source)
    checkpoint = member(document, "_checkpoint", dict, source, "")
    records = member(checkpoint, "records", list, source, "_checkpoint.")
    found = version or _recognise(document, records)
    runs = runs_of(records, found, source)
    for position, record in enumerate(records):
        check_record(record, position, found, source)
    total = _check_progress(checkpoint, len(records), found, source)
    member(checkpoint, "global_record", dict, source, "_checkpoint.")
    _check_entry(document, source)
    return Checkpoint(document, found, runs, total)


def _recognise(document: Document, records: list[Any]) -> LeaderboardVersion:
    first = records[0].get("route_id") if records and isinstance(records[0], dict) else None
    if isinstance(first, str):
        return LeaderboardVersion.V2 if "_rep" in first else LeaderboardVersion.V1
    return LeaderboardVersion.V1 if list(document) == sorted(document) else LeaderboardVersion.V2


def _check_progress(checkpoint: Mapping[str, Any], done: int, version: LeaderboardVersion, source: str) -> int | None:
    """Return progress[1]. progress[0] need only be in range: the evaluators write it before or after the records."""
    field = "_checkpoint.progress"
    progress = member(checkpoint, "progress", list, source, "_checkpoint.")
    if not progress and version is LeaderboardVersion.V1 and not done:
        return None
    if len(progress) != 2:
        refuse(source, field, f"must be [done, total] beside {done} records, not {shown(progress)}")
    for position, value in enumerate(progress):
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= _MAX_ROUTES:
            refuse(source, f"{field}[{position}]", f"must be a whole number up to {_MAX_ROUTES}, not {shown(value)}")
    if progress[0] > progress[1] or done > progress[1]:
        refuse(source, field, f"says {progress[0]} of {progress[1]} routes beside {done} records")
    return int(progress[1])


def _check_entry(document: Mapping[str, Any], source: str) -> None:
    status = member(document, "entry_status", str, source, "")
    if status not in _ENTRY_STATUS:
        refuse(source, "entry_status", f"is unknown: {shown(status)}")
    if document.get("eligible") != "":  # 1.0 at the start
        member(document, "eligible", bool, source, "")
    for sensor in texts(document, "sensors", source, ""):
        if not (sensor.isascii() and sensor.isidentifier() and len(sensor) <= 64):
            refuse(source, "sensors", f"must be names like carla_camera, not {shown(sensor)}")
    texts(document, "values", source, "")
    texts(document, "labels", source, "")
