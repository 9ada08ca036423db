"""EvalAI's list as all processes of an installation share it: its form, and when it is made anew. No I/O, no clock.

No decision compares two machines' clocks: a process measures by its own how long it has seen a number unchanged
(docs/design.md, "One claim, one outcome").
"""

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pydantic import TypeAdapter, ValidationError

from evalai_api.fields import SubmissionRow
from evaluation.errors import RequestRefused
from evaluation.ports import ListedSubmission
from evaluation.submission.model import CLOSED, UNDER_WAY

SHORTEST_SECONDS = 10.0  # between two lists, however many submissions are under way
SHARE = 0.15  # requests a minute that the list may cost for each submission under way
LOOK_SECONDS = 45.0  # who has begun to ask, and has not published for so long, is not waited for any longer
GAP_SECONDS = 1.0  # between two lists that new submissions wait for
_ROWS = TypeAdapter(list[SubmissionRow])


_KEPT = ("pk", "phase_pk", "team_pk", "team_name", "status", "input_file", "submitted_at", "rerun_resumed_at")


def render_list(rows: Iterable[ListedSubmission]) -> bytes:
    """What is shared of EvalAI's list: what waits, runs, or was withdrawn. Anything else has ended."""
    shared = [row for row in rows if row.withdrawn or row.status not in CLOSED]
    return zlib.compress(_ROWS.dump_json([_kept(row) for row in shared]))


def _kept(row: ListedSubmission) -> SubmissionRow:
    return SubmissionRow.model_validate({name: getattr(row, name) for name in _KEPT} | {"deleted": row.withdrawn})


def read_list_body(body: bytes) -> dict[int, SubmissionRow]:
    """The shared rows by id; raises RequestRefused for a body that no version of ours wrote."""
    try:
        return {row.pk: row for row in _ROWS.validate_json(zlib.decompress(body))} if body else {}
    except (zlib.error, ValidationError) as error:
        raise RequestRefused("The shared list cannot be read", type(error).__name__) from error


def interval(rows: Mapping[int, SubmissionRow], longest: float) -> float:
    """Seconds between two lists, at most `longest`: the more submissions are under way, the more often."""
    under_way = sum(row.status in UNDER_WAY for row in rows.values())
    return min(longest, max(SHORTEST_SECONDS, 60 / (SHARE * max(1, under_way))))


@dataclass
class ListWatch:
    """What one process has seen of the list's numbers, and when by its own clock (seconds)."""

    begun: int = -1
    done: int = -1
    _begun_seen: float = 0.0
    _done_seen: float = 0.0
    _changed: bool = False  # `done` was seen to change: its age is known

    def observe(self, begun: int, done: int, now: float) -> None:
        """Note what the shared row says now."""
        if begun != self.begun:
            self.begun, self._begun_seen = begun, now
        if done != self.done:
            self._changed = self.done >= 0
            self.done, self._done_seen = done, now

    def age(self, now: float) -> float:
        """For how long this process has known the list that is there."""
        return now - self._done_seen

    def is_due(self, now: float, every: float, newer_than: int | None = None) -> bool:
        """Whether this process is to ask EvalAI for a new list, which one that is `newer_than` a number waits for."""
        if self.begun > self.done:  # somebody asks
            return now - self._begun_seen >= LOOK_SECONDS
        if newer_than is not None and self.done <= newer_than:
            return not self._changed or self.age(now) >= GAP_SECONDS
        return self.age(now) >= every or self.done == 0
