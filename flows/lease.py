"""The claim's lease: a run says that it lives, and ends where another has taken over."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Protocol, TypeVar

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


@asynccontextmanager
async def lease(ledger: Renewable[SomeClaim], claim: SomeClaim) -> AsyncIterator[None]:
    """Renew the claim while the body runs.

    Once another run has taken the claim, the body is cancelled wherever it waits, and AlreadyClaimed raised. That is
    known after a third of the lease only: the body asks the ledger itself before each lasting effect.
    """
    try:
        async with asyncio.timeout(None) as until_taken:
            supervisor = asyncio.create_task(_keep(ledger, claim, until_taken))
            try:
                yield
            finally:
                supervisor.cancel()
                await asyncio.gather(supervisor, return_exceptions=True)
    except TimeoutError:
        if until_taken.expired():
            await supervisor  # raises AlreadyClaimed
        raise


async def _keep(ledger: Renewable[SomeClaim], claim: SomeClaim, until_taken: asyncio.Timeout) -> None:
    while True:
        await asyncio.sleep(ledger.lease_seconds / RENEWALS)
        try:
            await asyncio.to_thread(ledger.renew, claim)
        except AlreadyClaimed:
            until_taken.reschedule(asyncio.get_running_loop().time())
            raise
        except EvaluationError as error:
            get_run_logger().warning("The claim cannot be renewed now: %s", error)
