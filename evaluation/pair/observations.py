"""What the supervisor saw of a shard: its starts, each record when it first lay there, each route driven again.

observations.json lies beside the checkpoint in S3 and in the supervisor's directory, where the agent cannot write. It
covers all attempts of the submission. What a result claims is compared with it (evaluation.verification).
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import field, replace
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AwareDatetime, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from evaluation.errors import InvalidCheckpoint
from evaluation.pair.decisions import SENSORS_INVALID, SETUP_FAILED, SIMULATION_CRASHED
from evaluation.routes import RouteRun

MOST_EVENTS = 5000  # 220 routes and every restart of ten attempts need a tenth
_RECORDED = ("route_id", "status", "num_infractions", "infractions", "scores", "meta")
Moment = Annotated[AwareDatetime, AfterValidator(lambda moment: moment.astimezone(UTC))]


@dataclass(frozen=True)
class SeenStart:
    """One start of the pair. `number` counts within the attempt; a time is None while it has not come."""

    attempt: int
    number: int
    began_at: Moment
    ready_at: Moment | None = None  # the simulator accepted connections; its begin, where no supervisor was there
    ended_at: Moment | None = None
    stopping: bool = False  # the supervisor has told both to stop
    simulator_lost: bool = False  # it died by itself, or did not answer the supervisor
    interrupted: bool = True  # a route was begun and got no record of its own
    charged_to_agent: bool = False
    drove_all: bool = False  # all that the pair had claimed: the next start is for the next routes
    how: str = "its pod was lost"  # the start ended: the supervisor's own sentence
    kind: Literal["start"] = "start"


@dataclass(frozen=True)
class SeenRecord:
    """A record as it first lay in the checkpoint, or was found changed."""

    run: RouteRun
    status: str
    digest: str  # record_digest
    at: Moment
    attempt: int
    start: int
    by_supervisor: bool = False  # the supervisor wrote it: a route that was given up
    while_stopping: bool = False  # an evaluator whose simulator is stopped beside it reports a crash
    kind: Literal["record"] = "record"


@dataclass(frozen=True)
class SeenRedrive:
    """From here on the route is driven once more. `cause` is the supervisor's sentence about the drive before."""

    run: RouteRun
    cause: str
    attempt: int
    start: int  # the start that drives it again
    claimed_crash: bool = False  # the evaluator reported a crash of a simulator that the supervisor saw alive
    charged_to_agent: bool = False
    kind: Literal["redrive"] = "redrive"


Event = Annotated[SeenStart | SeenRecord | SeenRedrive, Field(discriminator="kind")]


@dataclass(frozen=True)
class Observations:
    """Events in the order in which they were seen. `full`: there were more than are kept."""

    events: tuple[Event, ...] = field(default_factory=tuple)
    full: bool = False

    @property
    def starts(self) -> list[SeenStart]:
        return [event for event in self.events if isinstance(event, SeenStart)]

    @property
    def redrives(self) -> list[SeenRedrive]:
        return [event for event in self.events if isinstance(event, SeenRedrive)]

    def records_of(self, run: RouteRun) -> list[SeenRecord]:
        return [event for event in self.events if isinstance(event, SeenRecord) and event.run == run]

    def with_event(self, event: SeenStart | SeenRecord | SeenRedrive) -> "Observations":
        if len(self.events) >= MOST_EVENTS:
            return replace(self, full=True)
        return replace(self, events=(*self.events, event))

    def with_new_start(self, start: SeenStart, unrecorded: Sequence[RouteRun]) -> "Observations":
        """Note a start, and which of the routes without a record (in order) it drives again; twice is once."""
        last = self.starts[-1] if self.starts else None
        if last and (last.attempt, last.number) == (start.attempt, start.number):
            return self
        seen = self.with_event(start)
        for position, run in enumerate(unrecorded):
            dropped = self._last_record(run)
            begun = position == 0 and last is not None and last.ready_at is not None and last.interrupted
            if dropped or begun:
                seen = seen.with_event(self._redrive(run, start, last, dropped))
        return seen

    def _last_record(self, run: RouteRun) -> SeenRecord | None:
        """The record that the route has, unless it is driven again already."""
        about = [each for each in self.events if not isinstance(each, SeenStart) and each.run == run]
        return about[-1] if about and isinstance(about[-1], SeenRecord) else None

    def _redrive(
        self, run: RouteRun, start: SeenStart, last: SeenStart | None, dropped: SeenRecord | None
    ) -> SeenRedrive:
        how = last.how if last else "an earlier checkpoint was resumed"
        charged = last is not None and last.charged_to_agent
        claimed = False
        if dropped and not dropped.by_supervisor:
            of = next((s for s in self.starts if (s.attempt, s.number) == (dropped.attempt, dropped.start)), None)
            crash = dropped.status == SIMULATION_CRASHED
            # A start without an end is that of a pod which was ended from outside, the simulator perhaps first.
            lived = of is not None and of.ended_at is not None and not of.simulator_lost
            claimed = crash and lived and not dropped.while_stopping
            # A resume drives these anew. Another record was lost with its pod, before it was copied to S3.
            charged = charged or dropped.status in (SETUP_FAILED, SENSORS_INVALID)
            how = f"its record said {dropped.status!r}; {how}"
        return SeenRedrive(run, how, start.attempt, start.number, claimed, charged and not claimed)

    def with_last_start(self, **changes: Any) -> "Observations":
        """The last start with these fields changed; nothing where there is none."""
        position = max((at for at, event in enumerate(self.events) if isinstance(event, SeenStart)), default=None)
        if position is None:
            return self
        changed = replace(self.events[position], **changes)
        return replace(self, events=(*self.events[:position], changed, *self.events[position + 1 :]))

    def with_records(
        self,
        runs: Sequence[RouteRun],
        records: Sequence[Mapping[str, Any]],
        at: datetime,
        by_supervisor: RouteRun | None = None,
    ) -> "Observations":
        """Note each record that is new or has changed since it was last seen."""
        last = {event.run: event.digest for event in self.events if isinstance(event, SeenRecord)}
        start = self.starts[-1] if self.starts else None
        attempt, number = (start.attempt, start.number) if start else (0, 0)
        seen = self
        for run, record in zip(runs, records, strict=False):
            digest = record_digest(record)
            if last.get(run) != digest or seen._last_record(run) is None:
                ours = run == by_supervisor
                status, stopping = str(record["status"]), start is not None and start.stopping
                seen = seen.with_event(SeenRecord(run, status, digest, at, attempt, number, ours, stopping))
        return seen

    def render(self) -> bytes:
        """The JSON text, one line."""
        return _OBSERVATIONS.dump_json(self)


_OBSERVATIONS = TypeAdapter(Observations)


def parse_observations(data: bytes, source: str) -> Observations:
    """Read what `render` wrote; raises InvalidCheckpoint, naming the source."""
    try:
        return _OBSERVATIONS.validate_json(data)
    except (ValidationError, OverflowError) as error:
        raise InvalidCheckpoint(f"{source} cannot be read as a supervisor's observations", str(error)[:200]) from error


def record_digest(record: Mapping[str, Any]) -> str:
    """SHA-256 over what a record says of its route: equal however a file orders it, indices and unknown keys aside."""
    content = {key: record[key] for key in _RECORDED if key in record}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
