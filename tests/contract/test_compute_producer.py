"""The compute client's caller: what it posts, what it finds, and that nothing is lost on the way."""

import json
import math
import threading
from functools import partial
from typing import Any

import boto3
import pytest
from botocore.config import Config

from compute_client.job import JobError, JobFailed, NotFinished, NotSent, ResultStatus, UnknownJob, read_message
from evaluation.errors import DeadlineExceeded, InvalidConfiguration, RequestRefused, ServiceUnavailable
from tests.contract.aws_blocks import UNREACHABLE
from tests.contract.compute_harness import ComputeAws


@pytest.fixture(params=["standard", "fifo"])
def harness(aws: dict[str, Any], request: pytest.FixtureRequest) -> ComputeAws:
    return ComputeAws(aws, fifo=request.param == "fifo")


@pytest.fixture
def standard(aws: dict[str, Any]) -> ComputeAws:
    return ComputeAws(aws)


def finish(harness: ComputeAws, job_id: str, result: str = '{"answer": 42}') -> None:
    jobs = harness.jobs()
    jobs.succeed(jobs.claim(job_id, "run").lease, result)


def test_a_posted_job_is_recorded_and_its_message_names_it(harness: ComputeAws) -> None:
    producer = harness.producer()

    job_id = producer.post_non_blocking({"number": 4})

    assert producer.retrieve_result_status(job_id) is ResultStatus.SUBMITTED
    assert [read_message(message.body) for message in harness.received()] == [job_id]
    assert harness.row(job_id)["outbox"] == "sent"
    jobs = harness.jobs()
    assert jobs.body(jobs.claim(job_id, "run")) == '{"number": 4}'


def test_the_queue_may_be_named(harness: ComputeAws) -> None:
    name = harness.queue.queue_url.rpartition("/")[2]

    job_id = harness.producer(queue_name=name).post_non_blocking(1)

    assert [read_message(message.body) for message in harness.received()] == [job_id]


def test_status_and_result_follow_the_job(standard: ComputeAws) -> None:
    producer, jobs = standard.producer(), standard.jobs()
    job_id = producer.post_non_blocking({"number": 4})

    submitted = producer.retrieve_result(job_id)
    lease = jobs.claim(job_id, "run").lease
    running = producer.retrieve_result_status(job_id)
    jobs.succeed(lease, '{"answer": 42}')

    with pytest.raises(NotFinished, match="it is SUBMITTED"):
        _ = submitted.result
    assert running is ResultStatus.IN_PROGRESS
    assert producer.retrieve_result(job_id).result == {"answer": 42}


def test_a_failure_carries_its_error(standard: ComputeAws) -> None:
    producer, jobs = standard.producer(), standard.jobs()
    job_id = producer.post_non_blocking(None)
    jobs.fail(jobs.claim(job_id, "run").lease, JobError("ValueError", "x" * 2000, "a" * 9000 + "line 7"))

    found = producer.retrieve_result(job_id)

    assert found.status is ResultStatus.FAILED
    with pytest.raises(JobFailed, match=f"Job {job_id} failed: ValueError: xxx") as failed:
        _ = found.result
    assert (len(failed.value.error.message), len(failed.value.error.trace)) == (1000, 4000)
    assert failed.value.error.trace.endswith("line 7")


def test_post_waits_for_the_result(standard: ComputeAws) -> None:
    consumer = threading.Timer(0.2, finish, (standard, "mine"))
    consumer.start()

    result = standard.producer().post({"number": 4}, job_id="mine").result

    consumer.join()
    assert result == {"answer": 42}


def test_post_gives_up_and_names_the_job(standard: ComputeAws) -> None:
    with pytest.raises(DeadlineExceeded, match=r"Job mine has no result after 0 seconds: it is SUBMITTED"):
        standard.producer().post(1, job_id="mine", timeout_seconds=0)
    finish(standard, "mine")
    assert standard.producer().wait("mine").result == {"answer": 42}


def test_the_same_id_is_one_job(harness: ComputeAws) -> None:
    producer = harness.producer()

    ids = {producer.post_non_blocking({"a": 1, "b": 2}, job_id="order-7") for _ in range(3)}
    ids.add(producer.post_non_blocking({"b": 2, "a": 1}, job_id="order-7"))

    assert ids == {"order-7"}
    assert len(harness.received()) == 1
    with pytest.raises(RequestRefused, match="was posted before with another body"):
        producer.post_non_blocking({"a": 2}, job_id="order-7")


def test_an_ended_job_is_not_sent_again(standard: ComputeAws) -> None:
    producer = standard.producer()
    producer.post_non_blocking(1, job_id="mine")
    finish(standard, "mine")
    standard.queue.acknowledge(standard.received()[0].delivery)

    assert producer.post(1, job_id="mine").result == {"answer": 42}
    assert standard.received() == []


def test_a_job_whose_message_was_not_sent_is_kept_and_sent_later(harness: ComputeAws) -> None:
    absent = harness.queue.queue_url.replace("/compute", "/absent")
    with pytest.raises(NotSent, match="Job mine is recorded but not on its queue") as caught:
        harness.producer(queue_name=absent).post_non_blocking(1, job_id="mine")
    assert caught.value.job_id == "mine"
    assert isinstance(caught.value.__cause__, InvalidConfiguration)
    assert harness.received() == []

    again = harness.producer()
    assert again.resend(unsent_seconds=3600) == []  # perhaps its caller is just about to
    assert again.resend(unsent_seconds=0) == ["mine"]
    assert again.resend(unsent_seconds=0) == []
    assert [read_message(message.body) for message in harness.received()] == ["mine"]


def test_posting_again_sends_what_was_not_sent(standard: ComputeAws) -> None:
    with pytest.raises(NotSent):
        standard.producer(queue_name=standard.queue.queue_url + "-absent").post_non_blocking(1, job_id="mine")

    standard.producer().post_non_blocking(1, job_id="mine")

    assert [read_message(message.body) for message in standard.received()] == ["mine"]


def test_a_job_whose_message_is_gone_can_be_sent_again(harness: ComputeAws) -> None:
    producer = harness.producer()
    producer.post_non_blocking({"number": 4}, job_id="mine")
    harness.client("sqs").purge_queue(QueueUrl=harness.queue.queue_url)

    assert producer.resend() == []  # its message may still be on the queue
    assert producer.resend(older_seconds=0) == ["mine"]

    assert [read_message(message.body) for message in harness.received()] == ["mine"]


def test_the_same_post_sends_a_job_again_whose_message_cannot_exist_any_more(standard: ComputeAws) -> None:
    standard.producer().post_non_blocking(1, job_id="mine")
    jobs = standard.jobs()
    assert jobs.submit("mine", 1, "mine") is False

    standard.clock.ahead = 15 * 24 * 3600  # SQS keeps a message for 14 days at most

    assert jobs.submit("mine", 1, "mine") is True
    assert list(jobs.lost(14 * 24 * 3600)) == [("mine", "mine")]


def test_a_job_whose_run_and_message_are_gone_is_lost_only_after_its_lease(standard: ComputeAws) -> None:
    standard.producer().post_non_blocking(1, job_id="mine")
    jobs = standard.jobs(lease_seconds=60)
    jobs.claim("mine", "run")
    standard.clock.ahead = 50
    assert list(jobs.lost(0)) == []

    standard.clock.ahead = 70

    assert list(jobs.lost(0)) == [("mine", "mine")]
    jobs.succeed(standard.take_over(jobs, "mine", "another").lease, "1")
    assert list(jobs.lost(0)) == []


def test_a_message_that_is_known_to_be_sent_only_after_its_job_was_claimed_changes_nothing(
    standard: ComputeAws,
) -> None:
    jobs = standard.jobs()
    jobs.submit("mine", 1, "mine")
    jobs.succeed(jobs.claim("mine", "a quick run").lease, "1")

    jobs.sent("mine")

    assert jobs.status("mine") is ResultStatus.SUCCESS
    assert list(jobs.lost(0)) == list(jobs.unsent(0)) == []


@pytest.mark.parametrize("body", [{1: "a", "b": 2}, {None: 1, "x": 2}, {True: 1, "a": 2}, [{"a": {2: 0, "c": 1}}]])
def test_keys_of_several_types_are_posted_as_json_has_them(standard: ComputeAws, body: object) -> None:
    job_id = standard.producer().post_non_blocking(body)

    jobs = standard.jobs()
    assert json.loads(jobs.body(jobs.claim(job_id, "run"))) == json.loads(json.dumps(body))


def test_large_bodies_and_results_go_to_the_bucket(harness: ComputeAws) -> None:
    producer, jobs = harness.producer(), harness.jobs()
    body, result = "b" * 500_000, "r" * 500_000  # more than a row can hold, more than SQS's old limit

    job_id = producer.post_non_blocking(body)
    job = jobs.claim(job_id, "run")
    jobs.succeed(job.lease, f'"{result}"')

    assert jobs.body(job) == f'"{body}"'
    assert producer.retrieve_result(job_id).result == result
    assert harness.objects() == [
        f"bodies/{job_id}/{harness.row(job_id)['body_digest']}.json",
        f"results/{job_id}/{job.lease.token}.json",
    ]


def test_the_largest_row_fits(standard: ComputeAws) -> None:
    producer, jobs = standard.producer(), standard.jobs()
    longest = "ü" * (50 * 1024 - 1)  # two bytes each, and the quotes

    job_id = producer.post_non_blocking(longest)
    jobs.succeed(jobs.claim(job_id, "run").lease, '"' + "r" * (250 * 1024 - 2) + '"')

    assert standard.objects() == []
    assert len(str(producer.retrieve_result(job_id).result)) == 250 * 1024 - 2


def test_without_a_bucket_what_does_not_fit_is_refused(standard: ComputeAws) -> None:
    producer, jobs = standard.producer(bucket=None), standard.jobs(bucket=None)
    with pytest.raises(RequestRefused, match="The body is too large: 200002 bytes"):
        producer.post_non_blocking("b" * 200_000, job_id="mine")
    with pytest.raises(UnknownJob):
        producer.retrieve_result_status("mine")

    job_id = producer.post_non_blocking(1)
    with pytest.raises(RequestRefused, match="The result is too large"):
        jobs.succeed(jobs.claim(job_id, "run").lease, "1" * 300_000)


@pytest.mark.parametrize("body", [math.nan, {1, 2}, "\ud800", {"deep": object()}])
def test_what_is_not_json_is_refused(standard: ComputeAws, body: object) -> None:
    with pytest.raises(RequestRefused, match="The body is not JSON"):
        standard.producer().post_non_blocking(body)
    assert standard.received() == []


@pytest.mark.parametrize("job_id", ["", "a/b", "-x", "a" * 101, "../x", "a b"])
def test_an_id_that_is_none_is_refused(standard: ComputeAws, job_id: str) -> None:
    with pytest.raises(RequestRefused, match="is not an id for a job"):
        standard.producer().post_non_blocking(1, job_id=job_id)


def test_unknown_and_expired_jobs_are_told(standard: ComputeAws) -> None:
    producer, jobs = standard.producer(), standard.jobs(result_days=7)
    with pytest.raises(UnknownJob, match="There is no job x"):
        producer.retrieve_result("x")
    producer.post_non_blocking(1, job_id="old")
    finish(standard, "old")

    standard.clock.ahead = 8 * 24 * 3600  # DynamoDB may not have removed it yet

    with pytest.raises(UnknownJob):
        jobs.status("old")
    assert jobs.submit("old", {"another": "body"}, "old") is True


def test_an_outage_is_told_as_one(standard: ComputeAws) -> None:
    quick = Config(retries={"max_attempts": 0}, connect_timeout=1)
    unreachable = partial(boto3.client, **(standard.aws | {"endpoint_url": UNREACHABLE, "config": quick}))

    with pytest.raises(ServiceUnavailable, match="AWS does not answer"):
        standard.producer(make_client=unreachable).post_non_blocking(1)
