"""deployments/aws/compute.yaml and compute-workers.yaml in moto: names, numbers and rights are those of the code."""

import logging
import threading
from functools import partial
from typing import Any

import boto3
import pytest

from blocks.compute_metrics import BACKLOG_SECONDS, DIMENSION, NAMESPACE, ComputeMetrics
from cli import compute as compute_commands
from compute_client import DynamoDBClient, Producer
from compute_client.backlog import Backlog
from compute_client.job import JobError, ResultStatus
from compute_client.table import DAY, OPEN_SECONDS
from deployments.stack_state import StackState
from embedded.aws import EmbeddedAws
from embedded.compute_queue import embedded_places
from evaluation.errors import InvalidConfiguration
from services.compute_backlog import Jobs, Rate, describe, ecs_workers, keep_publishing, measure, publish
from tests.aws_templates import aws as template_of
from tests.aws_templates import properties
from tests.contract.aws_rights import allowed, granted, managed_policy, recorded, role_policies
from tests.contract.compute_harness import ComputeAws
from tests.waiting import PATIENCE_SECONDS, eventually


@pytest.fixture
def harness(aws: dict[str, Any]) -> ComputeAws:
    return ComputeAws(aws)


@pytest.fixture
def workers(harness: ComputeAws, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The workers' stack; moto knows nothing of its scaling and its alarms, and lets this many tasks run."""
    monkeypatch.setenv("MOTO_ECS_SERVICE_RUNNING", "1")
    ec2 = boto3.client("ec2", **harness.aws)
    subnets = [subnet["SubnetId"] for subnet in ec2.describe_subnets()["Subnets"]]
    return EmbeddedAws(harness.aws["endpoint_url"], harness.aws["region_name"]).deploy(
        "compute-workers",
        VpcId=ec2.describe_vpcs()["Vpcs"][0]["VpcId"],
        SubnetIds=",".join(subnets[:2]),
        Image="123456789012.dkr.ecr.us-west-2.amazonaws.com/compute:1",
        RepositoryArn="arn:aws:ecr:us-west-2:123456789012:repository/compute",
        PrefectApiUrl="http://prefect.example/api",
    )


unknown_to_moto = pytest.mark.filterwarnings("ignore:Tried to parse AWS:UserWarning")


def jobs_of(harness: ComputeAws, **changes: Any) -> Jobs:
    return Jobs(harness.queue, harness.block(metrics="compute", **changes))


def test_callers_may_do_what_a_producer_does(harness: ComputeAws, monkeypatch: pytest.MonkeyPatch) -> None:
    policies = managed_policy(harness.aws, harness.made["CallersPolicyArn"])
    producer, jobs = harness.producer(), harness.jobs()
    with recorded(monkeypatch) as needed:
        posted = [producer.post_non_blocking(body) for body in (1, "x" * 200_000)]
    for job_id in posted:
        jobs.succeed(jobs.claim(job_id, "run").lease, '"' + "y" * 300_000 + '"')
    with recorded(monkeypatch) as reading:
        for job_id in posted:
            producer.retrieve_result(job_id)

    assert {right.action for right in needed | reading} == granted(policies) - {"sqs:GetQueueUrl"}
    assert [right for right in needed | reading if not allowed(policies, right)] == []


@unknown_to_moto
def test_workers_may_do_what_a_run_does_and_no_more(
    harness: ComputeAws, workers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    policies = role_policies(harness.aws, workers["WorkerRoleArn"].rpartition("/")[2])
    ids = [harness.producer().post_non_blocking(body) for body in ("x" * 200_000, 2, 3)]
    first, second, third = harness.received()
    jobs = harness.jobs()
    with recorded(monkeypatch) as needed:
        claimed = [jobs.claim(job_id, "run") for job_id in ids]
        jobs.body(claimed[0])
        jobs.renew(claimed[0].lease)
        jobs.succeed(claimed[0].lease, '"' + "y" * 300_000 + '"')
        jobs.fail(claimed[1].lease, JobError("E", "message"))
        jobs.give_back(claimed[2].lease, counted=True)
        harness.queue.extend(first.delivery, 60)
        harness.queue.acknowledge(second.delivery)
        harness.queue.reject(third.delivery, third.body, "reason")

    beside = {"ecs:UpdateTaskProtection", "cloudwatch:PutMetricData"}
    assert {right.action for right in needed} == granted(policies) - beside
    assert [right for right in needed if not allowed(policies, right)] == []


def test_the_messages_outlive_no_row_and_the_contents_no_less_than_the_row() -> None:
    queues = {"RedrivePolicy" in each: each for each in properties("compute", "AWS::SQS::Queue")}
    contents = template_of("compute")["Parameters"]["ContentDays"]
    (table,) = properties("compute", "AWS::DynamoDB::Table")

    assert queues[True]["MessageRetentionPeriod"] < OPEN_SECONDS
    assert min(contents["MinValue"], contents["Default"]) * DAY > OPEN_SECONDS + 7 * DAY
    assert table["TimeToLiveSpecification"] == {"AttributeName": "expires_at", "Enabled": True}


def test_the_policy_follows_the_metric_that_is_published() -> None:
    (policy,) = properties("compute-workers", "AWS::ApplicationAutoScaling::ScalingPolicy")
    followed = policy["TargetTrackingScalingPolicyConfiguration"]["CustomizedMetricSpecification"]

    assert (followed["Namespace"], followed["MetricName"]) == (NAMESPACE, BACKLOG_SECONDS)
    assert followed["Dimensions"] == [{"Name": DIMENSION, "Value": {"Ref": "Name"}}]
    conditions = [
        statement["Condition"]["StringEquals"]["cloudwatch:namespace"]
        for role in properties("compute-workers", "AWS::IAM::Role")
        for statement in role.get("Policies", [{}])[0]["PolicyDocument"]["Statement"]
        if statement["Action"] == "cloudwatch:PutMetricData"
    ]
    assert conditions == [NAMESPACE, NAMESPACE]


@unknown_to_moto
def test_the_workers_are_the_services_tasks(harness: ComputeAws, workers: dict[str, str]) -> None:
    jobs = jobs_of(harness)

    assert ecs_workers(jobs, workers["ClusterName"], "workers") == 1
    ecs = boto3.client("ecs", **harness.aws)
    ecs.update_service(cluster=workers["ClusterName"], service="workers", desiredCount=0)
    assert ecs_workers(jobs, workers["ClusterName"], "workers") == 0
    with pytest.raises(InvalidConfiguration, match="There is no ECS service compute/absent"):
        ecs_workers(jobs, "compute", "absent")


def test_the_backlog_counts_what_is_in_flight_over_the_measured_rate(harness: ComputeAws) -> None:
    jobs = jobs_of(harness)
    for number in range(4):
        harness.producer().post_non_blocking(number)
    harness.queue.receive(limit=3, wait_seconds=0)  # as the bridge does
    rate = Rate(assumed_seconds=60, start_seconds=10)

    assumed = measure(jobs, lambda: 2, rate)
    for seconds in (20, 40):
        ComputeMetrics("compute", harness.client).job_took(seconds)
    measured = measure(jobs, lambda: 2, rate)

    assert assumed == Backlog(visible=1, in_flight=3, workers=2, job_seconds=70)
    assert measured == Backlog(visible=1, in_flight=3, workers=2, job_seconds=40)
    assert (assumed.seconds_per_worker, measured.seconds_per_worker) == (140, 80)
    assert describe(measured) == "4 jobs (1 visible, 3 in flight), 2 workers, 40.0 s a job: 80 s for each worker"


def test_the_backlog_without_workers_is_what_one_would_have() -> None:
    assert Backlog(visible=0, in_flight=5, workers=0, job_seconds=10).seconds_per_worker == 50


def test_the_publisher_goes_on_through_an_outage_and_sends_what_was_not_sent(
    harness: ComputeAws, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    harness.jobs().submit("unsent", 1, "unsent")
    monkeypatch.setattr("services.compute_backlog.UNSENT_SECONDS", 0)
    jobs, stop, looks = jobs_of(harness), threading.Event(), iter([False, True, True])

    def look() -> Backlog:
        if not next(looks, True):
            raise InvalidConfiguration("There is no ECS service compute/workers")
        return measure(jobs, lambda: 1, Rate())

    with caplog.at_level(logging.INFO):
        thread = threading.Thread(target=keep_publishing, args=(jobs, look, 0.05, stop))
        thread.start()
        eventually(lambda: "sent 1 jobs that were recorded without a message: unsent" in caplog.text)
        stop.set()
        thread.join(PATIENCE_SECONDS)

    assert not thread.is_alive()
    assert "the backlog is not published now: There is no ECS service" in caplog.text
    found = boto3.client("cloudwatch", **harness.aws).list_metrics(Namespace=NAMESPACE)["Metrics"]
    assert {metric["MetricName"] for metric in found} == {BACKLOG_SECONDS, "JobsWaiting", "Workers"}
    assert len(harness.received()) == 1


def test_without_metrics_nothing_is_published(harness: ComputeAws) -> None:
    jobs = Jobs(harness.queue, harness.block())
    with pytest.raises(InvalidConfiguration, match="the block names no metrics"):
        publish(jobs, measure(jobs, lambda: 1, Rate()))


def test_the_block_gives_its_settings_to_the_table(harness: ComputeAws) -> None:
    block = harness.block(lease_seconds=7, most_attempts=1, result_days=2)
    harness.producer().post_non_blocking(1, job_id="mine")
    jobs = block.jobs()

    jobs.give_back(jobs.claim("mine", "run").lease, counted=True)

    assert jobs.lease_seconds == 7
    with pytest.raises(Exception, match="1 runs ended without a result"):
        jobs.claim("mine", "second")
    assert float(harness.row("mine")["expires_at"]) == pytest.approx(harness.clock() + 2 * DAY, abs=60)


@pytest.mark.parametrize(
    ("workers", "service", "said"),
    [
        (None, None, "give one of --workers and --ecs-service"),
        (1, "compute/workers", "give one of --workers and --ecs-service"),
        (None, "workers", "has to look like CLUSTER/SERVICE"),
    ],
)
def test_the_workers_have_to_be_known(harness: ComputeAws, workers: int | None, service: str | None, said: str) -> None:
    with pytest.raises(InvalidConfiguration, match=said):
        compute_commands.count_workers(jobs_of(harness), workers, service)


def test_an_embedded_stack_gets_its_queue_once(aws: dict[str, Any]) -> None:
    stack = StackState.model_construct(aws_url=aws["endpoint_url"], region=aws["region_name"])

    first, again = embedded_places(stack, "thumbnails"), embedded_places(stack, "thumbnails")

    assert first == again
    assert (first.table, first.bucket) == ("thumbnails", "thumbnails-contents")
    producer = Producer(
        first.queue_url, DynamoDBClient(first.table, first.bucket, make_client=partial(boto3.client, **aws))
    )
    assert producer.retrieve_result_status(producer.post_non_blocking("x" * 200_000)) is ResultStatus.SUBMITTED
