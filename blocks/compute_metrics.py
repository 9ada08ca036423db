"""The compute client's two metrics in CloudWatch: how long jobs take, and how much work waits for each worker."""

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, cast

from aws_api import ClientFactory
from aws_api.errors import aws_errors
from compute_client.backlog import Backlog

if TYPE_CHECKING:
    from types_boto3_cloudwatch import CloudWatchClient
    from types_boto3_cloudwatch.type_defs import DimensionTypeDef, MetricDatumTypeDef

# deployments/aws/compute.yaml says the same four.
NAMESPACE = "LeaderboardCompute"
DIMENSION = "Jobs"
JOB_SECONDS = "JobSeconds"
BACKLOG_SECONDS = "BacklogSecondsPerWorker"


class ComputeMetrics:
    """Of one queue of jobs, by its name. Raises what `aws_errors` says."""

    def __init__(self, name: str, client: ClientFactory) -> None:
        self._name = name
        self._client = client

    def job_took(self, seconds: float) -> None:
        """A run was busy with a job so long, whatever came of it."""
        self._put({"MetricName": JOB_SECONDS, "Value": seconds, "Unit": "Seconds", "Dimensions": self._dimensions})

    def mean_job_seconds(self, window_seconds: int) -> float | None:
        """Over the jobs that ended within the last so many seconds (60 at least); None where there were none."""
        now = datetime.now(UTC)
        with aws_errors(f"Reading the metric {JOB_SECONDS} of {self._name}"):
            answer = self._cloudwatch().get_metric_statistics(
                Namespace=NAMESPACE,
                MetricName=JOB_SECONDS,
                Dimensions=self._dimensions,
                StartTime=now - timedelta(seconds=window_seconds),
                EndTime=now + timedelta(seconds=60),  # CloudWatch rounds to whole minutes
                Period=60,
                Statistics=["Sum", "SampleCount"],
            )
        jobs = sum(point["SampleCount"] for point in answer["Datapoints"])
        return sum(point["Sum"] for point in answer["Datapoints"]) / jobs if jobs else None

    def publish(self, backlog: Backlog) -> None:
        """What the target-tracking policy scales by, and what it is made of."""
        self._put(
            {
                "MetricName": BACKLOG_SECONDS,
                "Value": backlog.seconds_per_worker,
                "Unit": "Seconds",
                "Dimensions": self._dimensions,
            },
            {"MetricName": "JobsWaiting", "Value": backlog.jobs, "Unit": "Count", "Dimensions": self._dimensions},
            {"MetricName": "Workers", "Value": backlog.workers, "Unit": "Count", "Dimensions": self._dimensions},
        )

    def _put(self, *data: "MetricDatumTypeDef") -> None:
        with aws_errors(f"Publishing the metrics of {self._name}"):
            self._cloudwatch().put_metric_data(Namespace=NAMESPACE, MetricData=list(data))

    @property
    def _dimensions(self) -> "list[DimensionTypeDef]":
        return [{"Name": DIMENSION, "Value": self._name}]

    def _cloudwatch(self) -> "CloudWatchClient":
        return cast("CloudWatchClient", self._client("cloudwatch"))
