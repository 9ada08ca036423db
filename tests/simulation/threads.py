"""What the product takes from `threading`, in virtual time."""

from collections import deque
from collections.abc import Callable

from tests.simulation.hub import Hub


class SimulatedLock:
    """threading.Lock among the greenlets of the hub."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._held = False
        self._waiting: deque[Callable[[], None]] = deque()

    def acquire(self) -> bool:
        while self._held:
            self._waiting.append(self._hub.park())
            self._hub.wait()
        self._held = True
        return True

    def release(self) -> None:
        self._held = False
        if self._waiting:
            self._waiting.popleft()()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class SimulatedEvent:
    """threading.Event; a wait that nobody ends lasts as long as it says."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._set = False
        self._waiting: list[Callable[[], None]] = []

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        self._set = True
        for unpark in self._waiting:
            unpark()
        self._waiting.clear()

    def wait(self, timeout: float | None = None) -> bool:
        if not self._set:
            unpark = self._hub.park()
            self._waiting.append(unpark)
            if timeout is not None:
                machine = self._hub.current
                self._hub.at(self._hub.now + timeout, machine, unpark)
            self._hub.wait()
        return self._set


class SimulatedThreading:
    """Stands for the module `threading` in modules of the product."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def Lock(self) -> SimulatedLock:  # noqa: N802 - threading's name
        return SimulatedLock(self._hub)

    def Event(self) -> SimulatedEvent:  # noqa: N802
        return SimulatedEvent(self._hub)


class SimulatedSchedule:
    """Stands for flows.lease's schedule: its calls are threads of the machine that asked for them.

    The product's own has 16 threads of a process; here each renewal has one.
    """

    def __init__(self, hub: Hub) -> None:
        self._hub = hub

    def add(self, call: Callable[[], float | None], seconds: float) -> None:
        machine = self._hub.current
        assert machine is not None

        def keep() -> None:
            pause: float | None = seconds
            while pause is not None:
                self._hub.block(pause)
                pause = call()

        self._hub.thread(machine, keep)
