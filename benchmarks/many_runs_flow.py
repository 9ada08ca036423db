"""The real flow `evaluate-submission` with everything around it in memory, as benchmarks/many_runs.py deploys it.

The folder MANY_RUNS_FOLDER says when each submission's first Job was created (`jobs`, a line each), and the file
`release` in it ends all drives.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from prefect_aws import AwsCredentials

import flows.evaluate_submission
import flows.intake
from blocks.leaderboard_cluster import LeaderboardCluster, LocalCompute
from evaluation.shards import ShardJob, ShardState, ShardStatus, ShardStatuses
from evaluation.submission.model import LeaderboardVersion, SubmissionStatus
from flows.services import Cluster, Services
from tests.fakes import FakeBackend, FakeEvalAI, FakeLedger, FakePhases, FakeQueue, FakeStore, checkpoint_of

FOLDER = Path(os.environ["MANY_RUNS_FOLDER"])
LOOK_SECONDS = 2.0  # as long as the shards drive


class AllKnown(dict[int, SubmissionStatus]):
    """Every submission exists."""

    def __contains__(self, submission: object) -> bool:
        return True

    def __missing__(self, submission: int) -> SubmissionStatus:
        return SubmissionStatus.SUBMITTED


class TimedBackend(FakeBackend):
    """Notes the first Job of each submission; its shards drive until they are released."""

    async def ensure(self, jobs: Sequence[ShardJob]) -> None:
        with (FOLDER / "jobs").open("a") as lines:
            lines.write(f"{jobs[0].submission} {time.time()}\n")
        await super().ensure(jobs)

    async def watch(self, jobs: Sequence[ShardJob]) -> AsyncIterator[ShardStatuses]:
        yield {job.shard.index: ShardStatus(job.shard.index, ShardState.DRIVING) for job in jobs}
        while not (FOLDER / "release").exists():
            await asyncio.sleep(LOOK_SECONDS)
        async for statuses in super().watch(jobs):
            yield statuses


_SETTINGS = LeaderboardCluster(
    cluster="leaderboard-20",
    leaderboard_version=LeaderboardVersion.V2,
    compute=LocalCompute(workdir=FOLDER),
    credentials=AwsCredentials(region_name="us-west-2"),
    bucket="leaderboard-20",
    routes=str(FOLDER / "routes.xml"),
    image_registries=["demo"],
)
_STORE = FakeStore()
_CLUSTER = Cluster(_SETTINGS, TimedBackend(_STORE, checkpoint_of), FakeLedger(), _STORE)
_SERVICES = Services(FakeEvalAI(statuses=AllKnown()), FakePhases(), FakeQueue())


async def _services() -> Services:
    return _SERVICES


async def _cluster(_name: str) -> Cluster:
    return _CLUSTER


flows.evaluate_submission.load_services = _services
flows.intake.load_cluster = _cluster
evaluate_submission = flows.evaluate_submission.evaluate_submission
