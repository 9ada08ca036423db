"""Prefect's engine for one flow run, and its worker: what they do to states, retries, hooks, and a run that dies.

The flow functions and tasks are the product's own. tests/flows/test_as_simulated.py holds this to the real engine.
"""

import asyncio
import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
from prefect import Flow, Task
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.context import FlowRunContext
from prefect.states import Completed, Crashed, Failed, Running

from tests.simulation.machine import Machine
from tests.simulation.prefect_client import SimulatedPrefectClient
from tests.simulation.prefect_server import FINAL, PrefectServer

POLL_SECONDS = 10.0


@dataclass
class _Raised:
    """A failed state, as a retry condition reads it."""

    error: Exception

    async def aresult(self, raise_on_failure: bool = True) -> Exception:
        return self.error


async def run_task(
    task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], jitter: Callable[[], float]
) -> Any:
    """As prefect.task_engine: the body again, as often and after as long as the task's options say."""
    attempt = 0
    while True:
        try:
            return await task.fn(*args, **kwargs)
        except Exception as error:
            condition = task.retry_condition_fn
            if attempt >= task.retries or (condition and not await condition(task, None, _Raised(error))):  # type: ignore[arg-type]
                raise
        delays = task.retry_delay_seconds
        delay = delays[min(attempt, len(delays) - 1)] if isinstance(delays, list) and delays else delays or 0
        factor = task.retry_jitter_factor or 0
        attempt += 1
        await asyncio.sleep(float(delay) * (1 + factor * (2 * jitter() - 1)))  # type: ignore[arg-type]


@dataclass
class Engine:
    """Runs flow runs in one process."""

    client: SimulatedPrefectClient
    server: PrefectServer
    executing: set[str] = field(default_factory=set)  # ids of the runs whose code runs

    async def execute(self, run: FlowRun) -> None:
        """From pending to the end that the server knows; raises what ends the process of the run."""
        flow = self.server.of_run(run).flow
        given = flow.validate_parameters(run.parameters)
        template = flow.flow_run_name
        name = template.format(**given) if isinstance(template, str) else None
        await self.client.update_flow_run(run.id, name=name)
        run.name = name or run.name
        for attempt in range((flow.retries or 0) + 1):
            if not await self.client.set_flow_run_state(run.id, Running()):
                return
            state = await self._call(flow, run, given)
            last = attempt == (flow.retries or 0)
            if state.type is not StateType.FAILED or last:
                break
            await asyncio.sleep(float(flow.retry_delay_seconds or 0))  # type: ignore[arg-type]
        if await self.client.set_flow_run_state(run.id, state):
            await self.hooks(run, state)

    async def _call(self, flow: Flow[..., Any], run: FlowRun, given: dict[str, Any]) -> State[Any]:
        context = FlowRunContext.model_construct(flow=flow, flow_run=run, parameters=given)
        FlowRunContext.__var__.set(context)
        self.executing.add(str(run.id))
        try:
            async with asyncio.timeout(flow.timeout_seconds):
                result = await flow.fn(**given)
        except Exception as error:  # noqa: BLE001 - as the real engine does
            return Failed(message=f"Flow run encountered an exception: {type(error).__name__}: {error}")
        finally:
            self.executing.discard(str(run.id))
        return result if isinstance(result, State) else Completed()

    async def hooks(self, run: FlowRun, state: State[Any]) -> None:
        """A hook that raises is only logged."""
        flow = self.server.of_run(run).flow
        hooks = {
            StateType.FAILED: flow.on_failure_hooks,
            StateType.CRASHED: flow.on_crashed_hooks,
            StateType.CANCELLING: flow.on_cancellation_hooks,
        }.get(state.type, [])
        ended = copy.copy(run)
        ended.state, ended.state_type, ended.state_name = state, state.type, state.name
        for hook in hooks or ():
            try:
                await hook(flow, ended, state)  # type: ignore[misc]
            except Exception:  # noqa: BLE001, S112
                continue

    async def report_death(self, run: FlowRun, message: str, name: str = "Crashed") -> None:
        """What a worker does about a run whose process has ended without an end of its own."""
        now = await self.client.read_flow_run(run.id)
        if now.state is None or now.state.type in FINAL:
            return
        cancelled = now.state.type is StateType.CANCELLING
        if cancelled:
            from prefect.states import Cancelled

            await self.hooks(run, now.state)
            await self.client.set_flow_run_state(run.id, Cancelled(message=message), force=True)
            return
        state: State[Any] = Crashed(name=name, message=message)
        await self.client.set_flow_run_state(run.id, state, force=True)
        await self.hooks(run, state)


@dataclass
class Worker:
    """Polls one work pool. `process`: each run has a machine of its own, which `new_process` makes; else they share."""

    machine: Machine
    pool: str
    client: SimulatedPrefectClient
    server: PrefectServer
    new_process: Callable[[FlowRun], Machine] | None = None
    began: dict[str, list[FlowRun]] = field(default_factory=dict)  # machine -> runs; outlives it, as its disk does
    most: int = 100
    executing: set[str] = field(default_factory=set)
    _running: dict[Any, Callable[[], object]] = field(default_factory=dict)  # run's id -> what ends it
    _tasks: set[Any] = field(default_factory=set)

    async def work(self) -> None:
        engine = Engine(self.client, self.server, self.executing)
        mine = self.began.setdefault(self.machine.name, [])
        left, mine[:] = list(mine), []
        for run in left:  # of the process before this one, on the same machine
            self._task(self._report(engine, run, "The worker's process has died."))
        while True:
            try:
                for run in await self.client.take_due(self.pool, self.most - len(self._running)):
                    self._begin(engine, run)
                if self._running:
                    for run_id in await self.client.being_cancelled(list(self._running)):
                        if end := self._running.get(run_id):
                            end()
            except (httpx.HTTPError, OSError):
                pass
            await asyncio.sleep(POLL_SECONDS)

    def _task(self, coroutine: Any) -> Any:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def _begin(self, engine: Engine, run: FlowRun) -> None:
        if self.new_process is None:
            self.began[self.machine.name].append(run)
            self._running[run.id] = self._task(self._run(engine, run)).cancel
            return
        process = self.new_process(run)
        self._running[run.id] = process.kill
        ended = self.machine.loop.create_future()
        process.on_death.append(lambda: None if ended.done() else self._tell(ended))
        child = process.start(engine.execute(run))
        child.add_done_callback(lambda _: process.kill())
        self._task(self._watch(engine, run, ended))

    def _tell(self, ended: Any) -> None:
        loop = self.machine.loop
        loop.call_soon(lambda: None if ended.done() else ended.set_result(None))

    async def _watch(self, engine: Engine, run: FlowRun, ended: Any) -> None:
        try:
            await ended
            await self._report(engine, run, "Flow run process exited with non-zero status code.")
        finally:
            self._running.pop(run.id, None)

    async def _run(self, engine: Engine, run: FlowRun) -> None:
        try:
            await engine.execute(run)
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - Prefect does not answer, or it was ended
            await self._report(engine, run, f"{type(error).__name__}: {error}")
        finally:
            self._running.pop(run.id, None)
        mine = self.began[self.machine.name]
        mine[:] = [each for each in mine if each.id != run.id]

    async def _report(self, engine: Engine, run: FlowRun, message: str) -> None:
        try:
            await engine.report_death(run, message)
        except (httpx.HTTPError, OSError):
            return  # the reconciler finds it
