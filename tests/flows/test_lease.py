"""A run's lease while what it shares with its other work is stuck."""

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest
from prefect import flow

from evaluation.errors import AlreadyClaimed, ServiceUnavailable
from flows.lease import lease

SHARED_THREADS = 6  # asyncio's on two cores


@dataclass
class Renewals:
    """What keeps claims; `answers` are raised by the next renewals, None is a success."""

    lease_seconds: float = 0.3
    answers: list[Exception | None] = field(default_factory=list)
    connections: int = 0
    made: list[str] = field(default_factory=list)
    seen: threading.Event = field(default_factory=threading.Event)
    wanted: int = 5

    def with_own_connection(self) -> "Renewals":
        self.connections += 1
        return self

    def renew(self, claim: str) -> None:
        answer = self.answers.pop(0) if self.answers else None
        if answer:
            raise answer
        self.made.append(claim)
        if len(self.made) >= self.wanted:
            self.seen.set()


@pytest.fixture
def hanging() -> Iterator[threading.Event]:
    over = threading.Event()
    yield over
    over.set()


def test_reads_that_hang_in_all_shared_threads_do_not_keep_the_lease_from_being_renewed(
    hanging: threading.Event,
) -> None:
    renewals = Renewals()

    @flow
    async def run() -> None:
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(SHARED_THREADS))
        async with lease(renewals, "mine"):
            reads = [asyncio.create_task(asyncio.to_thread(hanging.wait)) for _ in range(3 * SHARED_THREADS)]
            while not renewals.seen.is_set():
                await asyncio.sleep(0.01)
            hanging.set()
            await asyncio.gather(*reads)

    asyncio.run(run())

    assert (renewals.connections, {*renewals.made}) == (1, {"mine"})


def test_an_event_loop_that_is_busy_does_not_keep_the_lease_from_being_renewed() -> None:
    renewals = Renewals()

    @flow
    async def run() -> None:
        async with lease(renewals, "mine"):
            assert renewals.seen.wait(110)  # in the loop's own thread

    asyncio.run(run())


def test_a_renewal_that_fails_is_tried_again_whatever_it_raised() -> None:
    renewals = Renewals(answers=[ServiceUnavailable("DynamoDB is away"), OSError("no such host")])

    @flow
    async def run() -> None:
        async with lease(renewals, "mine"):
            await asyncio.to_thread(renewals.seen.wait, 110)

    asyncio.run(run())

    assert len(renewals.made) >= renewals.wanted


def test_a_body_whose_claim_was_taken_is_cancelled_wherever_it_waits() -> None:
    renewals = Renewals(answers=[None, AlreadyClaimed("Submission 7 is evaluated by epoch 2")])

    @flow
    async def run() -> None:
        async with lease(renewals, "mine"):
            await asyncio.Event().wait()

    with pytest.raises(AlreadyClaimed, match="epoch 2"):
        asyncio.run(run())


def test_a_timeout_of_the_body_stays_the_bodys() -> None:
    @flow
    async def run() -> None:
        async with lease(Renewals(lease_seconds=3600), "mine"):
            raise TimeoutError("the body's own")

    with pytest.raises(TimeoutError, match="the body's own"):
        asyncio.run(run())
