"""A wrong argument of the compute client is named in a sentence, before anything is asked of AWS."""

import math
from typing import Any

import pytest

from compute_client import Consumer, DynamoDBClient, Producer
from evaluation.errors import InvalidConfiguration


def no_aws(service: str) -> Any:
    raise AssertionError(f"{service} was asked")


def database(**changes: Any) -> DynamoDBClient:
    return DynamoDBClient(**({"table": "jobs", "make_client": no_aws} | changes))


@pytest.mark.parametrize("name", [None, "", " ", 7, b"jobs", ["jobs"]])
def test_a_queue_without_a_name_is_refused_on_both_sides(name: Any) -> None:
    with pytest.raises(InvalidConfiguration, match=r"queue_name is .*: it has to be a text"):
        Producer(queue_name=name, ddb_client=database())
    with pytest.raises(InvalidConfiguration, match=r"queue_name is .*: it has to be a text"):
        Consumer(queue_name=name, ddb_client=database(), compute_result=print)


@pytest.mark.parametrize("seconds", ["x", "5", -1, math.nan, math.inf, True, [5]])
def test_seconds_that_are_none_are_refused_before_anything_is_posted(seconds: Any) -> None:
    with pytest.raises(InvalidConfiguration, match=r"timeout_seconds is .*: it has to be a number"):
        Producer("jobs", database(), timeout_seconds=seconds)
    with pytest.raises(InvalidConfiguration, match=r"limit_seconds is .*: it has to be a number"):
        Consumer("jobs", database(), print, limit_seconds=seconds)
    producer = Producer("jobs", database())
    with pytest.raises(InvalidConfiguration, match="timeout_seconds is"):
        producer.post({}, timeout_seconds=seconds)
    with pytest.raises(InvalidConfiguration, match="timeout_seconds is"):
        producer.wait("job", timeout_seconds=seconds)
    with pytest.raises(InvalidConfiguration, match="lost_seconds is"):
        producer.resend(lost_seconds=seconds)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"table": None}, "table is None"),
        ({"table": ""}, "table is ''"),
        ({"bucket": 3}, "bucket is 3"),
        ({"lease_seconds": "120"}, "lease_seconds is '120'"),
        ({"lease_seconds": 0}, r"lease_seconds is 0: it has to be a number of at least 1"),
        ({"most_attempts": 0}, "most_attempts is 0"),
    ],
)
def test_a_place_for_the_jobs_that_is_none_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidConfiguration, match=words):
        database(**changes)


@pytest.mark.parametrize("place", [None, "jobs", object()])
def test_a_table_given_by_its_name_alone_is_refused(place: Any) -> None:
    with pytest.raises(InvalidConfiguration, match=r"ddb_client is .*: it has to be a DynamoDBClient"):
        Producer("jobs", place)
    with pytest.raises(InvalidConfiguration, match=r"ddb_client is .*: it has to be a DynamoDBClient"):
        Consumer("jobs", place, print)
