"""Whatever decoration raises, the shards drive on and the fault stays with whom it belongs to."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from prefect.client.schemas.objects import State

from evaluation import storage_keys
from evaluation.errors import RequestRefused, UnknownSubmission
from evaluation.shards import ShardJob, ShardState, ShardStatus, ShardStatuses
from evaluation.submission.model import SubmissionStatus
from flows.evaluate_submission import evaluate_submission
from tests.fakes import AGENT_CRASHED, checkpoint_of
from tests.flows.conftest import World


class BrokenError(Exception):
    """Not even its text can be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


class Broken:
    """Stands in for a function, fails at each call and counts them."""

    def __init__(self, error: Exception) -> None:
        self.error = error
        self.calls = 0

    def __call__(self, *_: Any, **__: Any) -> Any:
        self.calls += 1
        raise self.error


def drive_until(world: World, enough: Callable[[], bool]) -> State[None]:
    """Submission 7, whose shards have driven 8 of 20 routes until `enough`, and all 20 then."""

    async def watch(jobs: Sequence[ShardJob]) -> AsyncIterator[ShardStatuses]:
        def put(done: int | None) -> None:
            for job in jobs:
                world.backend.put(job, checkpoint_of(job, done))

        put(2)
        yield {job.shard.index: ShardStatus(job.shard.index, ShardState.DRIVING) for job in jobs}
        while not enough():
            await asyncio.sleep(0.02)
        put(None)
        yield {job.shard.index: ShardStatus(job.shard.index, ShardState.FINISHED) for job in jobs}

    world.backend.watch = watch  # type: ignore[method-assign]
    message, delivery = world.submitted(7)
    return asyncio.run(evaluate_submission(message, delivery, return_state=True))


REFUSED = RequestRefused("EvalAI refused the request", "400: a metric is missing in the leaderboard's data")
DECORATION = {  # what -> where it is broken, with what, and the warning
    "a partial result is refused": ("evalai", "report_partial", REFUSED, "Partial results are not published now"),
    "a gateway answers the poll": ("evalai", "status", REFUSED, "EvalAI was not asked for a cancellation"),
    "the poll breaks": ("evalai", "status", BrokenError(), "EvalAI was not asked for a cancellation: BrokenError"),
}


@pytest.mark.parametrize("what", DECORATION)
def test_a_broken_poll_or_partial_result_is_a_warning_and_every_route_is_driven(
    world: World, monkeypatch: pytest.MonkeyPatch, run_log: pytest.LogCaptureFixture, what: str
) -> None:
    part, method, error, warning = DECORATION[what]
    broken = Broken(error)
    monkeypatch.setattr(getattr(world, part), method, broken)

    state = drive_until(world, lambda: broken.calls >= 2)

    assert state.is_completed()
    assert world.ledger.rows[7]["routes-done"] == 20
    assert warning in run_log.text


ARTIFACTS = ("acreate_progress_artifact", "acreate_table_artifact", "acreate_markdown_artifact", "get_client")


@pytest.mark.parametrize("function", ARTIFACTS)
def test_what_prefect_cannot_show_stops_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, run_log: pytest.LogCaptureFixture, function: str
) -> None:
    broken = Broken(ValueError("a text that no table can store"))
    monkeypatch.setattr(f"flows.progress_display.{function}", broken)

    state = drive_until(world, lambda: True)

    assert (state.is_completed(), broken.calls >= 1) == (True, True)
    assert "a text that no table can store" in run_log.text


def test_progress_and_summary_that_cannot_be_read_leave_the_score(
    world: World, monkeypatch: pytest.MonkeyPatch, run_log: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("flows.simulation.parse_progress", Broken(RecursionError()))
    monkeypatch.setattr("flows.reporting.summary_text", Broken(KeyError("meta")))
    world.store.write(storage_keys.progress_key(7, 0), b"{}", "application/json")

    state = drive_until(world, lambda: True)

    assert state.is_completed()
    assert world.evalai.reports[0].result[0]["accuracies"]["Driving score"] == 50.0  # type: ignore[index]
    assert "The shards' progress cannot be read now: RecursionError" in run_log.text
    assert "The summary is left out: 'meta'" in run_log.text


def test_a_log_that_is_no_utf_8_leaves_the_fault_with_the_team(world: World, run_log: pytest.LogCaptureFixture) -> None:
    async def logs(job: ShardJob, lines: int) -> dict[str, str]:
        return {"agent": "Erreur: mémoire".encode("latin-1").decode()}  # as an HTTP client decodes a body

    world.backend.endings = {0: AGENT_CRASHED}
    world.backend.logs = logs  # type: ignore[method-assign, assignment]

    state = asyncio.run(evaluate_submission(*world.submitted(7), return_state=True))

    assert state.name == "AgentFailed"
    [report] = world.evalai.reports
    assert "The agent crashed" in report.stderr
    assert world.ledger.rows[7]["fault"] == "team"
    assert "The last lines of shard 0 are left out" in run_log.text


def test_texts_that_nobody_can_store_are_replaced(world: World) -> None:
    async def logs(job: ShardJob, lines: int) -> dict[str, str]:
        return {"agent": "half \ud800, nothing \x00"}

    world.evalai.team_name = "Team \ud800\x00"
    world.backend.endings = {0: AGENT_CRASHED}
    world.backend.logs = logs  # type: ignore[method-assign, assignment]

    state = asyncio.run(evaluate_submission(*world.submitted(7), return_state=True))

    assert state.name == "AgentFailed"
    assert "half �, nothing �" in world.evalai.reports[0].stderr


def test_a_single_404_stops_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    answers: list[str] = []

    def sometimes(submission: int) -> SubmissionStatus:
        answers.append("404" if len(answers) % 2 == 0 else "running")
        if answers[-1] == "404":
            raise UnknownSubmission("EvalAI does not know submission 7")
        return SubmissionStatus.RUNNING

    monkeypatch.setattr(world.evalai, "status", sometimes)

    state = drive_until(world, lambda: len(answers) >= 7)

    assert state.is_completed()


def test_a_submission_that_was_deleted_at_evalai_is_stopped_and_not_reported(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = Broken(UnknownSubmission("EvalAI does not know submission 7"))
    monkeypatch.setattr(world.evalai, "status", gone)

    state = drive_until(world, lambda: False)

    assert (state.name, state.is_cancelled()) == ("TakenBack", True)
    assert "it was deleted there" in (state.message or "")
    assert (gone.calls, world.evalai.reports) == (3, [])
    assert world.backend.removed == [(7, 1)]
    assert world.ledger.rows[7]["status"] == "cancelled"
    assert world.ledger.rows[7]["end-time"]


@pytest.mark.parametrize("method", ["mark_running", "report"])
def test_a_deletion_that_a_write_meets_ends_the_evaluation_once(
    world: World, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    gone = Broken(UnknownSubmission("EvalAI does not know submission 7"))

    def deleted(*_: object) -> None:
        monkeypatch.setattr(world.evalai, "status", gone)
        gone()

    monkeypatch.setattr(world.evalai, method, deleted)
    world.backend.runs_for_ever = method == "mark_running"  # which is done beside the shards

    state = asyncio.run(evaluate_submission(*world.submitted(7), return_state=True))

    assert state.name == "TakenBack"
    assert (world.ledger.rows[7]["status"], bool(world.ledger.rows[7]["end-time"])) == ("cancelled", True)
