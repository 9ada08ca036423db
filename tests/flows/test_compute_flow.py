"""The compute flow, path by path, on moto's queue and table: the final state of caller, queue and dead letters."""

import asyncio
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from botocore.exceptions import EndpointConnectionError
from prefect.client.schemas.objects import State
from pytest_httpserver import HTTPServer

from blocks.compute_metrics import ComputeMetrics
from compute_client.job import JobError, Lease, ResultStatus
from compute_client.payloads import ClientFactory
from evaluation.errors import InvalidConfiguration
from evaluation.submission.message import Delivery
from flows.compute import compute
from flows.compute_services import ComputeServices
from prefect_api.events import OutgoingEvent
from services.bridge import run_bridge
from services.compute_bridge import compute_reader, compute_settings
from tests.contract.aws_blocks import UNREACHABLE, received_dead, remaining
from tests.contract.compute_harness import ComputeAws
from tests.contract.conftest import aws, moto_url  # noqa: F401 - fixtures
from tests.waiting import eventually, runs

FUNCTIONS = "tests.compute_functions"


@pytest.fixture(params=["standard", "fifo"])
def services(aws: dict[str, Any], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ComputeAws:  # noqa: F811
    services = ComputeAws(aws, fifo=request.param == "fifo")
    connect(services, monkeypatch)
    return services


@pytest.fixture
def standard(aws: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> ComputeAws:  # noqa: F811
    services = ComputeAws(aws)
    connect(services, monkeypatch)
    return services


def connect(
    services: ComputeAws,
    monkeypatch: pytest.MonkeyPatch,
    measures: ClientFactory | None = None,
    **settings: Any,
) -> None:
    """Let the flow find this queue and table where it would load their blocks."""

    async def load(name: str, delivery: Delivery | None) -> ComputeServices:
        metrics = ComputeMetrics(name, measures or services.client)
        return ComputeServices(services.jobs(most_attempts=2, **settings), services.queue, delivery, metrics)

    monkeypatch.setattr("flows.compute.load_compute_services", load)


def run(job_id: str, function: str, delivery: Delivery | None = None, **parameters: Any) -> State[Any]:
    name = function if ":" in function else f"{FUNCTIONS}:{function}"
    return asyncio.run(compute(job_id, name, delivery, **parameters, return_state=True))


class Ring:
    """A publisher that runs the flow, as the automation does: the event's payload as its parameters."""

    def __init__(self, function: str, stop: threading.Event) -> None:
        self.states: list[State[Any]] = []
        self.events: list[OutgoingEvent] = []
        self._function = function
        self._stop = stop

    def publish(self, event: OutgoingEvent) -> None:
        self.events.append(event)
        delivery = Delivery.model_validate(event.payload["delivery"])
        self.states.append(run(str(event.payload["job_id"]), self._function, delivery))
        self._stop.set()


def bridge(services: ComputeAws, function: str) -> Ring:
    """Carry what the queue holds until one message has rung."""
    stop = threading.Event()
    publisher = Ring(function, stop)
    run_bridge(
        services.queue, publisher, stop, replace(compute_settings(services.queue), wait_seconds=0), compute_reader()
    )
    return publisher


def posted(services: ComputeAws, body: object) -> tuple[str, Delivery]:
    job_id = services.producer().post_non_blocking(body)
    [received] = services.received()
    return job_id, received.delivery


def test_from_the_producer_through_the_bridge_to_the_result(services: ComputeAws) -> None:
    producer = services.producer()
    job_id = producer.post_non_blocking({"number": 4})

    publisher = bridge(services, "answer")

    assert producer.retrieve_result(job_id).result == {"answer": 42, "id": job_id}
    [event], [state] = publisher.events, publisher.states
    assert (event.name, event.resource_id) == ("compute.message.received", f"compute.message.compute.{job_id}")
    assert (state.name, state.is_completed()) == ("Computed", True)
    assert remaining(services.aws, services.queue) == (0, 0)


def test_a_functions_failure_ends_the_job_and_its_caller_reads_why(standard: ComputeAws) -> None:
    job_id, delivery = posted(standard, {"numbre": 4})

    state = run(job_id, "answer", delivery)

    error = standard.producer().retrieve_result(job_id).error
    assert isinstance(error, JobError)
    assert (error.type, error.message, "compute_functions.py" in error.trace) == ("KeyError", "'number'", True)
    assert (state.name, state.is_failed()) == ("FunctionFailed", True)
    assert remaining(standard.aws, standard.queue) == (0, 0)
    assert received_dead(standard.aws, standard.queue) == []


def test_a_second_delivery_computes_nothing(standard: ComputeAws, tmp_path: Path) -> None:
    body = {"file": str(tmp_path / "calls")}
    job_id, delivery = posted(standard, body)
    run(job_id, "count_calls", delivery)

    state = run(job_id, "count_calls", delivery)

    assert state.name == "Duplicate"
    assert standard.producer().retrieve_result(job_id).result == 1
    assert (tmp_path / "calls").read_text().splitlines() == [job_id]


def test_a_job_that_another_run_holds_is_left_alone_until_its_lease_ends(standard: ComputeAws) -> None:
    job_id, delivery = posted(standard, {"number": 4})
    standard.jobs().claim(job_id, "another run")

    state = run(job_id, "answer", delivery)

    assert (state.name, state.is_completed()) == ("Leased", True)
    assert standard.producer().retrieve_result_status(job_id) is ResultStatus.IN_PROGRESS
    assert remaining(standard.aws, standard.queue) == (0, 1)  # hidden, not deleted


def test_another_run_takes_over_after_the_lease(standard: ComputeAws) -> None:
    job_id, delivery = posted(standard, {"number": 4})
    dead = standard.jobs().claim(job_id, "a run that died").lease
    standard.clock.ahead += 61

    state = run(job_id, "answer", delivery)

    assert state.name == "Computed"
    with pytest.raises(Exception, match="has passed on"):
        standard.jobs().succeed(dead, '"late"')
    assert standard.producer().retrieve_result(job_id).result == {"answer": 42, "id": job_id}


def test_the_lease_is_renewed_while_the_function_blocks(standard: ComputeAws, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(standard, monkeypatch, lease_seconds=6)
    job_id, delivery = posted(standard, 8.0)  # seconds, more than a lease

    state = run(job_id, "hold_the_interpreter", delivery)

    assert state.name == "Computed"
    assert standard.row(job_id)["attempts"] == "1"


def test_a_run_whose_lease_was_taken_ends_the_function_and_writes_nothing(
    standard: ComputeAws, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    connect(standard, monkeypatch, lease_seconds=1.5)
    pids = tmp_path / "pids"
    job_id, delivery = posted(standard, {"pids": str(pids)})
    found: list[psutil.Process] = []

    def take() -> None:
        eventually(pids.exists)
        found.extend(psutil.Process(int(pid)) for pid in pids.read_text().split())
        standard.client("dynamodb").update_item(
            TableName=standard.table,
            Key={"job_id": {"S": job_id}},
            UpdateExpression="SET lease_token = :theirs",
            ExpressionAttributeValues={":theirs": {"S": "theirs"}},
        )
        standard.jobs().succeed(Lease(job_id, "theirs", 2), '"theirs"')

    taker = threading.Thread(target=take)
    taker.start()
    state = run(job_id, "hang", delivery)
    taker.join()

    assert (state.name, state.is_completed()) == ("TakenOver", True)
    assert len(found) == 2
    eventually(lambda: not any(map(runs, found)))
    assert standard.producer().retrieve_result(job_id).result == "theirs"
    assert sum(remaining(standard.aws, standard.queue)) == 1  # the other run deletes it


def test_a_process_that_died_is_called_again(standard: ComputeAws, tmp_path: Path) -> None:
    job_id, delivery = posted(standard, {"mark": str(tmp_path / "mark")})

    first = run(job_id, "die_once", delivery)
    [again] = standard.received()  # at once, not after the visibility timeout
    second = run(job_id, "die_once", again.delivery)

    assert (first.name, second.name) == ("Died", "Computed")
    assert standard.producer().retrieve_result(job_id).result == "alive"


def test_poison_goes_to_the_dead_letters_and_its_caller_is_told(services: ComputeAws) -> None:
    job_id, delivery = posted(services, None)
    for _ in range(2):
        assert run(job_id, "die", delivery).name == "Died"
        [received] = services.received()
        delivery = received.delivery

    state = run(job_id, "die", delivery)

    assert (state.name, state.is_failed()) == ("Rejected", True)
    [(body, attributes)] = received_dead(services.aws, services.queue)
    assert job_id in body
    assert "2 runs ended without a result" in attributes["reason"]
    assert remaining(services.aws, services.queue) == (0, 0)
    error = services.producer().retrieve_result(job_id).error
    assert error is not None
    assert error.type == "Abandoned"


@pytest.mark.parametrize(
    ("body", "reason"),
    [("not json", "The message is not JSON"), ('{"number": 4}', "The message names no job")],
)
def test_the_bridge_buries_what_is_no_job(standard: ComputeAws, body: str, reason: str) -> None:
    standard.client("sqs").send_message(QueueUrl=standard.queue.queue_url, MessageBody=body)
    standard.producer().post_non_blocking({"number": 4})

    publisher = bridge(standard, "answer")

    assert [state.name for state in publisher.states] == ["Computed"]
    [(buried, attributes)] = received_dead(standard.aws, standard.queue)
    assert buried == body
    assert attributes["reason"].startswith(reason)


def test_a_message_without_a_row_goes_to_the_dead_letters(standard: ComputeAws) -> None:
    _, delivery = posted(standard, 1)

    state = run("nobody", "answer", delivery)

    assert state.name == "Rejected"
    [(_, attributes)] = received_dead(standard.aws, standard.queue)
    assert attributes["reason"].startswith("There is no job nobody")


def test_a_misnamed_function_costs_no_job(standard: ComputeAws) -> None:
    job_id, delivery = posted(standard, {"number": 4})

    for _ in range(3):  # more often than a job may kill its runs
        state = run(job_id, f"{FUNCTIONS}:absent", delivery)
        assert (state.name, state.is_failed()) == ("Postponed", True)
        assert "has no attribute 'absent'" in (state.message or "")

    assert remaining(standard.aws, standard.queue) == (0, 1)
    assert run(job_id, "answer", delivery).name == "Computed"


def test_a_broken_set_up_leaves_the_message(standard: ComputeAws, monkeypatch: pytest.MonkeyPatch) -> None:
    async def load(name: str, delivery: Delivery | None) -> ComputeServices:
        raise InvalidConfiguration("The block compute-jobs/compute cannot be loaded", "there is none")

    monkeypatch.setattr("flows.compute.load_compute_services", load)
    job_id, delivery = posted(standard, 1)

    assert run(job_id, "echo", delivery).name == "Postponed"
    assert sum(remaining(standard.aws, standard.queue)) == 1


def test_a_stopped_run_gives_the_job_back_uncounted(standard: ComputeAws, tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    job_id, delivery = posted(standard, {"pids": str(pids)})

    async def stopped() -> None:
        flow = asyncio.create_task(compute(job_id, f"{FUNCTIONS}:hang", delivery))
        await asyncio.to_thread(eventually, pids.exists)
        flow.cancel()
        await asyncio.gather(flow, return_exceptions=True)

    asyncio.run(stopped())

    assert standard.row(job_id)["attempts"] == "0"
    assert len(standard.received()) == 1  # at once
    assert standard.jobs().claim(job_id, "the next run").lease.attempt == 1


def test_a_result_that_fits_nowhere_is_an_error(standard: ComputeAws, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(standard, monkeypatch, bucket=None)
    job_id, delivery = posted(standard, 300_000)

    state = run(job_id, "large", delivery)

    assert state.name == "FunctionFailed"
    error = standard.producer().retrieve_result(job_id).error
    assert error is not None
    assert (error.type, "The result is too large" in error.message) == ("ResultRefused", True)


def test_a_task_of_ecs_is_protected_while_its_job_runs(
    standard: ComputeAws, monkeypatch: pytest.MonkeyPatch, httpserver: HTTPServer
) -> None:
    connect(standard, monkeypatch, lease_seconds=1.5)
    protected = {"protection": {"ProtectionEnabled": True}}
    httpserver.expect_request("/task-protection/v1/state", method="PUT").respond_with_json(protected)
    monkeypatch.setenv("ECS_AGENT_URI", httpserver.url_for("").rstrip("/"))
    job_id, delivery = posted(standard, 2.0)

    state = run(job_id, "hold_the_interpreter", delivery)

    asked = [request.get_json() for request, _ in httpserver.log]
    assert state.name == "Computed"
    assert len(asked) >= 3  # before the function begins, then with each heartbeat
    assert asked[0] == {"ProtectionEnabled": True, "ExpiresInMinutes": 1}


def test_an_agent_that_refuses_stops_no_job(
    standard: ComputeAws, monkeypatch: pytest.MonkeyPatch, httpserver: HTTPServer
) -> None:
    monkeypatch.setenv("ECS_AGENT_URI", httpserver.url_for("").rstrip("/"))  # which answers 500
    job_id, delivery = posted(standard, {"number": 4})

    assert run(job_id, "answer", delivery).name == "Computed"
    assert len(httpserver.log) == 1


def test_what_a_job_took_is_measured(standard: ComputeAws) -> None:
    job_id, delivery = posted(standard, 0.2)
    measures = ComputeMetrics("compute", standard.client)
    assert measures.mean_job_seconds(600) is None

    run(job_id, "hold_the_interpreter", delivery)

    assert (measures.mean_job_seconds(600) or 0) > 0.2


def test_an_outage_of_the_metrics_harms_no_job(standard: ComputeAws, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(service: str) -> Any:
        asked.append(service)
        raise EndpointConnectionError(endpoint_url=UNREACHABLE)

    asked: list[str] = []
    connect(standard, monkeypatch, measures=away)
    job_id, delivery = posted(standard, {"number": 4})

    state = run(job_id, "answer", delivery)

    assert (state.name, asked) == ("Computed", ["cloudwatch"])
