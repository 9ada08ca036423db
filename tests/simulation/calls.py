"""One call of a service: what it takes, and what may happen to it and to the machine that makes it.

The same for blocking code (AWS, EvalAI) and for coroutines (Prefect, Kubernetes): both are steps of one plan.
"""

import asyncio
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Protocol, TypeVar

from tests.simulation.chance import Chance
from tests.simulation.hub import Hub
from tests.simulation.machine import Machine

T = TypeVar("T")


class Trouble(Exception):
    """How a call failed: `throttled`, `broken`, `silent` (no answer within the time-out)."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


class Recorder(Protocol):
    def note(self, text: str) -> None: ...


@dataclass
class Calls:
    """`outages`: service -> spans of true time in which it answers nobody."""

    hub: Hub
    chance: Chance
    history: Recorder
    outages: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def is_away(self, service: str) -> bool:
        spans = self.outages.get(service)
        return bool(spans) and any(begin <= self.hub.now < end for begin, end in spans)

    def blocking(self, service: str, operation: str, effect: Callable[[], T], timeout: float = 60.0) -> T:
        """Made by a thread; raises Trouble, and what the effect raises."""
        steps = self._steps(service, operation, effect, timeout)
        try:
            seconds = next(steps)
            while True:
                self.hub.block(seconds)
                seconds = steps.send(None)
        except StopIteration as end:
            result: T = end.value
            return result

    async def awaited(self, service: str, operation: str, effect: Callable[[], T], timeout: float = 60.0) -> T:
        """Made by a coroutine."""
        self.hub.check_alive()
        steps = self._steps(service, operation, effect, timeout)
        try:
            seconds = next(steps)
            while True:
                await asyncio.sleep(seconds)
                self.hub.check_alive()
                seconds = steps.send(None)
        except StopIteration as end:
            result: T = end.value
            return result

    def _steps(self, service: str, operation: str, effect: Callable[[], T], timeout: float) -> Generator[float, Any, T]:
        """Yields the seconds to wait; the effect happens in one step, in the middle."""
        self.hub.check_alive()
        machine = self.hub.current
        assert machine is not None
        place = f"{machine.name} {service} {operation}"
        random = self.chance.random
        fault = self.chance.of_call(place, self.hub.now)
        if fault:
            self.history.note(f"{place}: {fault}")
        if fault in ("dies before", "sleeps before"):
            yield from self._strike(machine, fault)
        yield min(random.expovariate(100), 1.0)
        if self.is_away(service):
            yield random.choice((0.01, timeout))
            raise Trouble("silent")
        if fault == "throttled" or fault == "broken":
            raise Trouble(fault)
        if fault == "request lost":
            yield timeout
            raise Trouble("silent")
        if fault == "slow":
            yield random.uniform(0.1, 0.5) * timeout
        result = effect()
        if fault == "answer lost":
            yield random.choice((0.0, 0.0, timeout))
            raise Trouble("silent")
        if fault in ("dies after", "sleeps after"):
            yield from self._strike(machine, fault)
        if fault == "slow":
            yield random.uniform(0.1, 0.4) * timeout
        yield min(random.expovariate(100), 1.0)
        return result

    def _strike(self, machine: Machine, fault: str) -> Generator[float, Any, None]:
        if fault.startswith("dies"):
            machine.kill()
        else:
            machine.sleep(self.chance.random.choice((5.0, 30.0, 100.0, 200.0, 400.0, 900.0)))
        yield 0.0


class CallsAtOnce:
    """Calls without time and without faults, for the contract tests of the services; the answer to one may be lost."""

    def __init__(self) -> None:
        self.losing = False
        self.hub = SimpleNamespace(now=0.0)
        self.chance = Chance(0, only=frozenset())

    def blocking(self, service: str, operation: str, effect: Callable[[], T], timeout: float = 0.0) -> T:
        result = effect()
        if self.losing:
            self.losing = False
            raise Trouble("silent")
        return result
