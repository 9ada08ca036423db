"""The published backlog and the template's policy, played minute by minute, against workers that start and stop."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from pytest_httpserver import HTTPServer

from compute_client import ResultStatus
from services.compute_backlog import Jobs, Rate, measure
from tests.contract.compute_harness import ComputeAws
from tests.contract.fleet import CloudWatch, Service, TargetTracking, Task
from tests.waiting import eventually

RATE = Rate(assumed_seconds=480, start_seconds=10)
FEWEST, MOST = 1, 3


class Site:
    """A queue of jobs that take as long as the test says, its publisher, its policy and its service."""

    def __init__(self, aws: dict[str, Any], server: HTTPServer, folder: Path) -> None:
        self.harness = ComputeAws(aws)
        self.cloudwatch = CloudWatch()
        self.policy = TargetTracking(self.cloudwatch, FEWEST, MOST)
        self.service = Service(self.harness, server, self.cloudwatch)
        self.service.scale_to(FEWEST)
        self._jobs = Jobs(self.harness.queue, self.harness.block())
        self._folder = folder
        self._producer = self.harness.producer()

    def post(self, count: int) -> list[str]:
        return [
            self._producer.post_non_blocking({"file": str(self._folder / f"job-{each}")}, job_id=f"job-{each}")
            for each in range(count)
        ]

    def finish(self, job_id: str) -> int:
        """Let the job end; the worker that computed it."""
        (self._folder / job_id).touch()
        return int(str(self._producer.wait(job_id, 120).result))

    def working(self, ids: list[str]) -> list[str]:
        statuses = {each: self._producer.retrieve_result_status(each) for each in ids}
        return [each for each, status in statuses.items() if status is ResultStatus.IN_PROGRESS]

    def minute(self, published: bool = True) -> int:
        """One minute of the publisher and of Application Auto Scaling; the service's size after it."""
        self.cloudwatch.minute += 1
        if published:
            self.cloudwatch.metrics().publish(measure(self._jobs, lambda: len(self.service.tasks), RATE))
        wanted = self.policy.desired(len(self.service.tasks))
        if wanted < len(self.service.tasks):
            self.service.await_renewals([task for task in self.service.tasks if _computes(task)])
        self.service.scale_to(wanted)
        return len(self.service.tasks)


def _computes(task: Task) -> bool:
    """Whether the worker has a child: the process of a function."""
    return bool(psutil.Process(task.process.pid).children())


@pytest.fixture
def site(aws: dict[str, Any], httpserver: HTTPServer, tmp_path: Path) -> Iterator[Site]:
    site = Site(aws, httpserver, tmp_path)
    yield site
    site.service.close()


def test_the_fleet_follows_the_backlog_and_no_work_is_lost(site: Site) -> None:
    ids = site.post(4)
    eventually(lambda: len(site.working(ids)) == 1)

    # Four jobs of 490 s for one worker are far above 300 s: it grows after three datapoints, to the most at once.
    assert [site.minute() for _ in range(3)] == [1, 1, MOST]
    eventually(lambda: len(site.working(ids)) == MOST)

    # A publisher that is silent scales nothing, however much waits.
    assert {site.minute(published=False) for _ in range(20)} == {MOST}

    # One job is left, and it takes long: 163 s for each of three workers, below nine tenths of the target.
    for each in ids[:3]:
        site.finish(each)
    eventually(lambda: site.working(ids) == [ids[3]])
    sizes = [site.minute() for _ in range(15)]
    assert sizes[:14] == [MOST] * 14
    assert sizes[14] == 2  # ceil(3 * 163 / 300)

    # The one that was taken had nothing to do, and ended in order.
    (gone,) = site.service.stopped
    assert gone.process.returncode == 0
    worker = next(task for task in site.service.tasks if _computes(task))

    # A worker that is asked to end although it works, as by Fargate's maintenance, gives its job back; another goes on.
    assert site.service.stop(worker) == 0
    eventually(lambda: site.working(ids) == [ids[3]])
    assert site.finish(ids[3]) == site.service.tasks[0].process.pid
    assert all(site.harness.jobs().status(each) is ResultStatus.SUCCESS for each in ids)
    assert site.harness.row(ids[3])["attempts"] == "1"  # a try that was given back is not counted


def test_a_protected_task_is_not_asked_to_end_however_small_the_service_shall_be(site: Site) -> None:
    (job,) = site.post(1)
    eventually(lambda: site.working([job]) == [job])
    (busy,) = site.service.tasks
    eventually(lambda: busy.asked_in == site.cloudwatch.minute)

    for minute in range(1, 4):  # it is renewed while the function runs
        site.cloudwatch.minute = minute
        site.service.await_renewals([busy])
        site.service.scale_to(0)
        assert site.service.tasks == [busy]

    assert site.finish(job) == busy.process.pid
    site.cloudwatch.minute += 2  # what was asked for has ended
    site.service.scale_to(0)
    assert (site.service.tasks, busy.process.returncode) == ([], 0)
