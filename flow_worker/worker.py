"""The worker type `in-process`: `prefect worker start --pool POOL --type in-process`.

Flow runs are tasks of the worker's event loop, which share its Prefect client, its connections and its imports. A
flow has to be `async def`, deployed by an entrypoint `module.function`, and leave what blocks to threads
(`asyncio.to_thread`, of which the worker keeps THREADS).
"""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar
from uuid import UUID

from anyio.abc import TaskStatus
from prefect._internal.observers import FlowRunCancellingObserver
from prefect.client.schemas.objects import FlowRun
from prefect.context import AsyncClientContext, SettingsContext, SyncClientContext
from prefect.events.filters import EventAnyResourceFilter, EventFilter, EventNameFilter
from prefect.exceptions import ObjectNotFound, PrefectSignal
from prefect.settings import PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED, temporary_settings
from prefect.states import Scheduled
from prefect.utilities.callables import get_call_parameters, parameters_to_args_kwargs
from prefect.workers.base import BaseJobConfiguration, BaseVariables, BaseWorker, BaseWorkerResult

from evaluation.errors import EvaluationError, ServiceUnavailable
from flow_worker.deployed_flows import DeployedFlows, RunSettings
from flow_worker.engine import Ending, InProcessEngine
from flow_worker.heartbeats import Heartbeats
from flow_worker.metrics import WorkerMetrics
from flow_worker.place import Place
from prefect_api.errors import prefect_errors
from prefect_api.runs import runs_of_pool

THREADS = 64  # for what blocks, of all runs together
CANCEL_POLL_SECONDS = 10.0  # where Prefect's stream of events does not answer
DRAIN_SECONDS = 60.0  # for all runs to say that they have ended, after SIGTERM; then their leases end by themselves


T = TypeVar("T")


class InProcessResult(BaseWorkerResult):
    """The run has its end; the status code is 0 whatever that is."""


@dataclass
class _Run:
    engine: InProcessEngine
    task: "asyncio.Task[None]"

    def end(self, why: Ending) -> None:
        if self.engine.ending is None:
            self.engine.ending = why
            self.task.cancel()


class InProcessWorker(BaseWorker[BaseJobConfiguration, BaseVariables, InProcessResult]):
    """Runs async flows side by side in its own process. Source: docs/design.md, "One process, many runs"."""

    type = "in-process"
    job_configuration = BaseJobConfiguration
    job_configuration_variables = BaseVariables
    _description = "Execute async flows as tasks of the worker's own event loop: many runs share one process."
    _display_name = "In-process"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._deployed = DeployedFlows()
        self._settings = RunSettings()
        self._heartbeats = Heartbeats()
        self._runs: dict[UUID, _Run] = {}
        self._draining = False
        self._place = Place.here()
        self._orphans_asked = False
        self._metrics = WorkerMetrics()

    async def setup(self) -> None:
        """Open what all runs share, then what every worker has."""
        threads = ThreadPoolExecutor(THREADS, thread_name_prefix="run")
        asyncio.get_running_loop().set_default_executor(threads)
        # Like every worker, it waits for a server that does not answer yet; comparing versions would not.
        with temporary_settings({PREFECT_CLIENT_SERVER_VERSION_CHECK_ENABLED: False}):
            await self._exit_stack.enter_async_context(AsyncClientContext())
            self._exit_stack.enter_context(SyncClientContext())
        self._heartbeats.start()
        if endpoint := self._metrics.serve():
            self._exit_stack.callback(endpoint.shutdown)
        await super().setup()

    async def teardown(self, *exc_info: Any) -> None:
        """End every run in order, so that others continue them; then as every worker."""
        await self._drain()
        self._heartbeats.stop()
        await super().teardown(*exc_info)

    async def _drain(self) -> None:
        self._draining = True
        for run in tuple(self._runs.values()):
            run.end(Ending.DRAINED)
        if tasks := [run.task for run in self._runs.values()]:
            self._logger.info("Handing over %d runs", len(tasks))
            _, left = await asyncio.wait(tasks, timeout=DRAIN_SECONDS)
            if left:
                self._logger.warning("%d runs did not end in %g s", len(left), DRAIN_SECONDS)

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        """As every worker's, but for an outage of the server: after some minutes it would end all runs."""
        submitted = await self._outlive(super().get_and_submit_flow_runs)
        if submitted is not None:
            self._metrics.polled.labels(self._work_pool_name).set_to_current_time()
        return submitted or []

    async def _sync_and_initialize(self) -> None:
        await self._outlive(super()._sync_and_initialize)

    async def _outlive(self, ask: Callable[[], Awaitable[T]]) -> T | None:
        try:
            with prefect_errors("Asking for runs"):
                return await ask()
        except ServiceUnavailable as outage:
            self._logger.warning("%s The runs go on.", outage)
            return None

    async def _submit_run(self, flow_run: FlowRun) -> None:
        """Take the run and execute it; returns at its end. What every worker asks the server for it is asked once."""
        try:
            if await self._propose_pending_state(flow_run):
                await self._run_or_report(flow_run)
        finally:
            self._release_limit_slot(flow_run.id)
            self._submitting_flow_run_ids.discard(flow_run.id)
            if self._cancelling_observer is not None:
                self._cancelling_observer.remove_in_flight_flow_run_id(flow_run.id)

    async def _run_or_report(self, flow_run: FlowRun) -> None:
        try:
            if self._draining:  # another worker takes it
                await self.client.set_flow_run_state(flow_run.id, Scheduled(), force=True)
                return
            await self.run(flow_run, await self._configuration(flow_run))
        except EvaluationError as reason:
            await self._propose_crashed_state(flow_run, str(reason))
        except ObjectNotFound:
            await self._mark_flow_run_as_cancelled(flow_run, {"message": "Its deployment no longer exists."})
        except Exception as error:  # noqa: BLE001 - whatever it is, the others go on
            self.get_flow_run_logger(flow_run).exception("The run cannot be started")
            await self._propose_crashed_state(flow_run, f"It cannot be started: {type(error).__name__}: {error}")

    async def _configuration(self, flow_run: FlowRun) -> BaseJobConfiguration:
        """The pool's template, filled in with the deployment's and the run's job variables."""
        deployment = await self._deployed.deployment(self.client, flow_run)
        general, own = deployment.job_variables or {}, flow_run.job_variables or {}
        values = {**general, **own, "env": {**(general.get("env") or {}), **(own.get("env") or {})}}
        return await self.job_configuration.from_template_and_values(
            base_job_template=self.work_pool.base_job_template, values=values, client=self.client
        )

    async def run(
        self,
        flow_run: FlowRun,
        configuration: BaseJobConfiguration,
        task_status: TaskStatus[int] | None = None,  # noqa: ARG002 - no caller waits for a pid
    ) -> InProcessResult:
        """Execute the run in a task of its own; whatever it raises ends here."""
        deployment = await self._deployed.deployment(self.client, flow_run)
        engine = InProcessEngine(
            flow=self._deployed.flow(deployment),
            flow_run=flow_run,
            infrastructure=str(self._place),
            heartbeats=self._heartbeats,
        )
        settings = self._settings.of(configuration.env)
        task = asyncio.create_task(self._execute(engine, settings), context=contextvars.copy_context())
        self._runs[flow_run.id] = _Run(engine, task)
        under_way = self._metrics.under_way.labels(self._work_pool_name)
        under_way.inc()
        try:
            await asyncio.wait([task])
        finally:
            del self._runs[flow_run.id]
            task.cancel()
            under_way.dec()
            state = engine.flow_run.state if engine.flow_run else None
            self._metrics.ended.labels(self._work_pool_name, state.type.value.lower() if state else "unknown").inc()
        return InProcessResult(status_code=0, identifier=self.name)

    async def _execute(self, engine: InProcessEngine, settings: SettingsContext) -> None:
        run = engine.flow_run
        assert run is not None  # noqa: S101 - `run` has given it
        self.get_flow_run_logger(run).info("Worker %r executes the run", self.name)
        try:
            with settings:
                arguments = parameters_to_args_kwargs(engine.flow.fn, run.parameters)
                engine.parameters = get_call_parameters(engine.flow.fn, *arguments)
                await engine.run()
        except (asyncio.CancelledError, PrefectSignal):  # its end was reported, or belongs to somebody else
            pass
        except BaseException as error:  # noqa: BLE001 - a SystemExit in one run must not end the others
            if not engine.has_ended:
                await self._propose_crashed_state(run, f"{type(error).__name__}: {error}")

    async def _initialize_after_sync(self) -> None:
        await super()._initialize_after_sync()
        if self._work_pool is not None and self._runs_task_group is not None and not self._orphans_asked:
            self._orphans_asked = True
            self._runs_task_group.start_soon(self._bury_orphans)

    async def _bury_orphans(self) -> None:
        """Give runs their end whose worker has died on this machine, so that others continue them at once.

        Runs of other machines are the reconciler's, which learns of the death by their heartbeats and leases.
        """
        try:
            with prefect_errors("Asking for the runs of workers that died here"):
                for run in await runs_of_pool(self.client, self._work_pool_name):
                    place = Place.parse(run.infrastructure_pid)
                    if place and place.is_dead(self._place):
                        flow = self._deployed.flow(await self._deployed.deployment(self.client, run))
                        engine = InProcessEngine(flow=flow, flow_run=run)
                        await engine.report_death(self.client, f"The worker {place} has died. Another run continues.")
        except (EvaluationError, ObjectNotFound) as error:
            self._logger.warning("%s", error)

    async def _setup_cancellation_observer(self) -> None:
        """Listen for cancellations of runs of this pool, over one connection for all of them."""
        if self._cancelling_observer is None and self._work_pool is not None:
            pool = f"prefect.work-pool.{self._work_pool.id}"
            observer = FlowRunCancellingObserver(
                on_cancelling=self._cancel,
                polling_interval=CANCEL_POLL_SECONDS,
                event_filter=EventFilter(
                    event=EventNameFilter(name=["prefect.flow-run.Cancelling"]),
                    any_resource=EventAnyResourceFilter(id=[pool]),
                ),
            )
            self._cancelling_observer = await self._exit_stack.enter_async_context(observer)

    def _cancel(self, flow_run_id: UUID) -> None:
        if run := self._runs.get(flow_run_id):
            run.end(Ending.CANCELLED)
        elif self._runs_task_group is not None:  # it has not begun
            self._runs_task_group.start_soon(self._cancel_run, flow_run_id)
