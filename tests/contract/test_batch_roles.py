"""The roles of deployments/aws/batch-roles.yaml allow what BatchJobBackend calls, and nothing more: on moto's Batch."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from aws_rights import ACCOUNT, REGION, Right, allowed, granted, managed_policy, role_policies
from botocore.client import BaseClient

from evaluation.shards import ShardState
from tests.contract.batch_harness import LEADERBOARD, QUEUE, BatchHarness
from tests.contract.test_job_backend import BUCKET, World, follow, run

REGISTRAR = f"{LEADERBOARD}-batch-registrar"
# moto enforces no role; the caller's access key distinguishes the two: the registrar's comes from AssumeRole.
OWN_KEY = "testing"


def rights_of(call: str, given: Mapping[str, Any]) -> list[Right]:
    """What IAM asks for one call of Batch, of its logs, or of STS. Source: AWS's service authorization reference."""
    arn = f"arn:aws:batch:{REGION}:{ACCOUNT}"
    match call:
        case "SubmitJob":
            definition = str(given["jobDefinition"])
            things = [definition, f"{arn}:job-queue/{given['jobQueue']}"]
            tags = [Right("batch:TagResource", f"{arn}:job/any")] if given.get("tags") else []
            return [Right("batch:SubmitJob", thing) for thing in things] + tags
        case "RegisterJobDefinition":
            definition = f"{arn}:job-definition/{given['jobDefinitionName']}"
            roles = [
                task[key]
                for task in given["ecsProperties"]["taskProperties"]
                for key in ("executionRoleArn", "taskRoleArn")
            ]
            passed = [Right("iam:PassRole", role) for role in roles]
            return [Right("batch:RegisterJobDefinition", definition), Right("batch:TagResource", definition), *passed]
        case "TerminateJob":
            return [Right("batch:TerminateJob", f"{arn}:job/{given['jobId']}")]
        case "TagResource":
            return [Right("batch:TagResource", given["resourceArn"])]
        case "GetJobQueueSnapshot":
            return [Right("batch:GetJobQueueSnapshot", f"{arn}:job-queue/{given['jobQueue']}")]
        case "GetLogEvents":
            group = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{given['logGroupName']}"
            return [Right("logs:GetLogEvents", f"{group}:log-stream:{given['logStreamName']}")]
        case "AssumeRole":
            return [Right("sts:AssumeRole", given["RoleArn"])]
        case _:
            return [Right(f"batch:{call}", "*")]


@contextmanager
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, set[Right]]]:
    """The rights that the calls inside need, by who makes them: the flow run's role, or the registrar's."""
    needed: dict[str, set[Right]] = {"flow run": set(), "registrar": set()}
    original, lock = BaseClient._make_api_call, threading.Lock()

    def call(client: Any, name: str, parameters: dict[str, Any]) -> Any:
        if client.meta.service_model.service_name in ("batch", "logs", "sts"):
            own = client._request_signer._credentials.access_key == OWN_KEY
            with lock:
                needed["flow run" if own else "registrar"].update(rights_of(name, parameters))
        return original(client, name, parameters)

    with monkeypatch.context() as patch:
        patch.setattr(BaseClient, "_make_api_call", call)
        yield needed


@pytest.fixture
def world(tmp_path: Path, aws: dict[str, Any]) -> Iterator[World]:
    boto3.client("s3", **aws).create_bucket(
        Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": aws["region_name"]}
    )
    harness = BatchHarness(tmp_path, aws["endpoint_url"])
    yield World(harness, boto3.client("s3", **aws))
    run(harness.backend().remove(7, 1))


def whole_life(world: World) -> None:
    """Everything that a flow run does with the backend."""
    backend, job = world.harness.backend(), world.job("fast")
    run(backend.preflight())  # type: ignore[attr-defined]
    run(backend.ensure([job]))
    assert follow(backend, job)[-1].state is ShardState.FINISHED
    assert run(backend.logs(job, 5))["agent"]
    assert run(backend.running()) == {(7, 1)}
    run(backend.remove(7, 1))


async def one_look_at_a_job_that_waits(world: World) -> None:
    backend, job = world.harness.backend(), world.job("hang", attempt=2, hang_seconds=60.0)
    world.harness.stuck = ""  # type: ignore[attr-defined]
    await backend.ensure([job])
    async with aclosing(backend.watch([job])) as snapshots:  # type: ignore[type-var]
        async for statuses in snapshots:
            if statuses[job.shard.index].queue:
                break
    await backend.remove(7, 2)
    world.harness.stuck = None  # type: ignore[attr-defined]


def test_a_flow_run_and_its_registrar_may_do_what_the_backend_calls_and_nothing_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    aws = world.harness.aws  # type: ignore[attr-defined]
    policies = {
        "flow run": managed_policy(aws, f"arn:aws:iam::{ACCOUNT}:policy/{LEADERBOARD}-batch-submitter"),
        "registrar": role_policies(aws, REGISTRAR),
    }

    with recorded(monkeypatch) as needed:
        whole_life(world)
        run(one_look_at_a_job_that_waits(world))
        running = world.job("hang", attempt=2, hang_seconds=60.0)
        run(world.harness.backend().ensure([running]))
        run(world.harness.backend().remove(7, 2))

    for party, rights in needed.items():
        assert [right for right in sorted(rights) if not allowed(policies[party], right)] == [], party
        assert granted(policies[party]) == {right.action for right in rights}, party


def test_the_flow_run_registers_nothing_and_submits_no_base(world: World) -> None:
    aws = world.harness.aws  # type: ignore[attr-defined]
    submitter = managed_policy(aws, f"arn:aws:iam::{ACCOUNT}:policy/{LEADERBOARD}-batch-submitter")
    registrar = role_policies(aws, REGISTRAR)
    base = f"arn:aws:batch:{REGION}:{ACCOUNT}:job-definition/{LEADERBOARD}-shard"

    assert not allowed(submitter, Right("batch:RegisterJobDefinition", f"{base}-submission-7"))
    assert not allowed(submitter, Right("batch:SubmitJob", f"{base}:1"))
    assert not allowed(registrar, Right("batch:RegisterJobDefinition", base))
    assert not allowed(registrar, Right("batch:SubmitJob", f"arn:aws:batch:{REGION}:{ACCOUNT}:job-queue/{QUEUE}"))
