"""The request budget on a real Prefect server."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.settings import PREFECT_API_URL, temporary_settings
from pydantic import SecretStr

from blocks.evalai import EvalAI
from evalai_api.budget import SLOTS, Urgency
from evalai_api.http import RetryPolicy
from evaluation.errors import InvalidConfiguration, ServiceUnavailable
from prefect_api.request_budget import UNITS, PrefectBudget

# Prefect's own client leaves the sockets of its background threads to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
SLOWLY = 0.0001 * UNITS  # so that nothing comes back in the time of a test


def budget(name: str, decay: float = SLOWLY, slots: int = SLOTS * UNITS, wait_seconds: float = 0.3) -> PrefectBudget:
    with get_client(sync_client=True) as client:
        client.create_global_concurrency_limit(
            GlobalConcurrencyLimitCreate(name=name, limit=slots, slot_decay_per_second=decay)
        )
    return PrefectBudget(name, wait_seconds)


def test_the_last_slots_are_left_to_what_is_more_urgent() -> None:
    ours = budget("ordered")
    ours.take(2, Urgency.LOOK)  # of seven slots, of which a look leaves five

    with pytest.raises(ServiceUnavailable, match=r"no slot of the limit 'ordered' came free in 0\.3 s"):
        ours.take(1, Urgency.LOOK)
    ours.take(2, Urgency.PARTIAL)
    with pytest.raises(ServiceUnavailable, match="used up"):
        ours.take(2, Urgency.STATUS)
    ours.take(1, Urgency.LIST)
    ours.take(2, Urgency.REPORT)

    with pytest.raises(ServiceUnavailable, match="request budget is used up"):
        ours.take(1, Urgency.REPORT)


def test_a_report_passes_a_look_that_waits_in_the_same_process() -> None:
    ours = budget("passed", wait_seconds=10)
    ours.take(4, Urgency.STATUS)
    with ThreadPoolExecutor(1) as pool:
        look = pool.submit(ours.take, 1, Urgency.LOOK)

        ours.take(2, Urgency.REPORT)

    assert isinstance(look.exception(), ServiceUnavailable)


def test_slots_come_back() -> None:
    ours = budget("refilled", decay=2 * UNITS, wait_seconds=100)

    for _ in range(5):
        ours.take(2, Urgency.REPORT)


def test_after_a_429_nobody_gets_a_slot_for_as_long_as_evalai_says() -> None:
    ours = budget("paused", decay=UNITS, wait_seconds=5)

    ours.pause(60)

    with pytest.raises(ServiceUnavailable, match="used up"):
        ours.take(1, Urgency.REPORT)


TAKER = """
from evalai_api.budget import Urgency
from evaluation.errors import ServiceUnavailable
from prefect_api.request_budget import PrefectBudget
for _ in range(4):
    try:
        PrefectBudget("shared", wait_seconds=3).take(1, Urgency.REPORT)
        print("slot")
    except ServiceUnavailable as error:
        print(error)
"""


def test_two_processes_share_one_budget() -> None:
    budget("shared")
    environment = {**os.environ, "PREFECT_API_URL": str(PREFECT_API_URL.value())}
    command = [sys.executable, "-c", TAKER]
    takers = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]

    answers = [line for taker in takers for line in taker.communicate(timeout=300)[0].splitlines()]

    assert answers.count("slot") == SLOTS
    assert sum("request budget is used up" in answer for answer in answers) == 2 * 4 - SLOTS


def test_a_missing_limit_is_a_wrong_configuration_and_nothing_is_sent() -> None:
    block = EvalAI(
        api_server="http://127.0.0.1:1", auth_token=SecretStr("token"), phases={}, rate_limit="never-created"
    )

    with pytest.raises(InvalidConfiguration, match=r"'never-created'.*leaderboard setup"):
        block.client(retries=RetryPolicy(attempts=1)).status(1)


def test_a_limit_without_decay_is_a_wrong_configuration() -> None:
    with pytest.raises(InvalidConfiguration, match="slot decay"):
        budget("no-decay", decay=0.0).take(1, Urgency.REPORT)


def test_a_limit_of_an_earlier_version_is_a_wrong_configuration() -> None:
    with pytest.raises(InvalidConfiguration, match="8 slots: those of an earlier version"):
        budget("earlier", decay=0.8, slots=8).take(1, Urgency.REPORT)


def test_without_prefects_server_nothing_is_sent() -> None:
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}),
        pytest.raises(ServiceUnavailable, match="request budget"),
    ):
        PrefectBudget("of-another-server", wait_seconds=10).take(1, Urgency.REPORT)
