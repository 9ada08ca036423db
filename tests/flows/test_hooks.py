"""What a run's end says to the run that follows."""

import asyncio
from typing import Any

import pytest
from prefect import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Cancelled, Cancelling, Crashed, Failed

import flows.hooks
from evaluation.lifecycle.takeover import Takeover
from flows.evaluate_submission import evaluate_submission
from flows.hooks import start_takeover
from prefect_api.states import DRAINED, StateName
from tests.flows.conftest import World

AFTER_CRASH = {"epoch": 2, "crashes": 1, "stopped": False}
AFTER_CANCELLATION = {"epoch": 2, "crashes": 0, "stopped": True}
AFTER_DRAIN = {"epoch": 2, "crashes": 0, "stopped": False}


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (Crashed(message="its process is gone"), AFTER_CRASH),
        (Failed(message="unforeseen"), AFTER_CRASH),
        (Cancelling(), AFTER_CANCELLATION),  # the state in which Prefect calls the hook
        (Cancelled(), AFTER_CANCELLATION),
        (Crashed(name=DRAINED), AFTER_DRAIN),
        (Failed(name=StateName.BLOCKED), None),
    ],
)
def test_what_a_run_was_ended_by_decides_what_its_takeover_run_does(
    world: World, monkeypatch: pytest.MonkeyPatch, state: State[Any], expected: dict[str, Any] | None
) -> None:
    started: list[Takeover] = []

    async def start(_client: object, _parameters: object, takeover: Takeover, _tags: object) -> None:
        started.append(takeover)

    async def ended_run() -> FlowRun:
        message, _ = world.submitted(7)
        async with get_client() as client:
            run = await client.create_flow_run(evaluate_submission, parameters={"message": message.model_dump()})
        return run.model_copy(update={"deployment_id": run.id})

    async def scenario() -> None:
        await start_takeover(evaluate_submission, await ended_run(), state)

    monkeypatch.setattr(flows.hooks, "start_takeover_run", start)
    asyncio.run(scenario())

    seen = [takeover.model_dump(include={"epoch", "crashes", "stopped"}) for takeover in started]
    assert seen == ([expected] if expected else [])
