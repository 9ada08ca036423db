"""Virtual time: one queue of what happens next, for all machines and servers of the simulated world.

Asyncio's loops of the machines (tests.simulation.machine) put their callbacks here. Blocking code runs in greenlets,
which are its threads: where it waits, it switches to the hub and is continued at a later virtual time. So whatever
happens, happens in one order, which the seed decides.
"""

import heapq
import itertools
import sys
from asyncio import events
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from greenlet import getcurrent, greenlet

if TYPE_CHECKING:
    from tests.simulation.machine import Machine


class DeadMachineError(BaseException):
    """Code of a machine that is dead, or of a world that has ended, asks for something: nothing may come of it."""


class Hub:
    """`now` is true time in seconds since the world's begin. No machine knows it: each has clocks of its own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.steps = 0
        self.current: Machine | None = None  # whose code runs at the moment; None is the world outside
        self.closed = False
        self._queue: list[tuple[float, int, Machine | None, Callable[..., object], tuple[Any, ...]]] = []
        self._number = itertools.count()
        self._main = getcurrent()
        self._hooked: object = None  # the loop whose hooks Python has for asynchronous generators

    def at(self, when: float, machine: "Machine | None", call: Callable[..., object], *args: object) -> None:
        """Have `call(*args)` happen at that time, on that machine unless it is dead by then."""
        heapq.heappush(self._queue, (max(when, self.now), next(self._number), machine, call, args))

    def after(self, seconds: float, call: Callable[..., object], *args: object) -> None:
        """The same for what belongs to no machine."""
        self.at(self.now + seconds, None, call, *args)

    def run(self, until: float, is_over: Callable[[], bool] = lambda: False) -> None:
        """Let things happen until that time, or until `is_over` says so after a step."""
        self._main = getcurrent()
        while self._queue and self._queue[0][0] <= until:
            when, _, machine, call, args = heapq.heappop(self._queue)
            self.now = when
            if machine is None:
                call(*args)
            elif not machine.dead:
                self._step(machine, call, args)
            self.steps += 1
            if is_over():
                return
        sys.set_asyncgen_hooks(None, None)
        self._hooked = None
        self.now = max(self.now, until)

    def _step(self, machine: "Machine", call: Callable[..., object], args: tuple[Any, ...]) -> None:
        if machine.wakes_at > self.now:
            self.at(machine.wakes_at, machine, call, *args)
            return
        self.current = machine
        loop = machine.loop
        events._set_running_loop(loop)
        if loop is not self._hooked:
            self._hooked = loop
            sys.set_asyncgen_hooks(loop._asyncgen_firstiter_hook, loop._asyncgen_finalizer_hook)
        try:
            call(*args)
        finally:
            events._set_running_loop(None)
            self.current = None

    @property
    def in_thread(self) -> bool:
        """Whether the code that runs is a thread's, which may block."""
        return getcurrent() is not self._main

    def thread(self, machine: "Machine", call: Callable[[], object]) -> None:
        """Run blocking code on the machine, from the next step on."""

        def live() -> None:
            call()
            machine.threads.discard(thread)

        thread = greenlet(live, self._main)
        machine.threads.add(thread)
        self.at(self.now, machine, self._continue, thread)

    def _continue(self, thread: greenlet, *values: object) -> None:
        events._set_running_loop(None)  # a thread has no event loop
        thread.switch(*values)

    def block(self, seconds: float) -> None:
        """Let a thread wait; raises RuntimeError in an event loop, which must not stand still."""
        if self.in_thread and self.current is not None and self.current.dead and not self.closed:
            self._main.switch()  # it has just died, and goes no further
        machine = self._blocking()
        self.at(self.now + max(0.0, seconds), machine, self._continue, getcurrent())
        self._main.switch()
        self._check(machine)

    def park(self) -> Callable[[], None]:
        """For locks and events: (`wait` with `unpark` later). Returns what continues the thread that called this."""
        machine, thread = self._blocking(), getcurrent()
        done = False

        def unpark() -> None:
            nonlocal done
            if not done:
                done = True
                self.at(self.now, machine, self._continue, thread)

        return unpark

    def wait(self) -> None:
        """Let the thread stand until its `unpark` is called."""
        machine = self._blocking()
        self._main.switch()
        self._check(machine)

    def _blocking(self) -> "Machine":
        self.check_alive()
        if not self.in_thread or self.current is None:
            raise RuntimeError("Blocking code is called in an event loop, which stands still meanwhile")
        return self.current

    def _check(self, machine: "Machine") -> None:
        if machine.dead or self.closed:
            raise DeadMachineError
        events._set_running_loop(None)

    def check_alive(self) -> None:
        """Raise DeadMachineError for code that runs although its machine is dead: finalizers of what it left."""
        if self.closed or (self.current is not None and self.current.dead):
            raise DeadMachineError

    def forget(self) -> None:
        """Drop what would have happened."""
        self._queue.clear()
