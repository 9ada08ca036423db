"""Prefect's server, as far as the product uses it: runs and their states, deployments, events, limits, artifacts."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

from prefect import Flow
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.states import Pending, Scheduled

from tests.simulation.chance import Chance
from tests.simulation.hub import Hub

EPOCH = datetime(2026, 11, 28, 12, tzinfo=UTC)
FINAL = {StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED}


@dataclass(frozen=True)
class Deployment:
    """`name` is `flow/deployment`. `on_event` starts a run for each event of that name, with its payload."""

    name: str
    flow: Flow[..., Any]
    pool: str
    on_event: str = ""
    every_seconds: float = 0.0

    @property
    def id(self) -> UUID:
        return uuid5(NAMESPACE_URL, self.name)


@dataclass
class Limit:
    """A global concurrency limit with decay."""

    limit: int
    decay: float
    taken: float = 0.0
    updated: float = 0.0

    def now(self, at: float) -> float:
        return max(0.0, self.taken - int((at - self.updated) * self.decay))


@dataclass
class PrefectServer:
    """Its clock is true time, changed by `ahead`. `on_state` is called after each change of a run's state."""

    hub: Hub
    chance: Chance
    deployments: list[Deployment] = field(default_factory=list)
    runs: dict[UUID, FlowRun] = field(default_factory=dict)
    limits: dict[str, Limit] = field(default_factory=dict)
    artifacts: dict[str, Any] = field(default_factory=dict)
    events: list[tuple[str, Mapping[str, Any]]] = field(default_factory=list)
    ahead: float = 0.0
    on_state: Callable[[FlowRun], None] = lambda run: None
    _keys: dict[tuple[UUID, str], UUID] = field(default_factory=dict)
    _seen: dict[UUID, float] = field(default_factory=dict)
    pool_limits: dict[str, int] = field(default_factory=dict)
    _open: dict[UUID, FlowRun] = field(default_factory=dict)  # what has not ended

    def now(self) -> datetime:
        return EPOCH + timedelta(seconds=self.hub.now + self.ahead)

    def begin(self) -> None:
        """The schedules."""
        for deployment in self.deployments:
            if deployment.every_seconds:
                self._scheduled(deployment, 0)

    def _scheduled(self, deployment: Deployment, number: int) -> None:
        self.create_run(deployment, {}, f"scheduled-{number}", self.now(), f"{deployment.name} {number}")
        self.hub.after(deployment.every_seconds, self._scheduled, deployment, number + 1)

    def deployment(self, name: str) -> Deployment | None:
        return next((each for each in self.deployments if each.name == name), None)

    def of_run(self, run: FlowRun) -> Deployment:
        return next(each for each in self.deployments if each.id == run.deployment_id)

    def create_run(
        self,
        deployment: Deployment,
        parameters: Mapping[str, Any],
        name: str,
        at: datetime,
        key: str | None = None,
        tags: Iterable[str] = (),
    ) -> FlowRun:
        """The run that exists already where the key was used before."""
        if key is not None and (earlier := self._keys.get((deployment.id, key))):
            return self.runs[earlier]
        run = FlowRun(
            id=uuid4(),
            flow_id=uuid5(NAMESPACE_URL, deployment.flow.name),
            name=name,
            deployment_id=deployment.id,
            parameters=dict(parameters),
            tags=list(tags),
            idempotency_key=key,
            work_queue_name=deployment.pool,
        )
        self.runs[run.id] = run
        if key is not None:
            self._keys[deployment.id, key] = run.id
        if self.chance.strikes("run starts late", "prefect", self.hub.now):
            at += timedelta(seconds=self.chance.random.choice((30, 120, 400, 900)))
        self._put(run, Scheduled(scheduled_time=at))
        return run

    def _put(self, run: FlowRun, state: State[Any]) -> None:
        run.state = state.model_copy(update={"timestamp": self.now()})
        run.state_type, run.state_name = state.type, state.name
        if state.type in FINAL:
            self._open.pop(run.id, None)
        else:
            self._open[run.id] = run
        self.on_state(run)

    def set_state(self, run_id: UUID, state: State[Any], force: bool = False) -> bool:
        """Whether the server takes it: nothing follows an end, and one worker takes a run."""
        run = self.runs[run_id]
        now = run.state.type if run.state else None
        if not force and (now in FINAL or (state.type is StateType.PENDING and now is not StateType.SCHEDULED)):
            return False
        if not force and now is StateType.CANCELLING and state.type not in FINAL:
            return False
        self._put(run, state)
        return True

    def take_due(self, pool: str, most: int) -> list[FlowRun]:
        """What a worker is to start now, the earliest first; each becomes pending."""
        busy = sum(
            run.state_type in (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)
            for run in self._open.values()
            if run.work_queue_name == pool
        )
        most = min(most, self.pool_limits.get(pool, 1000) - busy)
        due = [run for run in self._open.values() if run.work_queue_name == pool and self._is_due(run)]
        due.sort(key=lambda run: (run.state.state_details.scheduled_time, str(run.id)) if run.state else ())
        taken = due[: max(0, most)]
        for run in taken:
            self._put(run, Pending())
        return [run.model_copy() for run in taken]

    def _is_due(self, run: FlowRun) -> bool:
        if run.state is None or run.state_type is not StateType.SCHEDULED:
            return False
        at = run.state.state_details.scheduled_time
        return at is None or at <= self.now()

    def receive_event(self, name: str, payload: Mapping[str, Any], event: UUID) -> None:
        """The automations start runs a little later: once, twice, or never."""
        if self._seen.get(event, float("-inf")) > self.hub.now - 300:
            return
        self._seen[event] = self.hub.now
        self.events.append((name, payload))
        for deployment in self.deployments:
            if deployment.on_event == name and not self.chance.strikes("event lost", name, self.hub.now):
                times = 2 if self.chance.strikes("automation fires twice", name, self.hub.now) else 1
                for _ in range(times):
                    self.hub.after(self.chance.random.uniform(0.1, 5), self._fire, deployment, dict(payload))

    def _fire(self, deployment: Deployment, payload: dict[str, Any]) -> None:
        self.create_run(deployment, payload, f"automation-{self.chance.random.randrange(10**6)}", self.now())

    @property
    def open_runs(self) -> list[FlowRun]:
        return list(self._open.values())
