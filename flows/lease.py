"""The claim's lease: a run says that it lives, and learns that another has taken over."""

import asyncio
from functools import partial
from types import TracebackType
from typing import NoReturn, Protocol, Self, TypeVar

from prefect import get_run_logger

from evaluation.errors import AlreadyClaimed, EvaluationError

RENEWALS = 3  # so often within the lease's time: two may fail before anybody takes the claim away
SomeClaim = TypeVar("SomeClaim")
SomeClaim_contra = TypeVar("SomeClaim_contra", contravariant=True)


class Renewable(Protocol[SomeClaim_contra]):
    """What keeps claims: the submission ledger, or the compute client's table of jobs."""

    @property
    def lease_seconds(self) -> float: ...

    def renew(self, claim: SomeClaim_contra) -> None:
        """Raises AlreadyClaimed where the claim has passed on."""


class Lease:
    """Renews the claim from entry to exit. What is done under it asks the ledger itself before each lasting effect."""

    def __init__(self, ledger: Renewable[SomeClaim], claim: SomeClaim) -> None:
        self._renew = partial(ledger.renew, claim)
        self._seconds = ledger.lease_seconds
        self._taken: asyncio.Future[NoReturn] = asyncio.get_running_loop().create_future()

    async def __aenter__(self) -> Self:
        self._keeper = asyncio.create_task(self._keep())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._keeper.cancel()
        await asyncio.gather(self._keeper, return_exceptions=True)
        self._taken.cancel()

    async def taken(self) -> NoReturn:
        """Never returns; raises AlreadyClaimed once another run has taken the claim."""
        await asyncio.shield(self._taken)
        raise AssertionError("the future has no result")

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(self._seconds / RENEWALS)
            try:
                await asyncio.to_thread(self._renew)
            except AlreadyClaimed as taken:
                self._taken.set_exception(taken)
                self._taken.exception()  # read, so that a run which is about to end anyway leaves no warning
                return
            except EvaluationError as error:
                get_run_logger().warning("The claim cannot be renewed now: %s", error)
