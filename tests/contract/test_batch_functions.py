"""Python functions as Batch jobs, on moto's Batch: the container is the definition's command, values go through S3."""

import asyncio
import dataclasses
from pathlib import Path
from typing import Any

import aws_rights
import boto3
import pytest
from aws_rights import Right, allowed, granted, managed_policy, recorded, role_policies

from aws_api.s3 import read_object
from batch_jobs import function_main
from batch_jobs.function_job import FunctionCall
from batch_jobs.functions import BatchFunctions
from compute_client.job import JobFailed
from evaluation.errors import InvalidConfiguration, RequestRefused
from tests import batch_functions as functions
from tests.contract.batch_harness import HOST_LOST
from tests.contract.function_machine import BUCKET, DEFINITION, QUICK, Clock, FunctionMachine
from tests.contract.test_batch_roles import rights_of as batch_rights
from tests.waiting import eventually_in_loop

pytestmark = pytest.mark.anyio
ACCOUNT = "123456789012"
ADD = FunctionCall("tests.batch_functions:add", {"first": 2, "second": 3}, adhoc=True)


@pytest.fixture
def machine(aws: dict[str, Any], tmp_path: Path) -> FunctionMachine:
    return FunctionMachine(aws, tmp_path)


def on(machine: FunctionMachine, clock: Clock | None = None, **changes: Any) -> BatchFunctions:
    limits = dataclasses.replace(QUICK, clock=clock) if clock else QUICK
    return dataclasses.replace(machine.tasks().functions(), limits=limits, **changes)


async def test_a_function_runs_there_and_its_value_comes_back(machine: FunctionMachine) -> None:
    said: list[str] = []

    result = await on(machine).run(ADD, "run-1-a", "flow-run-1", said.append)

    assert result == {"sum": 5, "role": "task"}
    (job,) = machine.jobs
    assert all(line.startswith(f"[{job.job_id}] ") for line in said)
    assert f"[{job.job_id}] adding 2 3" in said
    statuses = [line.split(" is ")[1].split(":")[0] for line in said if "tests.batch_functions:add is" in line]
    assert statuses[-1] == "SUCCEEDED"
    assert statuses == list(dict.fromkeys(statuses))  # each change once
    assert job.describe()["tags"] == {
        "leaderboard:function": "tests.batch_functions:add",
        "leaderboard:flow-run": "flow-run-1",
    }


@pytest.mark.parametrize(
    ("sizes", "queue", "asked"),
    [
        ({}, "leaderboard-cpu-production", {"VCPU": "2", "MEMORY": "4096"}),
        ({"adhoc": True, "vcpus": 0.5}, "leaderboard-cpu-adhoc", {"VCPU": "0.5", "MEMORY": "4096"}),
        ({"gpus": 1}, "leaderboard-gpu-production", {"VCPU": "2", "MEMORY": "4096", "GPU": "1"}),
        (
            {"gpus": 1, "adhoc": True, "memory_mib": 512},
            "leaderboard-gpu-adhoc",
            {"VCPU": "2", "MEMORY": "512", "GPU": "1"},
        ),
    ],
)
async def test_the_sizes_choose_the_queue_and_the_role_is_always_the_definitions(
    machine: FunctionMachine, sizes: dict[str, Any], queue: str, asked: dict[str, str]
) -> None:
    call = FunctionCall("tests.batch_functions:add", {"first": 1}, **sizes)

    assert await on(machine).run(call, "run-1-a", "1", print) == {"sum": 1, "role": "task"}

    (job,) = machine.jobs
    assert job.job_queue.name == queue
    assert {each["type"]: each["value"] for each in job.containers()[0]["resourceRequirements"]} == asked
    (task,) = job.definition.ecs_properties["taskProperties"]
    assert task["taskRoleArn"].endswith(f"role/{DEFINITION}-task")
    assert set(job.override["function"]) <= {"name", "environment", "resourceRequirements"}


async def test_a_status_that_stays_is_said_again_every_thirty_seconds(machine: FunctionMachine) -> None:
    machine.reason, said = "", []

    async with asyncio.TaskGroup() as group:
        running = group.create_task(on(machine, Clock(step=5)).run(ADD, "run-1-a", "1", said.append))
        await eventually_in_loop(lambda: sum("is RUNNABLE" in line for line in said) >= 4)
        machine.reason = None

    assert running.result() == {"sum": 5, "role": "task"}


async def test_what_batch_calls_misconfigured_is_an_error_at_once_and_ended(machine: FunctionMachine) -> None:
    machine.reason, said = "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - no instance has 96 vCPUs", []

    with pytest.raises(InvalidConfiguration) as failure:
        await on(machine).run(dataclasses.replace(ADD, vcpus=96), "run-1-a", "1", said.append)

    assert "Batch calls the job of tests.batch_functions:add misconfigured" in str(failure.value)
    assert "none of the queue's has what it asks for" in str(failure.value)
    assert "no instance has 96 vCPUs" in said[-1]
    await eventually_in_loop(lambda: machine.statuses("run-1-a") == ["FAILED"])


async def test_a_reason_that_may_pass_is_only_said(machine: FunctionMachine) -> None:
    machine.reason, said = "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY", []

    async with asyncio.TaskGroup() as group:
        running = group.create_task(on(machine).run(ADD, "run-1-a", "1", said.append))
        await eventually_in_loop(lambda: any("AWS has no instance of the queue's types left" in line for line in said))
        machine.reason = None

    assert running.result() == {"sum": 5, "role": "task"}


async def test_a_cancellation_ends_the_job(machine: FunctionMachine) -> None:
    call = FunctionCall("tests.batch_functions:hangs")
    running = asyncio.create_task(on(machine).run(call, "run-1-a", "1", print))
    await eventually_in_loop(lambda: machine.jobs)  # perhaps before the answer to SubmitJob has come

    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running

    await eventually_in_loop(lambda: machine.statuses("run-1-a") == ["FAILED"])
    assert "its flow run was cancelled" in str(machine.jobs[0].job_stopped_reason)


async def test_a_run_that_died_leaves_jobs_that_its_hook_ends_by_name(machine: FunctionMachine) -> None:
    machine.reason = ""
    running = asyncio.create_task(on(machine).run(ADD, "run-1-a", "1", print))
    await eventually_in_loop(lambda: machine.statuses("run-1-a") == ["RUNNABLE"])

    assert await machine.tasks().end("run-2-*") == []
    (ended,) = await machine.tasks().end("run-1-*")

    with pytest.raises(JobFailed) as failure:
        await running
    assert failure.value.error.type == "Terminated"
    assert failure.value.job_id == ended


async def test_a_repeated_call_adopts_the_job_that_lives(machine: FunctionMachine) -> None:
    machine.reason = ""
    first = asyncio.create_task(on(machine).run(ADD, "run-1-a", "1", print))
    await eventually_in_loop(lambda: machine.statuses("run-1-a") == ["RUNNABLE"])
    second = asyncio.create_task(on(machine).run(ADD, "run-1-a", "1", print))
    await asyncio.sleep(0)
    machine.reason = None

    assert await first == await second == {"sum": 5, "role": "task"}
    assert len(machine.jobs) == 1


async def test_a_lost_machine_is_nobodys_fault(machine: FunctionMachine) -> None:
    machine.losses = 2

    assert await on(machine).run(ADD, "run-1-a", "1", print) == {"sum": 5, "role": "task"}
    assert [each["statusReason"] for each in machine.jobs[0].past][:2] == [HOST_LOST, HOST_LOST]


@pytest.mark.parametrize(
    ("function", "arguments", "kind", "words"),
    [
        ("fails", {"words": "no such number"}, "ValueError", "no such number"),
        ("add", {"third": 1}, "TypeError", "third"),
        ("dies", {}, "BatchJobFailed", "exit code 7"),
        ("returns_a_set", {}, "TypeError", "the result is not JSON"),
    ],
)
async def test_a_failure_carries_its_error_and_is_not_tried_again(
    machine: FunctionMachine, function: str, arguments: dict[str, Any], kind: str, words: str
) -> None:
    call, said = FunctionCall(f"tests.batch_functions:{function}", arguments), list[str]()

    with pytest.raises(JobFailed) as failure:
        await on(machine).run(call, "run-1-a", "1", said.append)

    assert "FAILED" in said[-1]
    assert kind == "BatchJobFailed" or words in said[-2]  # the end of the trace, as the container printed it
    assert failure.value.error.type == kind
    assert words in failure.value.error.message
    assert len(machine.jobs) == 1


async def test_the_outcome_of_an_earlier_job_of_the_name_is_not_taken_for_a_new_ones(machine: FunctionMachine) -> None:
    assert await on(machine).run(ADD, "run-1-a", "1", print)

    with pytest.raises(JobFailed):
        await on(machine).run(FunctionCall("tests.batch_functions:dies"), "run-1-a", "1", print)


async def test_a_function_that_the_image_does_not_have_is_a_wrong_configuration(machine: FunctionMachine) -> None:
    with pytest.raises(InvalidConfiguration, match="cannot be imported"):
        await on(machine).run(FunctionCall("no.such.module:function"), "run-1-a", "1", print)


@pytest.mark.parametrize(
    ("call", "changes", "words"),
    [
        (ADD, {"definition": "nobodys"}, "There is no active job definition nobodys"),
        (dataclasses.replace(ADD, gpus=1, adhoc=False), {}, "the shards need|wants|has no GPU"),
    ],
)
async def test_what_does_not_fit_is_refused_before_anything_is_submitted(
    machine: FunctionMachine, call: FunctionCall, changes: dict[str, Any], words: str
) -> None:
    wrong = dataclasses.replace(machine.tasks().functions().queues, gpu="leaderboard-cpu-production")

    with pytest.raises(InvalidConfiguration, match=words):
        await on(machine, queues=wrong, **changes).run(call, "run-1-a", "1", print)
    assert machine.jobs == []


async def test_arguments_that_are_not_json_are_refused(machine: FunctionMachine) -> None:
    call = FunctionCall("tests.batch_functions:add", {"first": {1}})
    with pytest.raises(RequestRefused, match="not JSON"):
        await on(machine).run(call, "run-1-a", "1", print)


async def test_a_callable_is_known_by_its_name_unless_no_other_process_could_import_it(
    machine: FunctionMachine,
) -> None:
    tasks = machine.tasks()
    given: dict[str, Any] = {"name": "run-1-a", "flow_run": "1", "say": print}

    assert await tasks.run(functions.add, {"first": 1}, **given) == {"sum": 1, "role": "task"}
    with pytest.raises(InvalidConfiguration, match="cannot be imported in a Batch job"):
        await tasks.run(lambda: 1, {}, **given)


async def test_the_roles_allow_what_is_called_and_nothing_more(
    machine: FunctionMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws = machine.aws
    submitter = managed_policy(aws, f"arn:aws:iam::{ACCOUNT}:policy/{DEFINITION}-submitter")

    original = aws_rights.rights_of

    def noted(service: str, call: str, given: Any) -> Any:
        if service in ("batch", "logs"):
            return iter(batch_rights(call, given))
        return original(service, call, given)

    monkeypatch.setattr(aws_rights, "rights_of", noted)
    with recorded(monkeypatch) as needed:
        await on(machine).run(ADD, "run-1-a", "1", print)
        machine.reason = ""
        running = asyncio.create_task(on(machine).run(ADD, "run-1-b", "1", print))
        await eventually_in_loop(lambda: "RUNNABLE" in machine.statuses("run-1-b"))
        await machine.tasks().end("run-1-b")
        with pytest.raises(JobFailed):
            await running

    assert [right for right in sorted(needed) if not allowed(submitter, right)] == []
    # Asked for beside an absent object: S3 would call it denied else.
    assert granted(submitter) - {right.action for right in needed} == {"s3:ListBucket"}
    definition = f"arn:aws:batch:us-west-2:{ACCOUNT}:job-definition/{DEFINITION}"
    assert not allowed(submitter, Right("batch:RegisterJobDefinition", definition))


async def test_the_functions_role_may_read_arguments_and_write_results_and_nothing_more(
    machine: FunctionMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await on(machine).run(ADD, "run-1-a", "1", print)
    for name, value in {
        "FUNCTION_FOLDER": f"s3://{BUCKET}/functions/run-1-a",
        "AWS_BATCH_JOB_ID": "by-hand",
        "AWS_ENDPOINT_URL": machine.aws["endpoint_url"],
        "AWS_DEFAULT_REGION": "us-west-2",
        "AWS_ACCESS_KEY_ID": "task",
        "AWS_SECRET_ACCESS_KEY": "task",
    }.items():
        monkeypatch.setenv(name, value)
    role = role_policies(machine.aws, f"{DEFINITION}-task")

    with recorded(monkeypatch) as needed:
        assert function_main.main() == 0

    s3 = boto3.client("s3", **machine.aws)
    assert read_object(s3, BUCKET, "functions/run-1-a/outcome-by-hand.json")
    assert all(allowed(role, right) for right in needed)
    assert granted(role) == {right.action for right in needed} | {"s3:ListBucket"}
