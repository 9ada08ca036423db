"""Calls of functions on Batch: what is asked for, what the log says and when. Pure."""

import dataclasses
import math
import re
from datetime import UTC, datetime

import pytest

from batch_jobs.function_job import BatchQueues, FunctionCall, call_text, function_name, function_request, read_call
from batch_jobs.job_description import BatchJob
from batch_jobs.status_lines import StatusLines, misconfigured
from evaluation.errors import InvalidConfiguration, RequestRefused

CALL = FunctionCall("package.module:function", {"number": 4})
NOW = datetime(2026, 11, 28, tzinfo=UTC)


def job(status: str, reason: str = "") -> BatchJob:
    return BatchJob(
        id="c423-9151",
        arn="",
        name="run-1-2",
        status=status,
        reason=reason,
        created=NOW,
        started=None,
        first_started=None,
        stopped=None,
        losses=(),
        ending=False,
        containers={},
        tags={},
        vcpus=2,
        gpus=0,
    )


def test_each_change_is_a_line_and_what_lasts_is_one_every_thirty_seconds() -> None:
    lines, said = StatusLines("hello", 30), []
    seen = [("SUBMITTED", 5), ("RUNNABLE", 70), ("STARTING", 14), ("RUNNING", 40), ("SUCCEEDED", 1)]
    now = 0
    for status, seconds in seen:
        for _ in range(seconds):
            if line := lines.next(job(status), now):
                said.append((now, line))
            now += 1

    assert said == [
        (0, "[c423-9151] hello is SUBMITTED"),
        (5, "[c423-9151] hello is RUNNABLE"),
        (35, "[c423-9151] hello is RUNNABLE"),
        (65, "[c423-9151] hello is RUNNABLE"),
        (75, "[c423-9151] hello is STARTING"),
        (89, "[c423-9151] hello is RUNNING"),
        (119, "[c423-9151] hello is RUNNING"),
        (129, "[c423-9151] hello is SUCCEEDED"),
    ]


def test_a_reason_is_said_in_words_and_a_new_one_at_once() -> None:
    lines = StatusLines("hello", 30)
    lines.next(job("RUNNABLE"), 0)

    line = lines.next(job("RUNNABLE", "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY"), 1)

    assert line
    assert line.startswith("[c423-9151] hello is RUNNABLE: AWS has no instance of the queue's types left")


@pytest.mark.parametrize(
    ("status", "reason", "wrong"),
    [
        ("RUNNABLE", "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - no such type", True),
        ("RUNNABLE", "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY", False),
        ("RUNNABLE", "", False),
        ("FAILED", "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT", False),  # it has ended already
    ],
)
def test_what_batch_calls_misconfigured(status: str, reason: str, wrong: bool) -> None:
    assert misconfigured(job(status, reason)) is wrong


def test_sizes_and_urgency_choose_the_queue() -> None:
    queues = BatchQueues("c", "ca", "g", "ga")
    calls = [dataclasses.replace(CALL, gpus=gpus, adhoc=adhoc) for gpus in (0, 2) for adhoc in (False, True)]

    assert [queues.of(call) for call in calls] == ["c", "ca", "g", "ga"]


def test_a_request_names_no_image_no_command_and_no_role() -> None:
    request = function_request(CALL, "run-1-2", "arn:definition:3", "c", "s3://bucket/folder", None, {"a": "b"})

    (task,) = request["ecsPropertiesOverride"]["taskProperties"]
    assert task == {
        "containers": [
            {"name": "function", "environment": [{"name": "FUNCTION_FOLDER", "value": "s3://bucket/folder"}]}
        ]
    }
    assert "shareIdentifier" not in request
    assert request["tags"] == {"leaderboard:function": "package.module:function", "a": "b"}


def test_a_call_is_read_as_it_was_written() -> None:
    assert read_call(call_text(CALL)) == ("package.module:function", '{"number": 4}')


WRONG = [
    ({"function": "no_function"}, "names no function"),
    ({"gpus": -1}, "gpus is -1, not a whole number from 0 on"),
    ({"gpus": 1.5}, "gpus is 1.5"),
    ({"memory_mib": 0}, "memory_mib is 0"),
    ({"vcpus": -1}, "vcpus is -1, not a number above 0"),
    ({"vcpus": math.nan, "gpus": "1"}, "gpus is '1', not a whole number from 0 on; vcpus is nan"),
    ({"limit_seconds": 0}, "limit_seconds is 0"),
    ({"limit_seconds": math.inf}, "limit_seconds is inf"),
    ({"arguments": [1, 2]}, "arguments are [1, 2], not values by the names"),
    ({"arguments": {1: 2}}, "arguments are {1: 2}, not values by the names"),
]


@pytest.mark.parametrize(("changes", "words"), WRONG)
def test_a_wrong_call_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(InvalidConfiguration, match=re.escape(words)):
        dataclasses.replace(CALL, **changes)  # type: ignore[arg-type]


def test_a_terabyte_of_memory_is_asked_for_in_digits() -> None:
    call = dataclasses.replace(CALL, memory_mib=1179648, vcpus=96.0)

    request = function_request(call, "run-1-2", "d", "q", "s3://b/f", None, {})

    [task] = request["ecsPropertiesOverride"]["taskProperties"]
    assert task["containers"][0]["resourceRequirements"] == [
        {"type": "VCPU", "value": "96"},
        {"type": "MEMORY", "value": "1179648"},
    ]


def test_a_name_that_batch_does_not_take_is_refused() -> None:
    with pytest.raises(RequestRefused):
        function_request(CALL, "a b", "d", "q", "s3://b/f", None, {})


def test_only_what_another_process_can_import_has_a_name() -> None:
    assert function_name(call_text) == "batch_jobs.function_job:call_text"
    with pytest.raises(InvalidConfiguration, match="Define it at the top of a module"):
        function_name(lambda: None)
