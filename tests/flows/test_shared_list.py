"""Runs that learn of their submissions from EvalAI's list for all, on a real Prefect server."""

import asyncio

import pytest
from prefect.client.schemas.objects import State

from evaluation.errors import ServiceUnavailable
from evaluation.submission.message import SubmissionMessage
from evaluation.submission.model import SubmissionStatus
from flows.evalai_list import SharedList
from flows.evaluate_submission import evaluate_submission
from flows.services import Services
from tests.fakes import FakeDocument
from tests.flows.conftest import World
from tests.waiting import eventually_in_loop


@pytest.fixture(autouse=True)
def shared(world: World, monkeypatch: pytest.MonkeyPatch) -> FakeDocument:
    """The row that the lists of all processes share."""
    document = FakeDocument()

    async def load_services() -> Services:
        listed = SharedList(document, world.evalai, 1)
        return Services(world.evalai, world.phases, world.queue, listed=listed)

    monkeypatch.setattr("flows.evaluate_submission.load_services", load_services)
    return document


def run(message: SubmissionMessage) -> State[None]:
    return asyncio.run(evaluate_submission(message, return_state=True))


def test_a_run_asks_for_the_list_and_for_nothing_of_its_own(world: World) -> None:
    message, _ = world.submitted(7)

    state = run(message)

    assert state.is_completed()
    assert "look" not in world.evalai.requests
    assert world.evalai.requests[0] == "list"
    assert world.ledger.rows[7]["status"] == "finished"


def test_a_cancellation_in_the_list_reaches_the_run(world: World) -> None:
    message, _ = world.submitted(7)
    world.backend.runs_for_ever = True

    async def cancel_while_it_runs() -> State[None]:
        running = asyncio.create_task(evaluate_submission(message, return_state=True))
        await eventually_in_loop(lambda: len(world.backend.created) == 4)
        await eventually_in_loop(lambda: world.evalai.statuses[7] is SubmissionStatus.RUNNING)
        world.evalai.statuses[7] = SubmissionStatus.CANCELLED
        return await running

    state = asyncio.run(cancel_while_it_runs())

    assert (state.name, world.backend.removed) == ("TakenBack", [(7, 1)])
    assert "look" not in world.evalai.requests


def test_a_cancellation_that_is_in_the_list_stops_before_the_launch(world: World) -> None:
    message, _ = world.submitted(7)
    world.evalai.statuses[7] = SubmissionStatus.CANCELLED

    state = run(message)

    assert (state.name, world.backend.created, world.evalai.requests) == ("TakenBack", [], ["list"])


def test_without_the_list_the_run_asks_for_itself(world: World, shared: FakeDocument) -> None:
    def away() -> None:
        raise ServiceUnavailable("DynamoDB does not answer")

    shared.read = away  # type: ignore[assignment,method-assign]
    message, _ = world.submitted(7)

    state = run(message)

    assert state.is_completed()
    assert world.evalai.requests[0] == "look"
