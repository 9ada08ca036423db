"""Prefect's clients as the product's adapter uses them, for the simulated server: with the client's own retries."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from email.utils import format_datetime
from typing import Any, TypeVar
from uuid import UUID, uuid4

import httpx
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import ObjectNotFound

from prefect_api.events import OutgoingEvent
from tests.simulation.calls import Calls, Trouble
from tests.simulation.prefect_server import Deployment, Limit, PrefectServer

T = TypeVar("T")
RETRIES = 8  # PREFECT_CLIENT_MAX_RETRIES of the runs (prefect.yaml)
TIMEOUT = 30.0


def _http_error(status: int) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", "http://prefect.example/api")
    return httpx.HTTPStatusError(str(status), request=request, response=httpx.Response(status, request=request))


def _error(trouble: Trouble) -> Exception:
    if trouble.kind == "silent":
        return httpx.ReadTimeout("")
    return _http_error(429 if trouble.kind == "throttled" else 503)


class Answer:
    """An httpx answer, as far as it is read."""

    def __init__(self, content: Any, date: str) -> None:
        self._content = content
        self.headers = {"date": date, "Date": date}

    def json(self) -> Any:
        return self._content


class SimulatedPrefectClient:
    """prefect.client.orchestration.PrefectClient for runs and workers."""

    def __init__(self, calls: Calls, server: PrefectServer, retries: int = RETRIES) -> None:
        self._calls = calls
        self._server = server
        self._retries = retries

    async def __aenter__(self) -> "SimulatedPrefectClient":
        return self

    async def __aexit__(self, *_: object) -> None:
        return

    async def ask(self, operation: str, effect: Callable[[], T]) -> T:
        for attempt in range(self._retries + 1):
            try:
                return await self._calls.awaited("prefect", operation, effect, TIMEOUT)
            except Trouble as trouble:
                if attempt == self._retries:
                    raise _error(trouble) from None
                await asyncio.sleep(min(2.0**attempt, 60.0) * self._calls.chance.random.uniform(1, 1.3))
        raise AssertionError("unreachable")

    async def read_flow_run(self, flow_run_id: UUID) -> FlowRun:
        return await self.ask("read_flow_run", lambda: self._run(flow_run_id).model_copy())

    def _run(self, run: UUID) -> FlowRun:
        if run not in self._server.runs:
            raise ObjectNotFound(http_exc=_http_error(404))
        return self._server.runs[run]

    async def set_flow_run_state(self, flow_run_id: UUID, state: State[Any], force: bool = False) -> bool:
        return await self.ask("set_flow_run_state", lambda: self._server.set_state(flow_run_id, state, force))

    async def update_flow_run(self, flow_run_id: UUID, name: str | None = None, tags: Any = None) -> None:
        def effect() -> None:
            run = self._run(flow_run_id)
            run.name = name or run.name
            run.tags = list(run.tags if tags is None else tags)

        await self.ask("update_flow_run", effect)

    async def read_deployment_by_name(self, name: str) -> Deployment:
        def effect() -> Deployment:
            found = self._server.deployment(name)
            if found is None:
                raise ObjectNotFound(http_exc=_http_error(404))
            return found

        return await self.ask("read_deployment_by_name", effect)

    async def create_flow_run_from_deployment(
        self,
        deployment_id: UUID,
        parameters: Mapping[str, Any],
        name: str,
        state: State[Any],
        idempotency_key: str,
        tags: Sequence[str] = (),
    ) -> FlowRun:
        deployment = next(each for each in self._server.deployments if each.id == deployment_id)
        at = state.state_details.scheduled_time or self._server.now()

        def effect() -> FlowRun:
            return self._server.create_run(deployment, parameters, name, at, idempotency_key, tags).model_copy()

        return await self.ask("create_flow_run", effect)

    async def read_flow_runs(
        self, flow_filter: Any = None, flow_run_filter: Any = None, sort: Any = None, limit: int = 200, offset: int = 0
    ) -> list[FlowRun]:
        names = flow_filter.name.any_ if flow_filter else None
        types = flow_run_filter.state.type.any_ if flow_run_filter and flow_run_filter.state else None
        like = flow_run_filter.name.like_ if flow_run_filter and flow_run_filter.name else ""

        def effect() -> list[FlowRun]:
            server = self._server
            found = [
                run
                for run in (server.open_runs if types and not like else server.runs.values())
                if (names is None or server.of_run(run).flow.name in names)
                and (types is None or run.state_type in types)
                and like in run.name
            ]
            found.sort(key=lambda run: str(run.id))
            return [run.model_copy() for run in found[offset : offset + min(limit, 200)]]

        return await self.ask("read_flow_runs", effect)

    async def request(self, method: str, path: str, **_: Any) -> Answer:
        assert (method, path) == ("GET", "/health")
        return await self.ask("health", lambda: Answer(True, _date(self._server)))

    async def update_artifact(self, artifact_id: UUID, artifact: Any) -> None:
        await self.ask("update_artifact", lambda: None)

    async def take_due(self, pool: str, most: int) -> list[FlowRun]:
        """What a worker's poll does."""
        return await self.ask("get_scheduled_flow_runs", lambda: self._server.take_due(pool, most))

    async def being_cancelled(self, runs: Sequence[UUID]) -> list[UUID]:
        """Which of these runs somebody cancels."""
        cancelling = StateType.CANCELLING
        known = self._server.runs
        return await self.ask("read_cancelling", lambda: [run for run in runs if known[run].state_type is cancelling])

    async def keep_artifact(self, key: str, data: Any) -> UUID:
        def effect() -> UUID:
            self._server.artifacts[key] = data
            return uuid4()

        return await self.ask("create_artifact", effect)

    async def artifact(self, key: str) -> Any:
        return await self.ask("read_artifact", lambda: self._server.artifacts.get(key))


def _date(server: PrefectServer) -> str:
    return format_datetime(server.now().replace(microsecond=0), usegmt=True)


class SimulatedSyncClient:
    """prefect.client.orchestration.SyncPrefectClient for the request budget, which asks in threads."""

    def __init__(self, calls: Calls, server: PrefectServer) -> None:
        self._calls = calls
        self._server = server

    def _ask(self, operation: str, effect: Callable[[], T]) -> T:
        for attempt in range(6):
            try:
                return self._calls.blocking("prefect", operation, effect, TIMEOUT)
            except Trouble as trouble:
                if attempt == 5:
                    raise _error(trouble) from None
                self._calls.hub.block(min(2.0**attempt, 60.0) * self._calls.chance.random.uniform(1, 1.3))
        raise AssertionError("unreachable")

    def _limit(self, name: str) -> Limit:
        return self._server.limits[name]

    def request(self, method: str, path: str, path_params: Mapping[str, str]) -> Answer:
        def effect() -> Answer:
            limit, now = self._limit(path_params["id_or_name"]), self._server.hub.now
            updated = self._server.now() - timedelta(seconds=now - limit.updated)
            shown = {
                "limit": limit.limit,
                "active_slots": int(limit.taken),
                "slot_decay_per_second": limit.decay,
                "active": True,
                "updated": updated.isoformat(),
            }
            return Answer(shown, _date(self._server))

        return self._ask("read_concurrency_limit", effect)

    def increment_concurrency_slots(self, names: Sequence[str], slots: int, mode: str) -> None:
        def effect() -> bool:
            limit, now = self._limit(names[0]), self._server.hub.now
            taken = limit.now(now)
            if taken + slots > limit.limit:
                return False
            limit.taken, limit.updated = taken + slots, now
            return True

        if not self._ask("increment_slots", effect):
            raise _http_error(423)

    def update_global_concurrency_limit(self, name: str, concurrency_limit: Any) -> None:
        def effect() -> None:
            limit = self._limit(name)
            limit.taken, limit.updated = concurrency_limit.active_slots, self._server.hub.now

        self._ask("update_concurrency_limit", effect)


class SimulatedEvents:
    """prefect_api.events.PrefectEvents: one attempt, as there."""

    def __init__(self, calls: Calls, server: PrefectServer) -> None:
        self._calls = calls
        self._server = server

    def __enter__(self) -> "SimulatedEvents":
        return self

    def __exit__(self, *_: object) -> None:
        return

    def publish(self, event: OutgoingEvent) -> None:
        from evaluation.errors import ServiceUnavailable

        try:
            self._calls.blocking(
                "prefect",
                "events",
                lambda: self._server.receive_event(event.name, event.payload, event.id),
                15.0,
            )
        except Trouble as trouble:
            raise ServiceUnavailable("Prefect's API does not answer", trouble.kind) from None
