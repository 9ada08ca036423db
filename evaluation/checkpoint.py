"""The file that a shard's evaluator writes after every route: reading, checking, mending, writing.

An evaluator neither writes it atomically nor checks it on a resume, and it runs beside a team's code: whatever is
read here is checked in full. Source: contracts/carla-results.md, sections 1 and 3.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn

from evaluation.errors import InvalidCheckpoint
from evaluation.records import (
    REMEDY,
    check_record,
    crashed_record,
    member,
    refuse,
    route_id,
    runs_of,
    shown,
    texts,
)
from evaluation.routes import RouteRun
from evaluation.submission import Generation

# The largest published file has 0.7 MB for 220 routes. Nested lists of this size take 150 MB, and the keeper's
# container has 512: with more, an agent could end its own keeper.
MAX_BYTES = 4 * 1024 * 1024
_MAX_DEPTH = 32  # the format needs five
_TOO_DEEP = f"is nested more than {_MAX_DEPTH} levels deep"
_MAX_ROUTES = 100_000
_MAX_DIGITS = 1000  # of a whole number; Python refuses to read 4300
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

Document = dict[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """A checked file. `document` is its content as read, unknown keys included."""

    document: Document
    generation: Generation
    runs: tuple[RouteRun, ...]  # what its records are of, in the file's order
    total: int | None  # the routes that the shard is to drive; None in 1.0's empty template

    @property
    def records(self) -> list[dict[str, Any]]:
        records: list[dict[str, Any]] = self.document["_checkpoint"]["records"]
        return records

    @property
    def sensors(self) -> list[str]:
        sensors: list[str] = self.document["sensors"]
        return sensors

    @property
    def entry_status(self) -> str:
        return str(self.document["entry_status"])

    @property
    def records_done(self) -> int:
        return len(self.runs)

    @property
    def statuses(self) -> tuple[str, ...]:
        return tuple(record["status"] for record in self.records)

    @property
    def last_status(self) -> str | None:
        """The last record's status, None before the first."""
        return self.statuses[-1] if self.runs else None

    @property
    def next_record(self) -> int:
        """The index of the record that the evaluator writes first on a resume.

        Both generations trust progress[0], which can lag behind the records (1.0 writes it later) or run ahead of them;
        2.x repeats the last route after a simulator crash. Source: the evaluators' route indexers.
        """
        progress = self.document["_checkpoint"]["progress"]
        done = min(progress[0], self.records_done) if progress else 0
        repeats = self.generation is Generation.V2 and self.entry_status == "Crashed"
        return max(0, done - 1) if repeats else done


def parse_checkpoint(data: bytes, source: str, generation: Generation | None = None) -> Checkpoint:
    """Read and check a whole file; raises InvalidCheckpoint, one line that names `source`, the field and a remedy.

    Without `generation` the route ids tell it: 2.x ends them with `_rep<k>`. A file without records is then 1.0's if
    its keys are sorted.
    """
    document = _read_json(data, source)
    checkpoint = member(document, "_checkpoint", dict, source, "")
    records = member(checkpoint, "records", list, source, "_checkpoint.")
    found = generation or _recognise(document, records)
    runs = runs_of(records, found, source)
    for position, record in enumerate(records):
        check_record(record, position, found, source)
    total = _check_progress(checkpoint, len(records), found, source)
    member(checkpoint, "global_record", dict, source, "_checkpoint.")
    _check_entry(document, source)
    return Checkpoint(document, found, runs, total)


def check_size(size: int, source: str) -> None:
    """Refuse a file of so many bytes before it is read; raises InvalidCheckpoint."""
    if size > MAX_BYTES:
        refuse(source, "the file", f"has {size} bytes, more than {MAX_BYTES}")


def check_expected(checkpoint: Checkpoint, expected: Sequence[RouteRun], source: str) -> None:
    """Compare with the routes sent out: the same, in the same order, up to where the shard has come.

    Raises InvalidCheckpoint.
    """
    for position, (run, sent) in enumerate(zip(checkpoint.runs, expected, strict=False)):
        if run != sent:
            field = f"_checkpoint.records[{position}].route_id"
            refuse(source, field, f"must be of {sent}, which was sent out, not of {run}")
    problem = f"must count the {len(expected)} routes that were sent out, not "
    if checkpoint.records_done > len(expected):
        refuse(source, "_checkpoint.records", f"{problem}{checkpoint.records_done}")
    if checkpoint.total not in (None, len(expected)):
        refuse(source, "_checkpoint.progress[1]", f"{problem}{checkpoint.total}")


def empty_document(total: int) -> Document:
    """The file before its first route."""
    return _started([], [], total)


def append_quarantined(
    document: Document, route: RouteRun, generation: Generation, *, total: int | None = None
) -> Document:
    """The document with `route` recorded as "Failed - Simulation crashed", all scores zero, ready for a resume.

    A record of that route which the evaluator wrote while the simulator died is replaced. `total` is needed for 1.0's
    empty template only. The given document stays as it is. Raises InvalidCheckpoint when all routes are recorded.
    """
    checkpoint = document["_checkpoint"]
    records = list(checkpoint["records"])
    runs = runs_of(records, generation, "the checkpoint")
    if runs and runs[-1] == route:
        records.pop()
    routes = checkpoint["progress"][1] if checkpoint["progress"] else total
    if routes is None or len(records) >= routes:
        problem = f"leaves no room for {route_id(route, generation)}: {len(records)} of {shown(routes)} routes are done"
        refuse("the checkpoint", "_checkpoint.progress", problem)
    records.append(crashed_record(route, len(records), generation))
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


def render_document(document: Mapping[str, Any], generation: Generation) -> str:
    """The file's text, as the evaluator of this generation writes it: no newline at the end, 1.0 sorts all keys."""
    return json.dumps(document, indent=4, sort_keys=generation is Generation.V1, allow_nan=False)


def _read_json(data: bytes, source: str) -> Document:
    check_size(len(data), source)
    if not data.strip():
        refuse(source, "the file", "is empty")
    try:
        content = json.loads(
            data.decode(),
            parse_constant=_not_finite,
            parse_float=_finite,
            parse_int=_whole,
            object_pairs_hook=_without_repetition,
        )
    except _Unwanted as error:
        refuse(source, "the file", str(error))
    except RecursionError:
        refuse(source, "the file", _TOO_DEEP)
    except ValueError as error:
        reason = " ".join(str(error).split())[:120]
        raise InvalidCheckpoint(f"{source}: the file is not JSON, or was cut off", reason, REMEDY) from error
    if not isinstance(content, dict):
        refuse(source, "the file", f"must be a JSON object, not {shown(content)}")
    _check_depth(content, source)
    return content


class _Unwanted(ValueError):
    """JSON as Python reads it that no checkpoint holds."""


def _not_finite(constant: str) -> NoReturn:
    raise _Unwanted(f"holds {constant}, which is no number")


def _finite(text: str) -> float:
    value = float(text)
    if value in (float("inf"), float("-inf")):
        raise _Unwanted(f"holds {text[:40]}, which is too large")
    return value


def _whole(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise _Unwanted(f"holds a number of {len(text)} digits")
    return int(text)


def _without_repetition(pairs: list[tuple[str, Any]]) -> Document:
    """Refuse what readers could understand in two ways."""
    content: Document = {}
    for key, value in pairs:
        if key in content:
            raise _Unwanted(f"has the key {shown(key)} twice in one object")
        content[key] = value
    return content


def _check_depth(content: Document, source: str) -> None:
    """Refuse what would exhaust the stack when it is written again."""
    level: list[Any] = [content]
    for _ in range(_MAX_DEPTH):
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
    if level:
        refuse(source, "the file", _TOO_DEEP)


def _recognise(document: Document, records: list[Any]) -> Generation:
    first = records[0].get("route_id") if records and isinstance(records[0], dict) else None
    if isinstance(first, str):
        return Generation.V2 if "_rep" in first else Generation.V1
    return Generation.V1 if list(document) == sorted(document) else Generation.V2


def _check_progress(checkpoint: Mapping[str, Any], done: int, generation: Generation, source: str) -> int | None:
    """Return progress[1]. progress[0] need only be in range: the evaluators write it before or after the records."""
    field = "_checkpoint.progress"
    progress = member(checkpoint, "progress", list, source, "_checkpoint.")
    if not progress and generation is Generation.V1 and not done:
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
