"""The compute client's messages, ids, errors and numbers, and the bridge's reader of them."""

import subprocess
import sys
from typing import Any

import pytest

from blocks.submission_queue import Received
from compute_client import Consumer, DynamoDBClient
from compute_client.backlog import Backlog
from compute_client.example import count_primes
from compute_client.job import (
    JobError,
    JobFailed,
    JobResult,
    ResultStatus,
    digest,
    read_message,
    require_id,
    to_json,
    write_message,
)
from evaluation.errors import InvalidConfiguration, InvalidMessage, RequestRefused, SubmissionFailed
from evaluation.submission.message import Delivery
from services.bridge import BridgeSettings
from services.compute_bridge import compute_reader


def received(body: str, count: int = 1, receipt: str = "r-1") -> Received:
    return Received(body, Delivery(queue_url="q", receipt_handle=receipt, message_id="m-1"), count, None)


def test_a_message_is_read_as_it_was_written() -> None:
    assert read_message(write_message("order-7")) == "order-7"


@pytest.mark.parametrize(
    "text", ["", "7", "null", "[]", "{}", '{"job_id": 7}', '{"job_id": ""}', '{"job_id": "../x"}', '{"id": "order-7"}']
)
def test_what_names_no_job_is_refused(text: str) -> None:
    with pytest.raises(InvalidMessage, match=r"is not JSON|names no job"):
        read_message(text)


def test_the_order_of_keys_makes_no_other_body() -> None:
    assert digest('{"a": 1, "b": [1, 2]}') == digest('{"b": [1, 2], "a": 1}')
    assert digest('{"a": 1}') != digest('{"a": "1"}')
    assert digest("[1, 2]") != digest("[2, 1]")


@pytest.mark.parametrize("value", [{1: "a", "1": "b"}, [{"deep": {None: 1, "null": 2}}]])
def test_keys_that_would_become_the_same_are_refused(value: object) -> None:
    with pytest.raises(RequestRefused, match=r"The body is not JSON: two keys become '(1|null)'"):
        to_json("The body", value)
    assert to_json("The body", {1: 2, "a": 3, None: 4}) == '{"1": 2, "a": 3, "null": 4}'


@pytest.mark.parametrize("job_id", [7, None, b"order-7", "a/b", "", "x" * 101])
def test_what_is_no_id_is_refused(job_id: Any) -> None:
    with pytest.raises(RequestRefused, match="is not an id for a job"):
        require_id(job_id)


@pytest.mark.parametrize("given", [None, "package.module:function"])
def test_a_consumer_of_no_function_costs_no_job(given: Any) -> None:
    with pytest.raises(InvalidConfiguration, match=r"no function\. Give the function itself, not its name"):
        Consumer(queue_name="q", ddb_client=DynamoDBClient(table="t"), compute_result=given)


def test_a_failure_is_raised_with_the_functions_error() -> None:
    failed = JobResult("order-7", ResultStatus.FAILED, error=JobError("ValueError", "no number"))
    with pytest.raises(JobFailed, match="Job order-7 failed: ValueError: no number") as raised:
        _ = failed.result
    assert isinstance(raised.value, SubmissionFailed)


def test_nothing_is_a_result_too() -> None:
    assert JobResult("order-7", ResultStatus.SUCCESS, None).result is None


def test_the_event_names_blocks_and_job_and_carries_ids_only() -> None:
    read = compute_reader("thumbnails")
    events = [
        read(received(write_message("order-7"), receipt=receipt), BridgeSettings()) for receipt in ("r-1", "r-1", "r-2")
    ]

    assert events[0].name == "compute.message.received"
    assert events[0].resource_id == "compute.message.thumbnails.order-7"
    assert events[0].payload == {
        "job_id": "order-7",
        "delivery": {"queue_url": "q", "receipt_handle": "r-1", "message_id": "m-1"},
    }
    assert events[0].id == events[1].id != events[2].id


def test_a_message_that_no_run_ends_is_published_again_however_often_it_was_delivered() -> None:
    event = compute_reader()(received(write_message("order-7"), count=100_000), BridgeSettings())
    assert event.resource_name == "job order-7"


def test_the_backlog_counts_both_kinds_of_messages() -> None:
    assert Backlog(visible=0, in_flight=120, workers=4, job_seconds=30).seconds_per_worker == 900


@pytest.mark.parametrize(("below", "primes"), [(0, 0), (2, 0), (3, 1), (100, 25), (10_000, 1229)])
def test_the_examples_function_counts(below: int, primes: int) -> None:
    assert count_primes({"below": below}, "job")["primes"] == primes


def test_the_client_needs_no_prefect_and_its_functions_process_no_boto3() -> None:
    code = (
        "import sys, MODULES\n"
        "print(*sorted({'prefect', 'boto3', 'pydantic'} & {name.partition('.')[0] for name in sys.modules}))"
    )
    found = [
        subprocess.run(
            [sys.executable, "-c", code.replace("MODULES", module)], capture_output=True, text=True, check=True
        ).stdout
        for module in ("compute_client.producer", "compute_client.function_main, compute_client.example")
    ]
    assert [each.split() for each in found] == [["boto3"], []]
