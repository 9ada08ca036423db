"""The claim's lease: a run says that it lives, and learns that another has taken over."""

import asyncio
from types import TracebackType
from typing import NoReturn, Self

from prefect import get_run_logger

from evaluation.errors import AlreadyClaimed, EvaluationError
from evaluation.ports import Claim, SubmissionLedger

RENEWALS = 3  # so often within the lease's time: two may fail before anybody takes the claim away


class Lease:
    """Renews the claim from entry to exit. What is done under it asks the ledger itself before each lasting effect."""

    def __init__(self, ledger: SubmissionLedger, claim: Claim) -> None:
        self._ledger = ledger
        self._claim = claim
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
            await asyncio.sleep(self._ledger.lease_seconds / RENEWALS)
            try:
                await asyncio.to_thread(self._ledger.renew, self._claim)
            except AlreadyClaimed as taken:
                self._taken.set_exception(taken)
                self._taken.exception()  # read, so that a run which is about to end anyway leaves no warning
                return
            except EvaluationError as error:
                get_run_logger().warning("The claim cannot be renewed now: %s", error)
