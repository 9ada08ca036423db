"""Prefect's engine and server as the simulated world has them (tests/simulation) do what the real ones do."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import pytest
from prefect import Flow, flow, get_client, task
from prefect.client.schemas.objects import FlowRun, State, StateType

from evaluation.errors import NeedsOperator, ServiceUnavailable
from flows.task_retries import on_transient_errors
from prefect_api.runs import BEGUN, in_states, mark_crashed, named_like, read_runs, start_run
from prefect_api.states import StateName, completed_state, failed_state
from tests.simulation.calls import Calls
from tests.simulation.chance import Chance
from tests.simulation.hub import Hub
from tests.simulation.machine import Machine
from tests.simulation.patches import task_engine
from tests.simulation.prefect_client import SimulatedPrefectClient
from tests.simulation.prefect_engine import Engine, run_task
from tests.simulation.prefect_server import Deployment, PrefectServer

calls: list[str] = []
hooked: list[tuple[str, str]] = []


async def note(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    hooked.append((str(state.type.value), str(state.name)))


@task(**on_transient_errors(2, first_delay_seconds=0.01))
async def work(fails: int, kind: str) -> str:
    calls.append("work")
    if len(calls) <= fails:
        raise ServiceUnavailable("away") if kind == "passes" else NeedsOperator("wrong")
    return "done"


@flow(name="as-simulated", on_failure=[note], on_crashed=[note], on_cancellation=[note])
async def example(fails: int = 0, kind: str = "passes", ends: str = "") -> State[Any]:
    said = await work(fails, kind)
    if ends == "raises":
        raise RuntimeError("a bug")
    return failed_state(StateName.BLOCKED, said) if ends == "blocked" else completed_state(None, said)


class World:
    """A simulated server and a machine that asks it, in no time."""

    def __init__(self) -> None:
        self.hub = Hub()
        chance = Chance(1, only=frozenset())
        self.server = PrefectServer(self.hub, chance)
        self.server.deployments = [Deployment("as-simulated/one", example, "pool")]
        self.client = SimulatedPrefectClient(Calls(self.hub, chance, self), self.server)
        self.machine = Machine(self.hub, "machine")

    def note(self, text: str) -> None:
        """As the history of a simulated world."""

    def run(self, coroutine: Awaitable[Any]) -> Any:
        done = self.machine.start(coroutine)
        self.hub.run(3600, done.done)
        return done.result()


def run_simulated(**parameters: Any) -> State[Any]:
    world = World()
    run = world.server.create_run(world.server.deployments[0], parameters, "run", world.server.now())
    with task_engine(lambda task, args, kwargs: run_task(task, args, kwargs, lambda: 0.5)):
        world.run(Engine(world.client, world.server).execute(run))
    assert run.state is not None
    return run.state


def run_real(**parameters: Any) -> State[Any]:
    return asyncio.run(example(**parameters, return_state=True))


@pytest.fixture(params=[run_real, run_simulated], ids=["real", "simulated"])
def run(request: pytest.FixtureRequest) -> Callable[..., State[Any]]:
    calls.clear()
    hooked.clear()
    made: Callable[..., State[Any]] = request.param
    return made


@pytest.mark.parametrize(
    ("parameters", "tries", "state", "hooks"),
    [
        ({"fails": 2}, 3, ("COMPLETED", "Completed"), []),
        ({"fails": 3}, 3, ("FAILED", "Failed"), [("FAILED", "Failed")]),
        ({"fails": 1, "kind": "lasts"}, 1, ("FAILED", "Failed"), [("FAILED", "Failed")]),
        ({"ends": "raises"}, 1, ("FAILED", "Failed"), [("FAILED", "Failed")]),
        ({"ends": "blocked"}, 1, ("FAILED", "Blocked"), [("FAILED", "Blocked")]),
    ],
    ids=["passes in time", "passes too late", "does not pass", "raises", "returns a failed state"],
)
def test_tasks_are_tried_again_runs_end_and_hooks_are_called(
    run: Callable[..., State[Any]],
    parameters: dict[str, Any],
    tries: int,
    state: tuple[str, str],
    hooks: list[tuple[str, str]],
) -> None:
    ended = run(**parameters)

    assert len(calls) == tries
    assert (ended.type.value, ended.name) == state
    assert hooked == hooks


async def _with_real(scenario: Callable[[Any], Awaitable[None]]) -> None:
    async with get_client() as client:
        flow_id = await client.create_flow(example)
        await client.create_deployment(flow_id, "one")
        await scenario(client)


def with_real(scenario: Callable[[Any], Awaitable[None]]) -> None:
    asyncio.run(_with_real(scenario))


def with_simulated(scenario: Callable[[Any], Awaitable[None]]) -> None:
    world = World()
    world.run(scenario(world.client))


@pytest.mark.parametrize("against", [with_real, with_simulated], ids=["real", "simulated"])
def test_runs_are_started_once_for_a_key_found_and_marked(against: Callable[..., None]) -> None:
    async def scenario(client: Any) -> None:
        name = f"run-{uuid4().hex[:8]}"
        first = await start_run(client, "as-simulated/one", {"ends": ""}, name, "a key of the test")
        again = await start_run(client, "as-simulated/one", {"ends": ""}, "another", "a key of the test")
        assert (first.id, first.state_type) == (again.id, StateType.SCHEDULED)

        found = await read_runs(client, "as-simulated", named_like(name))
        assert [run.id for run in found] == [first.id]
        assert await read_runs(client, "as-simulated", in_states(BEGUN)) == []

        await mark_crashed(client, first.id, "not begun, so nothing happens")
        assert (await client.read_flow_run(first.id)).state_type is StateType.SCHEDULED
        await mark_crashed(client, UUID(int=0), "unknown, so nothing happens")

    against(scenario)
