"""Prefect's engine for one flow run among many in a process: nothing in it belongs to the process as a whole.

Prefect's own takes over SIGTERM, and starts a thread for heartbeats and a second event loop that listens whether the
run was suspended, for each run. Here the worker does these things once. Written against prefect 3.8.
"""

from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any, cast

from anyio import CancelScope
from prefect._flow_run_suspension import FlowRunSuspensionRequest
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import State
from prefect.context import AsyncClientContext
from prefect.exceptions import PrefectSignal
from prefect.flow_engine import AsyncFlowRunEngine
from prefect.states import Crashed

from flow_worker.heartbeats import Heartbeats
from prefect_api.states import DRAINED


class Ending(Enum):
    """Why the worker cancels the task of a run."""

    CANCELLED = "somebody cancels the run in Prefect"
    DRAINED = "the worker is told to stop"


@dataclass
class InProcessEngine(AsyncFlowRunEngine[..., Any]):
    """Executes one run, with the client of AsyncClientContext and the worker's heartbeats."""

    infrastructure: str = ""  # what Prefect shows as the run's infrastructure: the worker
    heartbeats: Heartbeats | None = None
    ending: Ending | None = None  # set before the task is cancelled

    async def run(self) -> None:
        """As prefect.flow_engine.run_flow_async; raises what the flow raises beyond Exception."""
        async with self.start():
            while self.is_running():
                async with self.run_context():
                    with self._heartbeats():
                        await cast(
                            Awaitable[object], self.call_flow_fn()
                        )  # Prefect's annotation is a coroutine too deep

    @property
    def has_ended(self) -> bool:
        """As far as this process knows; a run that comes from the server's queue brings no state."""
        state = self.flow_run.state if self.flow_run else None
        return state is not None and state.is_final()

    @property
    def heartbeat_seconds(self) -> None:
        """None, so that Prefect starts no thread."""
        return None

    @contextmanager
    def _heartbeats(self) -> Iterator[None]:
        seconds = super().heartbeat_seconds
        run = self.flow_run
        if seconds is None or run is None or self.heartbeats is None:
            yield
            return
        resource, related = self._build_heartbeat_event_template()
        self.heartbeats.begin(run.id, seconds, lambda: self._emit_flow_run_heartbeat(resource, related))
        try:
            yield
        finally:
            self.heartbeats.end(run.id)

    @asynccontextmanager
    async def initialize_run(self) -> AsyncIterator["InProcessEngine"]:
        """As Prefect's for a run that exists, without the handler of SIGTERM, which belongs to the worker."""
        assert self.flow_run is not None  # noqa: S101 - the worker only has such
        async with AsyncClientContext.get_or_create() as shared:
            self._client = shared.client
            self._is_started = True
            try:
                yield self
            except Exception:
                raise
            except PrefectSignal as signal:  # the server does not let it go on
                if state := getattr(signal, "state", None):
                    self.flow_run.state = state
                raise
            except BaseException as error:
                if not self.has_ended:
                    await self.handle_crash(error)
                raise
            finally:
                self._is_started = False
                self._client = None

    async def begin_run(self) -> State[Any]:
        """As Prefect's; name, version, retries and worker are told in one request."""
        run, flow = self.flow_run, self.flow
        assert run is not None  # noqa: S101
        policy = run.empirical_policy
        policy.retry_delay = cast(Any, flow.retry_delay_seconds) if policy.retry_delay is None else policy.retry_delay
        policy.retries = flow.retries if policy.retries is None else policy.retries
        name = self._name()
        self._flow_run_name_set = name is not None
        run.name = name or run.name
        await self.client.update_flow_run(
            run.id,
            flow_version=flow.version,
            name=name,
            empirical_policy=policy,
            infrastructure_pid=self.infrastructure,
        )
        return await super().begin_run()

    def _name(self) -> str | None:
        """The run's name by the flow's template; None where Prefect has to make it, or to refuse the parameters."""
        if not isinstance(self.flow.flow_run_name, str):
            return None
        try:
            return self.flow.flow_run_name.format(**self.flow.validate_parameters(self.parameters or {}))
        except Exception:  # noqa: BLE001 - Prefect reports it
            return None

    @contextmanager
    def setup_flow_run_suspension_request(self) -> Iterator[FlowRunSuspensionRequest]:
        """Requests to suspend the run are not listened for: that takes a thread and a connection for each run."""
        yield self._get_flow_run_suspension_request()

    def _engine_owns_cancellation_handling(self) -> bool:
        """There is no process around the run that would call the hooks."""
        return True

    async def report_death(self, client: PrefectClient, message: str) -> None:
        """Give the run of a process that is gone its end, and call the hooks: Cancelled where somebody wanted that."""
        self._client, self._is_started = client, True
        if self.state.is_cancelling():
            await self.handle_cancellation(RuntimeError(message))
        else:
            await self.set_state(Crashed(message=message), force=True)

    async def handle_crash(self, exc: BaseException) -> None:
        """Give the run the end that the worker has cancelled it for; anything else is a crash. Calls the hooks."""
        match self.ending:
            case Ending.CANCELLED:
                await self.handle_cancellation(exc)
            case Ending.DRAINED:
                with CancelScope(shield=True):
                    message = "The worker was told to stop. Another run continues."
                    await self.set_state(Crashed(name=DRAINED, message=message), force=True)
                    self._raised = cast(Any, exc)
            case None:
                await super().handle_crash(exc)
