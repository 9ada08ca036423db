"""What can be seen of a submission from outside: EvalAI's status, the ledger's row, the shards' progress in S3."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from evaluation import storage_keys
from evaluation.errors import DeadlineExceeded, ServiceUnavailable
from evaluation.lifecycle.forecast import Forecast, read_forecast
from evaluation.lifecycle.ledger_entry import ATTEMPT, END_TIME, FAULT, FORECAST, REASON, REMARKS, STATUS
from evaluation.lifecycle.outcome import OutcomeStatus
from evaluation.lifecycle.shard_progress import ShardProgress, routes_done
from evaluation.pair.protocol import parse_progress
from evaluation.ports import ArtifactStore, ListedSubmission, SubmissionLedger
from evaluation.results.metrics import SCORES
from evaluation.shards import ENDED, Shard, ShardState
from evaluation.submission.model import SubmissionStatus, parse_phase
from flows.submission_folder import read_plan

OVER = frozenset({SubmissionStatus.FINISHED, SubmissionStatus.FAILED, SubmissionStatus.CANCELLED})


@dataclass(frozen=True)
class Progress:
    """A snapshot of a submission."""

    submission: int
    phase: str
    team: int
    evalai: SubmissionStatus
    row: Mapping[str, Any] = field(default_factory=dict)  # the ledger's, every value as text but maps
    shards: tuple[ShardProgress, ...] = ()
    team_name: str = ""
    forecast: Forecast | None = None  # of its attempt, as its run last wrote it

    @property
    def routes_done(self) -> int:
        return routes_done(self.shards)[0]

    @property
    def routes_total(self) -> int:
        return routes_done(self.shards)[1]

    @property
    def status(self) -> str:
        """The ledger's word where its evaluation has ended, else EvalAI's."""
        return str(self.row.get(STATUS, self.evalai.value)) if END_TIME in self.row else self.evalai.value

    @property
    def score(self) -> float | None:
        """The driving score, 0 to 100, of what has finished."""
        value = self.row.get(SCORES[0].name)
        return float(value) if value is not None and self.row.get(STATUS) == OutcomeStatus.FINISHED else None

    @property
    def reason(self) -> str:
        """Why it has no score, in a sentence; "" for one that has finished or goes on."""
        ended = self.row.get(STATUS) in set(OutcomeStatus) - {OutcomeStatus.FINISHED}
        return str(self.row.get(REASON, "")) if ended else ""

    @property
    def remarks(self) -> str:
        """What belongs beside the score: quarantined routes, restarts."""
        return str(self.row.get(REMARKS, ""))

    @property
    def fault(self) -> str:
        return str(self.row.get(FAULT, ""))

    @property
    def over(self) -> bool:
        """EvalAI and the ledger agree that it has ended; a cancelled one that never started has no row.

        So has one that is held: it goes on only when an operator decides.
        """
        recorded = self.row.get(STATUS)
        if recorded is None:
            return self.evalai is SubmissionStatus.CANCELLED
        if END_TIME not in self.row:  # the outcome is kept; its report's pages may still be made
            return False
        return recorded == OutcomeStatus.HELD or (self.evalai in OVER and recorded == self.evalai)

    def described(self) -> dict[str, object]:
        """As `--json` has it."""
        return {
            "submission": self.submission,
            "phase": self.phase,
            "team": self.team_name,
            "evalai": self.evalai.value,
            "status": self.status,
            "driving_score": self.score,
            "routes_done": self.routes_done,
            "routes_total": self.routes_total,
            **(self.forecast or Forecast(0)).shown(),
            "reason": self.reason,
            "remarks": self.remarks,
            "shards": [shard.row for shard in self.shards],
        }


def _stopped(shard: ShardProgress) -> ShardProgress:
    """A shard of a submission that is over; the last word of one that was stopped may be that it drives."""
    if shard.state in ENDED:
        return shard
    return replace(shard, state=ShardState.GONE, detail="stopped with the submission")


def in_time(
    snapshots: Iterable[Progress], seconds: float, cause: str, remedy: str, clock: Callable[[], float] = time.monotonic
) -> Iterator[Progress]:
    """The snapshots until the submission is over; raises DeadlineExceeded at one that comes after so many seconds."""
    deadline = clock() + seconds
    for seen in snapshots:
        yield seen
        if not seen.over and clock() > deadline:
            summary = f"Submission {seen.submission} is still {seen.evalai.value} after {seconds:g} s"
            raise DeadlineExceeded(summary, cause, remedy)


@dataclass(frozen=True)
class Place:
    """Where a cluster keeps its submissions."""

    ledger: SubmissionLedger
    artifacts: ArtifactStore


@dataclass(frozen=True)
class Pace:
    """Seconds between two looks: at ledger and S3, and at EvalAI, whose 60 requests a minute are for everything."""

    look: float = 5.0
    ask_evalai: float = 30.0


class Observer:
    """Follows submissions of an installation. `ask` shows one at EvalAI; `phases` are the ids and codenames."""

    def __init__(
        self,
        ask: Callable[[int], ListedSubmission],
        places: Mapping[str, Place],
        phases: Mapping[int, str],
        pace: Pace | None = None,
    ) -> None:
        self._ask = ask
        self._places = places
        self._phases = phases
        self._pace = pace or Pace()

    def snapshot(self, submission: int) -> Progress:
        """Raises ServiceUnavailable, or UnknownSubmission."""
        shown = self._ask(submission)
        phase = self._phases.get(shown.phase_pk, f"phase {shown.phase_pk}")
        status = SubmissionStatus.CANCELLED if shown.withdrawn else shown.status
        return self.refresh(Progress(submission, phase, shown.team_pk, status, team_name=shown.team_name))

    def refresh(self, seen: Progress) -> Progress:
        """Read S3 and the ledger again, not EvalAI. Raises ServiceUnavailable."""
        place = self._place(seen)
        if place is None:
            return seen
        row = place.ledger.row(seen.team, seen.submission) or {}
        shards = _shards(place.artifacts, seen.submission, str(row.get(ATTEMPT)))
        shown = {name: value if isinstance(value, Mapping) else str(value) for name, value in row.items()}
        seen = replace(seen, row=shown, shards=shards, forecast=read_forecast(row.get(FORECAST)))
        return replace(seen, shards=tuple(map(_stopped, shards))) if seen.over else seen

    def follow(self, submission: int) -> Iterator[Progress]:
        """A snapshot at each look until the submission is over; EvalAI is asked less often, and once at the end."""
        seen = self.snapshot(submission)
        asked = time.monotonic()
        while True:
            yield seen
            if seen.over:
                return
            time.sleep(self._pace.look)
            try:
                seen = self.refresh(seen)
                waited = time.monotonic() - asked
                if waited > self._pace.ask_evalai or (seen.row.get(STATUS) in OVER and waited > 1):
                    asked = time.monotonic()
                    seen = self.snapshot(submission)
            except ServiceUnavailable:  # the submission goes on; the next snapshot may succeed
                continue

    def result(self, submission: int, phase: str) -> dict[str, float]:
        """The metrics that EvalAI was sent, label -> value; empty where the submission has none."""
        place = self._places[parse_phase(phase).cluster]
        body = place.artifacts.read(storage_keys.result_key(submission, storage_keys.EVALAI_FORM))
        form = json.loads(body) if body else []
        return dict(form[0]["accuracies"]) if form else {}

    def file(self, seen: Progress, name: str) -> bytes | None:
        """A file of the submission's folder, or None where there is none."""
        place = self._place(seen)
        return place.artifacts.read(storage_keys.result_key(seen.submission, name)) if place else None

    def folder(self, seen: Progress) -> str:
        """s3://bucket/id/; "" where no cluster is known."""
        place = self._place(seen)
        return place.artifacts.location(f"{seen.submission}/") if place else ""

    def _place(self, seen: Progress) -> Place | None:
        return self._places.get(seen.phase.rpartition("-")[0])


def _shards(artifacts: ArtifactStore, submission: int, attempt: str) -> tuple[ShardProgress, ...]:
    plan = read_plan(artifacts, submission)
    if plan is None:
        return ()
    return tuple(_shard(artifacts, submission, attempt, shard, plan.repetitions) for shard in plan.shards)


def _shard(artifacts: ArtifactStore, submission: int, attempt: str, shard: Shard, repetitions: int) -> ShardProgress:
    body = artifacts.read(storage_keys.progress_key(submission, shard.index))
    progress = parse_progress(body) if body else None
    if progress and str(progress.attempt) != attempt:
        progress = None  # of an attempt before
    every = len(shard.routes) * repetitions
    pool = every if shard.pulled else 0
    if progress is None:
        return ShardProgress(shard.index, ShardState.WAITING, 0, every - pool, "waits for a node", pool=pool)
    total = progress.routes_total if shard.pulled else every
    return ShardProgress(shard.index, progress.state, progress.routes_done, total, progress.detail, pool=pool)
