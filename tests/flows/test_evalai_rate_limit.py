"""The request budget on a real Prefect server, taken as the flow takes it: in a thread of an async flow."""

import asyncio
import os
import subprocess
import sys
import time

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import SecretStr

from blocks.evalai import RATE_LIMIT_DECAY_PER_SECOND, RATE_LIMIT_SLOTS, EvalAI, take_slot
from evalai_api.http import RetryPolicy
from evaluation.errors import InvalidConfiguration, ServiceUnavailable

# Prefect's own client leaves the sockets of its background threads to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


def create_limit(name: str, slots: int, decay: float) -> None:
    with get_client(sync_client=True) as client:
        client.create_global_concurrency_limit(
            GlobalConcurrencyLimitCreate(name=name, limit=slots, slot_decay_per_second=decay)
        )


def test_the_slots_pass_at_once_and_then_no_faster_than_the_decay() -> None:
    create_limit("evalai", RATE_LIMIT_SLOTS, RATE_LIMIT_DECAY_PER_SECOND)

    @flow
    async def ask_often() -> tuple[float, float]:
        begin = time.monotonic()
        await asyncio.gather(*(asyncio.to_thread(take_slot, "evalai") for _ in range(RATE_LIMIT_SLOTS)))
        burst = time.monotonic() - begin
        await asyncio.to_thread(take_slot, "evalai")
        return burst, time.monotonic() - begin

    burst, one_more = asyncio.run(ask_often())

    assert burst < 1 / RATE_LIMIT_DECAY_PER_SECOND * RATE_LIMIT_SLOTS
    assert one_more >= 1.0


TAKER = """
from blocks.evalai import take_slot
from evaluation.errors import ServiceUnavailable
for _ in range(3):
    try:
        take_slot("shared", wait_seconds=3)
        print("slot")
    except ServiceUnavailable as error:
        print(error)
"""


def test_two_processes_share_one_budget() -> None:
    create_limit("shared", 4, 0.001)
    environment = {**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value())}
    command = [sys.executable, "-c", TAKER]
    takers = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]

    answers = [line for taker in takers for line in taker.communicate(timeout=300)[0].splitlines()]

    assert answers.count("slot") == 4
    assert sum("request budget is used up" in answer for answer in answers) == 2


def test_a_missing_limit_is_a_wrong_configuration_and_nothing_is_sent() -> None:
    block = EvalAI(
        api_server="http://127.0.0.1:1", auth_token=SecretStr("token"), phases={}, rate_limit="never-created"
    )

    with pytest.raises(InvalidConfiguration, match=r"'never-created'.*leaderboard setup"):
        block.client(retries=RetryPolicy(attempts=1)).status(1)


def test_a_limit_without_decay_is_a_wrong_configuration() -> None:
    create_limit("no-decay", 1, 0.0)

    with pytest.raises(InvalidConfiguration, match="slot decay"):
        take_slot("no-decay")


def test_the_wait_for_a_slot_has_an_end() -> None:
    create_limit("narrow", 1, 0.01)
    take_slot("narrow")

    with pytest.raises(ServiceUnavailable, match=r"no slot of the limit 'narrow' came free in 0.3 s"):
        take_slot("narrow", wait_seconds=0.3)


def test_without_prefects_server_nothing_is_sent() -> None:
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}),
        pytest.raises(ServiceUnavailable, match="Prefect"),
    ):
        take_slot("of-another-server", wait_seconds=10)
