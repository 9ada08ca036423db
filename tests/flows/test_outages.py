"""Outages of AWS, the cluster or EvalAI that outlast the retries: nothing fails or is lost, the next run continues."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from prefect.client.schemas.objects import State

from evaluation.errors import ServiceUnavailable
from evaluation.lifecycle.stages import Stage
from evaluation.lifecycle.takeover import Takeover
from evaluation.ports import Claim
from evaluation.submission.message import Delivery, SubmissionMessage
from evaluation.submission.model import SubmissionStatus
from flows.evaluate_submission import evaluate_submission
from tests.flows.conftest import World
from tests.waiting import eventually_in_loop

TASKS = (
    *(f"flows.intake.{name}" for name in ("extend_visibility", "enrich", "choose_cluster")),
    *(f"flows.intake.{name}" for name in ("claim_submission", "acknowledge")),
    *(f"flows.simulation.{name}" for name in ("plan_shards", "mark_running", "launch_shards")),
    *(f"flows.simulation.{name}" for name in ("watch_shards", "remove_jobs")),
    *(f"flows.reporting.{name}" for name in ("merge_results", "keep_outcome", "send_report", "record")),
)


@dataclass
class Outage:
    """Calls of a method, those whose arguments are `meant`, fail as long as it lasts."""

    meant: Callable[..., bool] = lambda *_: True
    lasts: bool = True
    calls: int = field(default=0)

    def hit(self, owner: object, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
        works = getattr(owner, method)

        def sometimes(*arguments: Any) -> Any:
            if self.lasts and self.meant(*arguments):
                self.calls += 1
                raise ServiceUnavailable(f"{type(owner).__name__}.{method} does not answer")
            return works(*arguments)

        monkeypatch.setattr(owner, method, sometimes)


def run(message: SubmissionMessage, delivery: Delivery | None = None, takeover: Takeover | None = None) -> State[None]:
    return asyncio.run(evaluate_submission(message, delivery, takeover, return_state=True))


def takeover_run(world: World, message: SubmissionMessage) -> State[None]:
    return run(message, None, Takeover(owner=str(world.ledger.rows[7]["claim-owner"]), epoch=2))


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """One retry of every task, at once: the outages here outlast them all."""
    for task in TASKS:
        monkeypatch.setattr(f"{task}.retries", 1)
        monkeypatch.setattr(f"{task}.retry_delay_seconds", 0.01)


def enters(stage: Stage) -> Callable[..., bool]:
    return lambda _claim, entered=None: entered is stage


def ends(_: Claim, values: dict[str, object]) -> bool:
    return "end-time" in values


def keeps(_: Claim, values: dict[str, object]) -> bool:
    return "outcome" in values


AFTER_THE_CLAIM = {  # where -> whose method, which of its calls, how many Jobs are left for the next run
    "S3, planning": ("store", "read", lambda key: key.endswith("plan.json"), 0),
    "DynamoDB, marking": ("ledger", "update", lambda _, values: values.get("status") == "running", 0),
    "the cluster, launching": ("backend", "ensure", lambda *_: True, 0),
    "DynamoDB, following": ("ledger", "renew", enters(Stage.SIMULATING), 4),
    "the cluster, following": ("backend", "watch", lambda *_: True, 4),
    "the cluster, removing": ("backend", "remove", lambda *_: True, 4),
    "S3, merging": ("store", "read", lambda key: key.endswith("checkpoint.json"), 0),
    "S3, keeping": ("store", "write", lambda key, *_: "outcome" in key, 0),
    "DynamoDB, keeping": ("ledger", "update", keeps, 0),
    "DynamoDB, recording": ("ledger", "update", ends, 0),
}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("where", AFTER_THE_CLAIM)
def test_an_outage_after_the_claim_interrupts_and_the_next_run_ends_it_as_if_nothing_had_been(
    world: World, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    part, method, meant, jobs_left = AFTER_THE_CLAIM[where]
    outage = Outage(meant)
    outage.hit(getattr(world, part), method, monkeypatch)
    message, delivery = world.submitted(7)

    interrupted = run(message, delivery)
    reports, row, jobs = list(world.evalai.reports), dict(world.ledger.rows[7]), len(world.backend.jobs)
    outage.lasts = False
    finished = takeover_run(world, message)

    assert (interrupted.name, interrupted.is_failed()) == ("Interrupted", True)
    assert f".{method} does not answer" in (interrupted.message or "")
    assert (outage.calls >= 2, jobs) == (True, jobs_left)  # the try and its one retry
    assert SubmissionStatus.FAILED not in [report.status for report in reports]
    assert (row.get("end-time"), row.get("status") == "failed") == (None, False)
    assert finished.is_completed()
    assert {report.status for report in world.evalai.reports} == {SubmissionStatus.FINISHED}
    assert (world.ledger.rows[7]["status"], world.ledger.rows[7]["attempt"]) == ("finished", 1)
    assert world.ledger.rows[7]["end-time"]
    assert len(set(world.backend.created)) == 4
    assert world.backend.jobs == {}


@pytest.mark.usefixtures("impatient")
def test_an_evalai_that_does_not_show_a_submission_as_running_holds_up_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    Outage().hit(world.evalai, "mark_running", monkeypatch)

    state = run(*world.submitted(7))

    assert state.is_completed()
    assert [report.status for report in world.evalai.reports][-1:] == [SubmissionStatus.FINISHED]


BEFORE_THE_CLAIM = {
    "the queue": ("queue", "extend"),
    "EvalAI": ("evalai", "submission"),
    "DynamoDB": ("ledger", "claim"),
}


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("where", BEFORE_THE_CLAIM)
def test_an_outage_before_the_claim_leaves_everything_to_the_message(
    world: World, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    part, method = BEFORE_THE_CLAIM[where]
    outage = Outage()
    outage.hit(getattr(world, part), method, monkeypatch)
    message, delivery = world.submitted(7)

    postponed = run(message, delivery)
    assert (postponed.name, world.queue.deleted, world.queue.dead) == ("Postponed", [], [])
    assert (world.ledger.rows, world.evalai.reports) == ({}, [])

    outage.lasts = False
    assert run(message, delivery).is_completed()
    assert world.queue.deleted == [delivery]


@pytest.mark.usefixtures("impatient")
def test_what_evalai_could_not_be_told_for_an_hour_is_kept_and_told_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    outage = Outage()
    outage.hit(world.evalai, "report", monkeypatch)
    message, delivery = world.submitted(7)

    undelivered = run(message, delivery)
    kept = dict(world.ledger.rows[7])
    outage.lasts = False
    shown = takeover_run(world, message)

    assert (undelivered.name, outage.calls) == ("Undelivered", 2)
    assert (kept["status"], kept["Driving score"], kept.get("end-time")) == ("finished", 50.0, None)
    assert str(kept["outcome"]) in world.store.objects
    assert shown.is_completed()
    [report] = world.evalai.reports
    assert report.result[0]["accuracies"]["Driving score"] == 50.0  # type: ignore[index]
    assert len(world.backend.created) == 4
    assert (world.ledger.rows[7].get("undelivered"), bool(world.ledger.rows[7]["end-time"])) == (None, True)


def test_a_run_goes_on_while_its_claim_cannot_be_renewed(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    throttled = Outage(lambda _claim, stage=None: stage is None)
    throttled.hit(world.ledger, "renew", monkeypatch)
    world.ledger.lease_seconds = 1
    world.backend.runs_for_ever = True
    message, delivery = world.submitted(7)

    async def until_noticed() -> State[None]:
        task = asyncio.create_task(evaluate_submission(message, delivery, return_state=True))
        await eventually_in_loop(lambda: throttled.calls >= 3)
        throttled.lasts = False
        world.backend.runs_for_ever = False
        return await task

    state = asyncio.run(until_noticed())

    assert state.is_completed()
    assert "The claim cannot be renewed now: FakeLedger.renew does not answer" in caplog.text


def test_evalai_and_s3_may_be_away_while_the_shards_drive(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.backend.runs_for_ever = True
    message, delivery = world.submitted(7)
    asked, shown = Outage(), Outage(lambda key: key.endswith("progress.json"))

    async def until_noticed() -> State[None]:
        task = asyncio.create_task(evaluate_submission(message, delivery, return_state=True))
        await eventually_in_loop(lambda: world.backend.created)
        asked.hit(world.evalai, "status", monkeypatch)
        shown.hit(world.store, "read", monkeypatch)
        await eventually_in_loop(lambda: asked.calls >= 3 and shown.calls >= 3)
        asked.lasts = shown.lasts = False
        world.backend.runs_for_ever = False
        return await task

    assert asyncio.run(until_noticed()).is_completed()
    assert [report.status for report in world.evalai.reports] == [SubmissionStatus.FINISHED]
