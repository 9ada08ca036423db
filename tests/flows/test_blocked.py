"""What no message is to blame for: messages stay on the queue, nothing is taken over, and the run says why."""

import asyncio
from typing import Any

import pytest
from prefect.client.schemas.objects import State

from evaluation.errors import InvalidConfiguration, RequestRefused, ServiceUnavailable
from evaluation.lifecycle.takeover import Takeover
from evaluation.submission.message import SubmissionMessage
from evaluation.submission.model import SubmissionStatus
from flows.evaluate_submission import evaluate_submission
from tests.flows.conftest import World


def run(*parameters: Any) -> State[None]:
    return asyncio.run(evaluate_submission(*parameters, return_state=True))


def refuse(*_: object) -> None:
    raise InvalidConfiguration("Claiming failed", "AccessDeniedException", "Check the role's policy.")


async def no_block(*_: object) -> None:
    raise InvalidConfiguration("The block evalai/evalai cannot be loaded", "there is none", "Run `leaderboard setup`.")


def break_something(world: World, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    match what:
        case "the token has expired":
            world.evalai.trouble = [InvalidConfiguration("EvalAI does not accept the token", "401", "Renew the token.")]
        case "EvalAI's answer cannot be read":
            world.evalai.trouble = [RequestRefused("EvalAI's answer about submission 7 cannot be read", "a page")]
        case "the ledger forbids it":
            monkeypatch.setattr(world.ledger, "claim", refuse)
        case "the phase is not in the secret":
            world.phases.codenames = {}
        case "the services' blocks are missing":
            monkeypatch.setattr("flows.evaluate_submission.load_services", no_block)
        case "the cluster's blocks are missing":
            monkeypatch.setattr("flows.intake.load_cluster", no_block)


BEFORE_THE_CLAIM = (
    "the token has expired", "EvalAI's answer cannot be read", "the ledger forbids it",
    "the phase is not in the secret", "the services' blocks are missing", "the cluster's blocks are missing",
)  # fmt: skip


@pytest.mark.parametrize("what", BEFORE_THE_CLAIM)
def test_before_the_claim_the_message_stays_and_is_evaluated_once_it_is_corrected(
    world: World, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    message, delivery = world.submitted(7)
    with monkeypatch.context() as broken:
        break_something(world, what, broken)
        blocked = run(message, delivery)
    world.phases.codenames = {1: "leaderboard-20-SENSORS"}

    assert (blocked.name, blocked.is_failed()) == ("Blocked", True)
    assert (world.queue.deleted, world.queue.dead) == ([], [])
    assert (world.ledger.rows, world.evalai.reports) == ({}, [])
    assert world.queue.hidden_seconds[-1:] == ([] if "services" in what else [3600])
    assert run(message, delivery).is_completed()
    assert world.queue.deleted == [delivery]


def test_a_message_that_cannot_be_rejected_now_comes_back(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise ServiceUnavailable("SQS does not answer")

    monkeypatch.setattr(world.queue, "reject", away)
    monkeypatch.setattr("flows.intake.reject_message.retries", 0)
    _, delivery = world.submitted(7)

    state = run(SubmissionMessage(challenge_pk=1, phase_pk=1, submission_pk=404), delivery)

    assert (state.name, world.queue.deleted) == ("Postponed", [])


def test_a_claimed_submission_is_evaluated_though_its_message_cannot_be_deleted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.queue, "acknowledge", refuse)

    state = run(*world.submitted(7))

    assert (state.is_completed(), world.queue.dead) == (True, [])


@pytest.mark.parametrize("status", ["queued", "running", "partially_evaluated"])
def test_what_evalai_shows_as_under_way_and_nobody_here_claimed_is_evaluated(world: World, status: str) -> None:
    world.evalai.statuses[7] = SubmissionStatus(status)

    state = run(*world.submitted(7))

    assert state.is_completed()
    assert world.evalai.statuses[7] is SubmissionStatus.FINISHED


def test_a_kept_outcome_that_somebody_has_damaged_is_decided_again(world: World) -> None:
    message, delivery = world.submitted(7)
    world.evalai.refuses_reports = RequestRefused("EvalAI refused the result", "unknown metric")
    run(message, delivery)
    world.store.objects[str(world.ledger.rows[7]["outcome"])] = b'{"ending": "finis'
    world.evalai.refuses_reports = None

    state = run(message, None, Takeover(owner=str(world.ledger.rows[7]["claim-owner"]), epoch=2))

    assert state.is_completed()
