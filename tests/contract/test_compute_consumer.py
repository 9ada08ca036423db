"""The consumer without Prefect: the original's own example, and the rules that it shares with the flow `compute`."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from compute_client import Consumer, JobTimeout, ResultStatus
from tests import compute_functions as functions
from tests.contract.aws_blocks import received_dead, remaining
from tests.contract.compute_harness import BUCKET, ComputeAws
from tests.original_compute_example import run_original_example, run_page_example
from tests.waiting import PATIENCE_SECONDS, eventually, runs


@pytest.fixture(params=["standard", "fifo"])
def harness(aws: dict[str, Any], request: pytest.FixtureRequest) -> ComputeAws:
    return ComputeAws(aws, fifo=request.param == "fifo")


@contextmanager
def consuming(harness: ComputeAws, function: Any, **settings: Any) -> Iterator[threading.Event]:
    """A consumer in a thread, which is asked to stop in the end."""
    consumer_settings = {name: settings.pop(name) for name in ("limit_seconds",) if name in settings}
    database = harness.database(**settings)
    stop = threading.Event()
    consumer = Consumer(harness.queue.queue_url, database, function, **consumer_settings)
    thread = threading.Thread(target=consumer.start_consuming, args=(stop, 1))
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(PATIENCE_SECONDS)
        assert not thread.is_alive()


def test_the_original_example_runs_as_it_stands(aws: dict[str, Any], tmp_path: Path) -> None:
    ComputeAws(aws, fifo=True)
    run_original_example("compute.fifo", "compute", shell(aws), tmp_path)


def test_the_snippets_of_the_page_run_as_they_stand(aws: dict[str, Any], tmp_path: Path) -> None:
    harness = ComputeAws(aws)

    run_page_example(harness.queue.queue_url, harness.table, BUCKET, shell(aws), tmp_path)

    assert harness.producer().retrieve_result("order-7").result == {"answer": 42}


def test_a_row_that_makes_no_sense_is_a_dead_letter_and_the_next_job_is_computed(harness: ComputeAws) -> None:
    harness.producer().post_non_blocking({"number": 4}, job_id="strange")
    foreign = {"job_id": {"S": "strange"}, "owner": {"S": "somebody"}}
    harness.client("dynamodb").put_item(TableName=harness.table, Item=foreign)

    with consuming(harness, functions.answer):
        assert harness.producer().post({"number": 4}, job_id="mine").result == {"answer": 42, "id": "mine"}
        dead: list[tuple[str, dict[str, str]]] = []
        eventually(lambda: dead.extend(received_dead(harness.aws, harness.queue)) or dead)

    _, attributes = dead[0]
    assert attributes["reason"].startswith("The row of job 'strange' makes no sense: job_status is missing.")


def shell(aws: dict[str, Any]) -> dict[str, str]:
    """The variables by which boto3 finds this AWS."""
    return {
        "AWS_ENDPOINT_URL": aws["endpoint_url"],
        "AWS_DEFAULT_REGION": aws["region_name"],
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
    }


def test_a_job_is_computed_and_its_message_deleted(harness: ComputeAws) -> None:
    with consuming(harness, functions.answer):
        result = harness.producer().post({"number": 4}, job_id="mine").result

        assert result == {"answer": 42, "id": "mine"}
        eventually(lambda: remaining(harness.aws, harness.queue) == (0, 0))


def test_any_callable_will_do_also_a_closure(harness: ComputeAws) -> None:
    factor = 3
    with consuming(harness, lambda body, _job_id: body * factor):
        assert harness.producer().post(14).result == 42


@pytest.mark.parametrize(
    ("function", "kind"), [(functions.leave, "SystemExit"), (functions.name_of_a_file, "ValueError")]
)
def test_a_function_that_fails_is_called_once(harness: ComputeAws, function: Any, kind: str) -> None:
    with consuming(harness, function):
        found = harness.producer().post(1)

        assert (found.status, found.error and found.error.type) == (ResultStatus.FAILED, kind)
        assert harness.row(found.id)["attempts"] == "1"


def test_a_function_whose_process_dies_is_given_up_after_its_attempts(harness: ComputeAws) -> None:
    with consuming(harness, functions.die, most_attempts=2):
        found = harness.producer().post(1, job_id="mine")

        assert found.error
        assert found.error.type == "Abandoned"
        dead: list[tuple[str, dict[str, str]]] = []
        eventually(lambda: dead.extend(received_dead(harness.aws, harness.queue)) or dead)
    assert '"mine"' in dead[0][0]


def test_a_function_that_takes_too_long_has_failed_and_is_ended(harness: ComputeAws, tmp_path: Path) -> None:
    with consuming(harness, functions.hang, limit_seconds=5):
        found = harness.producer().post({"pids": str(tmp_path / "pids")})

    assert found.error
    assert found.error.type == "TimeLimit"
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    assert [pid for pid in pids if psutil.pid_exists(pid) and runs(psutil.Process(pid))] == []


def test_a_consumer_that_is_asked_to_stop_gives_its_job_back_uncounted(harness: ComputeAws, tmp_path: Path) -> None:
    producer = harness.producer()
    with consuming(harness, functions.hang):
        producer.post_non_blocking({"pids": str(tmp_path / "pids")}, job_id="mine")
        eventually((tmp_path / "pids").exists)

    assert harness.row("mine")["attempts"] == "0"
    with consuming(harness, lambda _body, _job_id: "done"):  # another function: the same job, at once
        assert producer.wait("mine").result == "done"


def test_the_lease_is_renewed_while_the_function_runs(harness: ComputeAws, tmp_path: Path) -> None:
    body = {"file": str(tmp_path / "calls"), "seconds": 5}
    with consuming(harness, functions.count_calls, lease_seconds=3), consuming(harness, functions.count_calls):
        assert harness.producer().post(body).result == 1


def test_a_message_that_names_no_job_goes_to_the_dead_letters(harness: ComputeAws) -> None:
    group = {"MessageGroupId": "a", "MessageDeduplicationId": "a"} if harness.fifo else {}
    harness.client("sqs").send_message(QueueUrl=harness.queue.queue_url, MessageBody="nonsense", **group)
    with consuming(harness, functions.answer):
        dead: list[tuple[str, dict[str, str]]] = []
        eventually(lambda: dead.extend(received_dead(harness.aws, harness.queue)) or dead)

    assert dead[0][0] == "nonsense"
    assert "is not JSON" in dead[0][1]["reason"]


def test_a_caller_who_waits_in_vain_gets_a_timeout_error(harness: ComputeAws) -> None:
    with pytest.raises(TimeoutError, match="has no result after 0 seconds") as caught:
        harness.producer().post(1, timeout_seconds=0)
    assert isinstance(caught.value, JobTimeout)


def test_results_too_large_for_the_table_go_to_the_bucket(harness: ComputeAws) -> None:
    with consuming(harness, functions.large):
        assert len(str(harness.producer().post(300_000).result)) == 300_000
    assert harness.client("s3").list_objects_v2(Bucket=BUCKET)["KeyCount"] == 1


def test_sigterm_ends_the_process_in_order(aws: dict[str, Any]) -> None:
    harness = ComputeAws(aws)
    code = (
        "import sys; from compute_client import Consumer, DynamoDBClient\n"
        "Consumer(sys.argv[1], DynamoDBClient('compute'), print).start_consuming(poll_seconds=1)\n"
    )
    shell = os.environ | {"AWS_ENDPOINT_URL": aws["endpoint_url"], "AWS_DEFAULT_REGION": aws["region_name"]}
    shell |= {"AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
    process = subprocess.Popen([sys.executable, "-c", code, harness.queue.queue_url], env=shell)
    harness.producer().post_non_blocking(1, job_id="mine")
    eventually(lambda: harness.jobs().status("mine").final, 60)

    process.send_signal(signal.SIGTERM)

    assert process.wait(PATIENCE_SECONDS) == 0
