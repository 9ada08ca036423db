"""The claim's lease: a run renews it while it lives, and ends where another run has taken over.

The renewals have a thread and a connection of their own. In asyncio's shared threads they would queue behind reads of
S3 that hang, and a live run would be taken for dead.
"""

import asyncio
import contextvars
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Generic, Protocol, Self, TypeVar

from prefect import get_run_logger

from evaluation.errors import AlreadyClaimed

RENEWALS = 3  # so often within the lease's time: two may fail before anybody takes the claim away
RETRIES = 4  # so often within the time to the next renewal, where one failed
SomeClaim = TypeVar("SomeClaim")
SomeClaim_contra = TypeVar("SomeClaim_contra", contravariant=True)


class Renewable(Protocol[SomeClaim_contra]):
    """What keeps claims: the submission ledger, or the compute client's table of jobs."""

    @property
    def lease_seconds(self) -> float: ...

    def with_own_connection(self) -> Self:
        """The same over a connection that nothing else uses."""

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
            renewals.start()
            try:
                yield
            finally:
                renewals.stop()
    except TimeoutError:
        if renewals.taken:
            raise renewals.taken from None
        raise


class _Renewals(Generic[SomeClaim]):
    """Renews a claim in a thread until it is stopped, or until the claim has passed on."""

    def __init__(self, ledger: Renewable[SomeClaim], claim: SomeClaim, on_taken: Callable[[], object]) -> None:
        self.taken: AlreadyClaimed | None = None
        self._ledger = ledger
        self._claim = claim
        self._on_taken = on_taken
        self._stop = threading.Event()

    @property
    def stopped(self) -> bool:
        return self._stop.is_set()

    def start(self) -> None:
        # A daemon: a renewal that hangs keeps no process alive. Prefect's logger finds its run by the context.
        run = contextvars.copy_context().run
        threading.Thread(target=run, args=(self._keep,), name="lease", daemon=True).start()

    def stop(self) -> None:
        self._stop.set()

    def _keep(self) -> None:
        pause = self._ledger.lease_seconds / RENEWALS
        ledger: Renewable[SomeClaim] | None = None
        wait = pause
        while not self._stop.wait(wait):
            try:
                ledger = ledger or self._ledger.with_own_connection()
                ledger.renew(self._claim)
                wait = pause
            except AlreadyClaimed as taken:
                self.taken = taken
                with suppress(RuntimeError):  # the loop is closed: nothing is left to be cancelled
                    self._on_taken()
                return
            except Exception as error:  # noqa: BLE001 - whatever it is, the next renewal may succeed
                get_run_logger().warning("The claim cannot be renewed now: %s", error)
                wait = pause / RETRIES
