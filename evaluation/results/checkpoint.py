"""The file that a shard's evaluator writes after every route: its checked form, and the comparison with the routes.

An evaluator neither writes it atomically nor checks it on a resume, and it runs beside a team's code: whatever is
read here is checked in full.
Source: docs/reference/results.md, "The checkpoint file" and "Faults of the official merge".
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.results.records import refuse
from evaluation.routes import RouteRun
from evaluation.submission.model import LeaderboardVersion

Document = dict[str, Any]


@dataclass(frozen=True)
class Checkpoint:
    """A checked file. `document` is its content as read, unknown keys included."""

    document: Document
    version: LeaderboardVersion
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

        Both versions trust progress[0], which can lag behind the records (1.0 writes it later) or run ahead of them;
        2.x repeats the last route after a simulator crash. Source: the evaluators' route indexers.
        """
        progress = self.document["_checkpoint"]["progress"]
        done = min(progress[0], self.records_done) if progress else 0
        repeats = self.version is LeaderboardVersion.V2 and self.entry_status == "Crashed"
        return max(0, done - 1) if repeats else done


def check_expected(checkpoint: Checkpoint, expected: Sequence[RouteRun], source: str, growing: bool = False) -> None:
    """Compare with the routes sent out: the same, in the same order, up to where the shard has come.

    `growing`: the shard pulls its routes, and there may have been fewer when the file was written. Raises
    InvalidCheckpoint.
    """
    for position, (run, sent) in enumerate(zip(checkpoint.runs, expected, strict=False)):
        if run != sent:
            field = f"_checkpoint.records[{position}].route_id"
            refuse(source, field, f"must be of {sent}, which was sent out, not of {run}")
    problem = f"must count the {len(expected)} routes that were sent out, not "
    if checkpoint.records_done > len(expected):
        refuse(source, "_checkpoint.records", f"{problem}{checkpoint.records_done}")
    fewer = growing and checkpoint.total is not None and checkpoint.total <= len(expected)
    if checkpoint.total not in (None, len(expected)) and not fewer:
        refuse(source, "_checkpoint.progress[1]", f"{problem}{checkpoint.total}")
