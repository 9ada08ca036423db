"""ECS's service of workers as Application Auto Scaling and CloudWatch move it, with real processes as its tasks.

Time goes in minutes that the test counts. What is played, by AWS's documentation of target tracking and of alarms: the
policy makes two alarms on minutes of its metric, one above the target for 3 of 3, one below nine tenths of it for 15 of
15; with fewer datapoints the alarm has insufficient data, and nothing is scaled. Capacity goes in proportion. After a
scale-out nothing is taken away for the scale-in cooldown; a scale-in never touches a protected task.
"""

import json
import math
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from typing import Any

from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from blocks.compute_metrics import BACKLOG_SECONDS, ComputeMetrics
from tests.aws_templates import default, properties
from tests.contract.compute_harness import ComputeAws
from tests.waiting import PATIENCE_SECONDS, eventually

HIGH_POINTS, LOW_POINTS, LOW_SHARE = 3, 15, 0.9
WORKER = """
import sys
from compute_client import Consumer, DynamoDBClient
from tests.compute_functions import wait_for
Consumer(sys.argv[1], DynamoDBClient("compute", lease_seconds=3), wait_for).start_consuming(poll_seconds=1)
"""


class CloudWatch:
    """Takes PutMetricData as boto3's client does, and keeps each minute's average of the backlog."""

    def __init__(self) -> None:
        self.minute = 0
        self._values: dict[int, list[float]] = {}

    def put_metric_data(self, Namespace: str, MetricData: list[dict[str, Any]]) -> None:  # noqa: N803 - boto3's names
        for datum in MetricData:
            if datum["MetricName"] == BACKLOG_SECONDS:
                self._values.setdefault(self.minute, []).append(datum["Value"])

    def metrics(self) -> ComputeMetrics:
        """What publishes here."""
        return ComputeMetrics("compute", lambda _service: self)

    def last(self, minutes: int) -> list[float]:
        """The averages of the last minutes that have any."""
        found = [self._values.get(minute) for minute in range(self.minute - minutes + 1, self.minute + 1)]
        return [sum(each) / len(each) for each in found if each]


class TargetTracking:
    """The template's policy: what the service's capacity becomes."""

    def __init__(self, cloudwatch: CloudWatch, least: int, most: int) -> None:
        (policy,) = properties("compute-workers", "AWS::ApplicationAutoScaling::ScalingPolicy")
        settings = policy["TargetTrackingScalingPolicyConfiguration"]
        self.target = float(default("compute-workers", "TargetBacklogSeconds"))
        self._out_minutes = settings["ScaleOutCooldown"] / 60
        self._in_minutes = settings["ScaleInCooldown"] / 60
        self._cloudwatch = cloudwatch
        self._least, self._most = least, most
        self._out_at = self._in_at = -math.inf

    def desired(self, capacity: int) -> int:
        """Evaluated once a minute."""
        now = self._cloudwatch.minute
        high, low = self._cloudwatch.last(HIGH_POINTS), self._cloudwatch.last(LOW_POINTS)
        if len(high) == HIGH_POINTS and min(high) > self.target:
            wanted = self._proportion(capacity, high[-1])
            if wanted > capacity and now >= self._out_at + self._out_minutes:
                self._out_at = now
                return wanted
        if len(low) == LOW_POINTS and max(low) < LOW_SHARE * self.target:
            wanted = self._proportion(capacity, low[-1])
            if wanted < capacity and now >= max(self._in_at, self._out_at) + self._in_minutes:
                self._in_at = now
                return wanted
        return capacity

    def _proportion(self, capacity: int, metric: float) -> int:
        return min(max(math.ceil(capacity * metric / self.target), self._least), self._most)


@dataclass
class Task:
    """A worker's process, and until which minute it is protected."""

    id: str
    process: "subprocess.Popen[bytes]"
    protected_until: float = -math.inf
    asked_in: int = -1  # the minute of its last request


@dataclass
class Service:
    """ECS: starts and stops tasks, and answers as the agent in each of them."""

    harness: ComputeAws
    server: HTTPServer
    cloudwatch: CloudWatch
    tasks: list[Task] = field(default_factory=list)
    stopped: list[Task] = field(default_factory=list)
    _count: int = 0

    def scale_to(self, count: int) -> None:
        """A scale-in takes unprotected tasks only; what cannot be taken now stays, as in ECS."""
        while len(self.tasks) < count:
            self._start()
        now = self.cloudwatch.minute
        free = [task for task in self.tasks if task.protected_until <= now]
        for task in free[: max(0, len(self.tasks) - count)]:
            self.stop(task)

    def stop(self, task: Task) -> int:
        """StopTask: SIGTERM, and the exit code."""
        self.tasks.remove(task)
        self.stopped.append(task)
        task.process.send_signal(signal.SIGTERM)
        return task.process.wait(PATIENCE_SECONDS)

    def close(self) -> None:
        for task in self.tasks:
            task.process.kill()
            task.process.wait(PATIENCE_SECONDS)

    def of(self, pid: int) -> Task:
        return next(task for task in self.tasks if task.process.pid == pid)

    def await_renewals(self, busy: list[Task]) -> None:
        """A minute is long enough for every task that works to ask again: the lease is renewed each second here."""
        eventually(lambda: all(task.asked_in == self.cloudwatch.minute for task in busy))

    def _start(self) -> None:
        self._count += 1
        name = f"task-{self._count}"
        aws = self.harness.aws
        environment = {
            "PATH": os.environ["PATH"],
            "AWS_ENDPOINT_URL": aws["endpoint_url"],
            "AWS_DEFAULT_REGION": aws["region_name"],
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "ECS_AGENT_URI": self.server.url_for(f"/api/{name}"),
        }
        command = [sys.executable, "-c", WORKER, self.harness.queue.queue_url]
        task = Task(name, subprocess.Popen(command, env=environment))
        self.tasks.append(task)

        def protect(request: Request) -> Response:
            asked = request.get_json()
            task.asked_in = self.cloudwatch.minute
            task.protected_until = task.asked_in + asked["ExpiresInMinutes"]
            return Response(json.dumps({"protection": asked}), content_type="application/json")

        self.server.expect_request(f"/api/{name}/task-protection/v1/state", method="PUT").respond_with_handler(protect)
