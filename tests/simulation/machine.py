"""A machine, or a process of its own: an asyncio event loop, threads, and two clocks that may be wrong.

It dies at any await, with all that runs on it and without any `finally`; it may sleep (be stopped) and wake up.
The loop is a small one of our own on asyncio's base class, since simloop and simloom need Python 3.12 and this
project runs on 3.11: it has no sockets, and its callbacks go to the hub.
"""

import asyncio
import contextvars
import itertools
from asyncio import BaseEventLoop, Future, Handle, Task, TimerHandle
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from greenlet import greenlet

from tests.simulation.hub import Hub

THREADS = 32  # of asyncio's executor, and of any other that does not say how many it has
JUMPS = (-3600.0, -140.0, -10.0, 10.0, 140.0, 3600.0)  # by so many seconds a wall clock may be wrong
DRIFT = 0.02  # so much faster or slower a monotonic clock may go
_numbers = itertools.count()


class _Numbered:
    """Sets of tasks and futures have an order that the seed decides, not their addresses."""

    _number: int

    def __hash__(self) -> int:
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class SimulatedFuture(_Numbered, Future):  # type: ignore[type-arg]
    def __init__(self, **kwargs: Any) -> None:
        self._number = next(_numbers)
        super().__init__(**kwargs)


class SimulatedTask(_Numbered, Task):  # type: ignore[type-arg]
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._number = next(_numbers)
        super().__init__(*args, **kwargs)
        self._log_destroy_pending = False  # a machine that dies leaves its tasks as they are


@dataclass
class _Pool:
    """The threads of one executor: what finds none free waits."""

    threads: int
    busy: int = 0
    waiting: deque[Callable[[], None]] = field(default_factory=deque)


class MachineLoop(BaseEventLoop):
    """The event loop of one machine."""

    def __init__(self, machine: "Machine") -> None:
        self._machine = machine
        super().__init__()
        self.set_task_factory(lambda loop, coroutine, **kwargs: SimulatedTask(coroutine, loop=loop, **kwargs))

    def set_debug(self, enabled: bool) -> None:
        self._debug = False

    def time(self) -> float:
        return self._machine.monotonic()

    def is_running(self) -> bool:
        return True

    def create_future(self) -> "Future[Any]":
        return SimulatedFuture(loop=self)

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> Handle:
        handle = Handle(callback, args, self, context)
        hub = self._machine.hub
        hub.at(hub.now, self._machine, _run, handle)
        return handle

    call_soon_threadsafe = call_soon  # type: ignore[assignment]

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> TimerHandle:
        timer = TimerHandle(when, callback, args, self, context)
        timer._scheduled = False
        self._machine.hub.at(self._machine.true_time(when), self._machine, _run, timer)
        return timer

    def call_later(  # type: ignore[override]
        self, delay: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> TimerHandle:
        return self.call_at(self.time() + delay, callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> "Future[Any]":  # type: ignore[override]
        return self._machine.in_executor(executor, func, args)

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        self._machine.unhandled(context)


def _run(handle: Handle) -> None:
    if not handle._cancelled:
        handle._run()


class Machine:
    """`ahead` is how far its wall clock is ahead of true time; `rate` how fast its monotonic clock goes."""

    def __init__(self, hub: Hub, name: str, ahead: float = 0.0, rate: float = 1.0) -> None:
        self.hub = hub
        self.name = name
        self.ahead = ahead
        self.rate = rate
        self.dead = False
        self.wakes_at = 0.0
        self.on_death: list[Callable[[], None]] = []
        self.problems: list[str] = []
        self._booted = hub.now
        self._pools: dict[object, _Pool] = {}
        self.loop = MachineLoop(self)
        self.tasks: list[Task[Any]] = []  # what is to live as long as it
        self.threads: set[greenlet] = set()
        self._left: set[Task[Any]] = set()

    def monotonic(self) -> float:
        """Seconds since it was started, and 1000."""
        return 1000.0 + (self.hub.now - self._booted) * self.rate

    def wall(self) -> float:
        """Seconds since the world's begin, as its wall clock has them."""
        return self.hub.now + self.ahead

    def true_time(self, monotonic: float) -> float:
        return self._booted + (monotonic - 1000.0) / self.rate

    def kill(self) -> None:
        """Everything on it stops where it is; no `finally` runs, so nothing of it may be collected as garbage."""
        if not self.dead:
            self.dead = True
            self._left = asyncio.all_tasks(self.loop)
            for call in self.on_death:
                call()

    def sleep(self, seconds: float) -> None:
        """Stop the machine's processes for so long; its clocks go on."""
        self.wakes_at = max(self.wakes_at, self.hub.now + seconds)

    def start(self, coroutine: Any) -> "Task[Any]":
        """Begin a task from outside; call it in no step of another machine's code."""
        task = self.loop.create_task(coroutine)
        self.tasks.append(task)
        return task

    def in_executor(self, executor: Any, func: Callable[..., Any], args: tuple[Any, ...]) -> "Future[Any]":
        future = self.loop.create_future()
        threads = getattr(executor, "_max_workers", THREADS)
        pool = self._pools.setdefault(executor, _Pool(threads))

        def work() -> None:
            result: Any = None
            error: BaseException | None = None
            try:
                if not future.cancelled():
                    result = func(*args)
            except Exception as raised:  # noqa: BLE001 - as concurrent.futures does
                error = raised
            pool.busy -= 1
            if pool.waiting:
                self._begin(pool, pool.waiting.popleft())
            self.loop.call_soon(_settle, future, result, error)

        if pool.busy < pool.threads:
            self._begin(pool, work)
        else:
            pool.waiting.append(work)
        return future

    def _begin(self, pool: _Pool, work: Callable[[], None]) -> None:
        pool.busy += 1
        self.hub.thread(self, work)

    def forget(self) -> None:
        """Drop what it ran, in a world that has ended."""
        self.dead = True
        self.tasks.clear()
        self._left.clear()
        self.threads.clear()
        self._pools.clear()

    def unhandled(self, context: dict[str, Any]) -> None:
        """What asyncio would log: an exception that no task of the product's looked at."""
        error = context.get("exception")
        if error is not None and not isinstance(error, asyncio.CancelledError):
            self.problems.append(f"{context.get('message')}: {error!r}")


def _settle(future: "Future[Any]", result: Any, error: BaseException | None) -> None:
    if not future.done():
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)
