"""The servers that keep the rules of `EvaluationServer`, and what a test does there from outside."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

import pytest

from evaluation.ports import EvaluationServer
from evaluation.submission.model import SubmissionStatus
from tests.contract.evalai_world import World, world_config
from tests.fake_evalai import FakeEvalAI
from tests.simulation.calls import CallsAtOnce
from tests.simulation.evalai_server import EvalAIServer

SERVERS = ("client", "in memory", "simulated")
PHASE_PK, CHALLENGE_PK, TEAM_NAME = 3, 1, "Team 1"


class Harness(Protocol):
    """An EvalAI with one challenge and submissions of one team to one phase."""

    server: EvaluationServer

    def add(self, status: SubmissionStatus = SubmissionStatus.SUBMITTED, age: timedelta = timedelta()) -> int:
        """The id of a new submission, which was submitted so long ago."""

    def delete(self, pk: int) -> None:
        """As its team does: EvalAI flags the row."""

    def remove(self, pk: int) -> None:
        """As an administrator does: the row is gone."""

    def garble(self, pk: int) -> None:
        """Let the list show something of the row that makes no sense."""

    def shown(self, pk: int) -> tuple[object, ...]:
        """What people see of it: its status, and all that was written."""


@dataclass
class ClientHarness:
    """The client, and the stand-in server that it asks over HTTP."""

    world: World
    server: EvaluationServer = field(init=False)

    def __post_init__(self) -> None:
        self.server = self.world.client()

    def add(self, status: SubmissionStatus = SubmissionStatus.SUBMITTED, age: timedelta = timedelta()) -> int:
        row = self.world.add(status, phase=PHASE_PK)
        row.submitted_at -= age
        return row.pk

    def delete(self, pk: int) -> None:
        self.world.state.submissions[pk].deleted = True

    def remove(self, pk: int) -> None:
        del self.world.state.submissions[pk]

    def garble(self, pk: int) -> None:
        self.world.state.submissions[pk].phase = "odd"  # type: ignore[assignment] - on purpose

    def shown(self, pk: int) -> tuple[object, ...]:
        state = self.world.state
        row = state.submissions[pk]
        files = [state.media[str(file)] for file in (row.stdout_file, row.stderr_file) if file]
        return row.status, tuple(row.job_name), row.started_at, row.completed_at, tuple(files), tuple(state.entries)


@dataclass
class MemoryHarness:
    """The fake that the flows' tests use."""

    server: FakeEvalAI = field(default_factory=lambda: FakeEvalAI(team_name=TEAM_NAME))

    def add(self, status: SubmissionStatus = SubmissionStatus.SUBMITTED, age: timedelta = timedelta()) -> int:
        pk = len(self.server.statuses) + 1
        self.server.statuses[pk] = status
        self.server.phases[pk] = PHASE_PK
        self.server.since[pk] = datetime.now(UTC) - age
        return pk

    def delete(self, pk: int) -> None:
        self.server.deleted.add(pk)

    def remove(self, pk: int) -> None:
        del self.server.statuses[pk]

    def garble(self, pk: int) -> None:
        del self.server.statuses[pk]
        self.server.unreadable.append(f"EvalAI's answer about submission {pk} cannot be read: its phase is odd")

    def shown(self, pk: int) -> tuple[object, ...]:
        return self.server.statuses[pk], tuple(self.server.reports), tuple(self.server.partial_reports)


def evalai_harness(request: pytest.FixtureRequest) -> Harness:
    """For a fixture with `params=SERVERS`: each server in turn."""
    if request.param == "in memory":
        return MemoryHarness()
    if request.param == "simulated":
        server = EvalAIServer(CallsAtOnce(), lambda _: None, config=world_config())  # type: ignore[arg-type]
        request.getfixturevalue("monkeypatch").setattr("evalai_api.http.exchange", server.exchange)
        return ClientHarness(World("https://evalai.example", server.state, []))
    standin: Callable[[], World] = request.getfixturevalue("evalai_standin")
    return ClientHarness(standin())
