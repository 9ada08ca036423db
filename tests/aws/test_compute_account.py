"""The compute client against a real AWS account, opt-in: `make e2e-aws`.

Run it after deploying deployments/aws/compute.yaml and compute-workers.yaml with prefect.yaml's function
(docs/compute-client.md). COMPUTE_QUEUE, COMPUTE_TABLE and COMPUTE_BUCKET are the first stack's outputs QueueUrl,
TableName and BucketName; region and credentials are found as boto3 finds them, with the stack's policy `Callers`.
"""

import os
import uuid

import boto3
import pytest

from compute_client import DynamoDBClient, Producer
from compute_client.job import ResultStatus
from evaluation.errors import RequestRefused

PLACES = ("COMPUTE_QUEUE", "COMPUTE_TABLE", "COMPUTE_BUCKET")
FIRST_WORKER_SECONDS = 600  # a fleet at its least may have to start a task first

pytestmark = pytest.mark.timeout(FIRST_WORKER_SECONDS + 60)


@pytest.fixture(scope="module")
def producer() -> Producer:
    missing = [name for name in PLACES if not os.environ.get(name)]
    if missing:
        pytest.skip(f"set {', '.join(missing)}: the outputs of the stack")
    session = boto3.session.Session()
    if session.get_credentials() is None or session.region_name is None:
        pytest.skip("boto3 finds no AWS credentials or no region")
    queue, table, bucket = (os.environ[name] for name in PLACES)
    return Producer(queue, DynamoDBClient(table, bucket), timeout_seconds=FIRST_WORKER_SECONDS)


def test_a_job_comes_back_with_its_result(producer: Producer) -> None:
    job_id = producer.post_non_blocking({"below": 1_000_000})

    assert producer.retrieve_result_status(job_id) in ResultStatus
    assert producer.wait(job_id).result == {"primes": 78498, "below": 1_000_000, "job": job_id}


def test_a_failure_comes_back_with_its_error(producer: Producer) -> None:
    error = producer.post({"below": -1}).error

    assert error is not None
    assert (error.type, error.message) == ("ValueError", "below is -1; it has to be 0 or more")


def test_a_large_body_arrives(producer: Producer) -> None:
    assert producer.post({"below": 100, "padding": "x" * 2_000_000}).result["primes"] == 25  # type: ignore[index]


def test_an_id_of_ours_is_computed_once(producer: Producer) -> None:
    job_id = f"e2e-{uuid.uuid4().hex}"

    first = producer.post({"below": 10}, job_id=job_id)
    again = producer.post({"below": 10}, job_id=job_id)

    assert (first.result, again.result) == ({"primes": 4, "below": 10, "job": job_id},) * 2
    with pytest.raises(RequestRefused, match="posted before with another body"):
        producer.post_non_blocking({"below": 11}, job_id=job_id)
