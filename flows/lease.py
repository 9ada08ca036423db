"""The claim's lease: a run renews it while it lives, and ends where another run has taken over.

The renewals of all runs of a process have threads and connections of their own. In asyncio's shared threads they would
queue behind reads of S3 that hang, and a live run would be taken for dead.
"""

import asyncio
import contextvars
import heapq
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import count
from typing import Generic, Protocol, Self, TypeVar

from prefect import get_run_logger

from evaluation.errors import AlreadyClaimed

RENEWALS = 3  # so often within the lease's time: two may fail before anybody takes the claim away
RETRIES = 4  # so often within the time to the next renewal, where one failed
THREADS = 16  # of a process: so many renewals may hang at once before others have to wait
SomeClaim = TypeVar("SomeClaim")
SomeClaim_contra = TypeVar("SomeClaim_contra", contravariant=True)


class Renewable(Protocol[SomeClaim_contra]):
    """What keeps claims: the submission ledger, or the compute client's table of jobs."""

    @property
    def lease_seconds(self) -> float: ...

    def with_own_connection(self) -> Self:
        """The same over connections that only renewals use."""

    def renew(self, claim: SomeClaim_contra) -> None:
        """Raises AlreadyClaimed where the claim has passed on."""


@asynccontextmanager
async def lease(ledger: Renewable[SomeClaim], claim: SomeClaim) -> AsyncIterator[None]:
    """Renew the claim while the body runs.

    Once another run has taken the claim, the body is cancelled wherever it waits, and AlreadyClaimed raised. That is
    known after a third of the lease only: the body asks the ledger itself before each lasting effect.
    """
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(None) as until_taken:

            def cancel_the_body() -> None:
                if not renewals.stopped:  # else the body has just ended by itself
                    until_taken.reschedule(loop.time())

            renewals = _Renewals(ledger, claim, lambda: loop.call_soon_threadsafe(cancel_the_body))
            _schedule.add(renewals.next, renewals.pause)
            try:
                yield
            finally:
                renewals.stop()
    except TimeoutError:
        if renewals.taken:
            raise renewals.taken from None
        raise


class _Renewals(Generic[SomeClaim]):
    """Renews a claim until it is stopped, or until the claim has passed on."""

    def __init__(self, ledger: Renewable[SomeClaim], claim: SomeClaim, on_taken: Callable[[], object]) -> None:
        self.taken: AlreadyClaimed | None = None
        self.pause = ledger.lease_seconds / RENEWALS  # seconds
        self._ledger = ledger
        self._own: Renewable[SomeClaim] | None = None
        self._claim = claim
        self._on_taken = on_taken
        self._stop = threading.Event()
        self._run = contextvars.copy_context().run  # Prefect's logger finds its run by the context

    @property
    def stopped(self) -> bool:
        return self._stop.is_set()

    def stop(self) -> None:
        self._stop.set()

    def next(self) -> float | None:
        """Renew once; returns the seconds until the next time, None where there is none."""
        return None if self.stopped else self._run(self._renew)

    def _renew(self) -> float | None:
        try:
            self._own = self._own or self._ledger.with_own_connection()
            self._own.renew(self._claim)
        except AlreadyClaimed as taken:
            self.taken = taken
            with suppress(RuntimeError):  # the loop is closed: nothing is left to be cancelled
                self._on_taken()
            return None
        except Exception as error:  # noqa: BLE001 - whatever it is, the next renewal may succeed
            get_run_logger().warning("The claim cannot be renewed now: %s", error)
            return self.pause / RETRIES
        return self.pause


class _Schedule:
    """Calls what it is given in its own threads, again and again, each after the seconds that the last call returned.

    Its threads are daemons: a call that hangs keeps no process alive.
    """

    def __init__(self) -> None:
        self._due: list[tuple[float, int, Callable[[], float | None]]] = []
        self._number = count()
        self._changed = threading.Condition()
        self._idle = 0
        self._threads = 0

    def add(self, call: Callable[[], float | None], seconds: float) -> None:
        with self._changed:
            heapq.heappush(self._due, (time.monotonic() + seconds, next(self._number), call))
            self._watch()
            self._changed.notify()

    def _watch(self) -> None:
        """Have a thread that waits for the next call, whatever the others are busy with."""
        if self._due and not self._idle and self._threads < THREADS:
            self._threads += 1
            self._idle += 1
            threading.Thread(target=self._keep, name="lease", daemon=True).start()

    def _keep(self) -> None:
        while True:
            call = self._next()
            seconds = call()
            with self._changed:
                self._idle += 1
            if seconds is not None:
                self.add(call, seconds)

    def _next(self) -> Callable[[], float | None]:
        """Wait until a call is due; a thread that waits here counts as idle."""
        with self._changed:
            while not self._due or self._due[0][0] > time.monotonic():
                self._changed.wait(self._due[0][0] - time.monotonic() if self._due else None)
            self._idle -= 1
            call = heapq.heappop(self._due)[2]
            self._watch()
            return call


_schedule = _Schedule()
