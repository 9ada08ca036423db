"""The local backend's own promises: what happens when parts of a pod, or the whole of it, are killed."""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest

from evaluation import storage_keys
from evaluation.errors import CleanupIncomplete, Fault, ImageRefused
from evaluation.pair.protocol import PairProgress, parse_progress
from evaluation.shards import Budgets, Shard, ShardJob, ShardState, ShardStatus
from evaluation.submission.model import LeaderboardVersion, parse_phase
from local_jobs import backend as backend_module
from tests.contract.local_harness import STORAGE, LocalHarness
from tests.waiting import PATIENCE_SECONDS, eventually, runs

BUCKET = "leaderboard-20-results"


class Machine:
    """A local harness with one shard on it."""

    def __init__(self, harness: LocalHarness, s3: Any) -> None:
        self.harness = harness
        self.s3 = s3
        self.backend = harness.backend(route_seconds=0.3)

    def job(self, image: str = "steady", **changes: Any) -> ShardJob:
        values: dict[str, Any] = {
            "submission": 7,
            "attempt": 1,
            "shard": Shard(0, 1, (5, 6)),
            "phase": parse_phase("leaderboard-20-SENSORS"),
            "version": LeaderboardVersion.V2,
            "repetitions": 1,
            "image": f"demo/agent:{image}",
            "team_name": "team",
            "bucket": BUCKET,
            "budgets": Budgets(1, 2, 2),
            "hang_seconds": 30.0,
            "deadline_seconds": 60.0,
        }
        return ShardJob(**{**values, **changes})

    def ensure(self, job: ShardJob) -> Path:
        asyncio.run(self.backend.ensure([job]))
        return self.harness.workdir / job.name

    def end(self, job: ShardJob) -> ShardStatus:
        async def follow() -> ShardStatus:
            last = None
            async with asyncio.timeout(PATIENCE_SECONDS):
                async for statuses in self.backend.watch([job]):
                    last = statuses[job.shard.index]
            assert last
            return last

        return asyncio.run(follow())

    def process(self, part: str) -> psutil.Process:
        """The first process whose command line has a word that ends with this part, once it is there."""
        return eventually(lambda: self._processes(part))[0]

    def _processes(self, part: str) -> list[psutil.Process]:
        found = []
        for process in self.harness.processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                if any(word.endswith(part) for word in process.cmdline()):
                    found.append(process)
        return found

    def evaluator(self) -> psutil.Process:
        """The evaluator itself, once its first route is recorded; with one of the images that hang, it stays."""
        log = self.harness.workdir / "submission-7-attempt-1-shard-0" / "agent.log"
        eventually(lambda: log.read_text() if log.exists() else "", until=lambda text: "route 5: recorded" in text)
        return self.process("local_jobs.standin_agent")

    def stored(self) -> list[str]:
        """What the shard has put into its bucket."""
        return [entry["Key"] for entry in self.s3.list_objects_v2(Bucket=BUCKET).get("Contents", [])]

    def progress(self) -> PairProgress:
        body = self.s3.get_object(Bucket=BUCKET, Key=storage_keys.progress_key(7, 0))["Body"].read()
        progress = parse_progress(body)
        assert progress
        return progress


@pytest.fixture
def machine(tmp_path: Path, aws: dict[str, Any]) -> Iterator[Machine]:
    s3 = boto3.client("s3", **aws)
    s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": aws["region_name"]})
    machine = Machine(LocalHarness(tmp_path, aws["endpoint_url"]), s3)
    yield machine
    asyncio.run(machine.backend.remove(7, 1))
    assert machine.harness.left() == []


@pytest.mark.parametrize(
    ("victim", "used"), [("local_jobs.standin_agent", (1, 0)), ("local_jobs.standin_simulator", (0, 1))]
)
def test_when_either_half_is_killed_both_restart_and_resume(
    machine: Machine, victim: str, used: tuple[int, int]
) -> None:
    job = machine.job("hang-once")
    machine.ensure(job)
    machine.evaluator()
    pair = [machine.process("local_jobs.standin_agent"), machine.process("local_jobs.standin_simulator")]

    machine.process(victim).kill()

    assert machine.end(job).state is ShardState.FINISHED
    counters = machine.progress().counters
    assert (counters.agent_restarts, counters.infrastructure_restarts) == used
    assert counters.starts == 2
    assert not any(map(runs, pair))


def test_a_killed_supervisor_is_started_again_and_the_pair_drives_on(machine: Machine) -> None:
    machine.backend = machine.harness.backend(route_seconds=3.0)  # the second route gives time for what follows
    job = machine.job()
    machine.ensure(job)
    evaluator = machine.evaluator()
    killed = machine.process("shard_pod.supervisor")

    killed.kill()
    killed.wait(PATIENCE_SECONDS)
    machine.process("shard_pod.supervisor")

    assert runs(evaluator)
    assert machine.end(job).state is ShardState.FINISHED
    assert machine.progress().counters.starts == 1


@pytest.mark.parametrize("victim", ["local_jobs.pod_process", "agent.sh"])
def test_a_lost_pod_is_replaced_its_orphans_ended_and_the_drive_resumed(machine: Machine, victim: str) -> None:
    job = machine.job("hang-once")
    machine.ensure(job)
    evaluator = machine.evaluator()
    eventually(machine.stored, until=lambda keys: storage_keys.checkpoint_key(7, 0) in keys)
    key = storage_keys.checkpoint_key(7, 0)  # at first without a record: the next pod would drive route 5, and hang
    eventually(lambda: b"RouteScenario_5" in machine.s3.get_object(Bucket=BUCKET, Key=key)["Body"].read())

    machine.process(victim).kill()

    assert machine.end(job).state is ShardState.FINISHED
    assert not runs(evaluator)
    assert machine.progress().counters.starts == 2


def test_a_pod_that_is_lost_again_and_again_fails_and_is_not_charged(machine: Machine) -> None:
    job = machine.job("hang")
    directory = machine.ensure(job)
    for _ in range(3):
        machine.process("local_jobs.pod_process").kill()
        eventually(lambda: not machine.harness.backend()._run(job).alive)
        machine.ensure(job)

    status = machine.end(job)

    assert status.state is ShardState.FAILED
    assert status.failure
    assert status.failure.fault is Fault.INFRASTRUCTURE
    assert "killed 3 times" in status.failure.cause
    assert (directory / "launches").read_text() == "3"


def test_the_pod_outlives_the_process_that_started_it_and_is_adopted(machine: Machine, tmp_path: Path) -> None:
    script = tmp_path / "flow.py"
    script.write_text(
        "import asyncio, os, pickle, signal, sys\n"
        "backend, job = pickle.loads(bytes.fromhex(sys.argv[1]))\n"
        "asyncio.run(backend.ensure([job]))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    import pickle

    job = machine.job()
    flow = subprocess.run([sys.executable, str(script), pickle.dumps((machine.backend, job)).hex()], check=False)

    assert flow.returncode == -9
    machine.ensure(job)
    assert machine.end(job).state is ShardState.FINISHED
    assert machine.progress().counters.starts == 1


def test_an_image_that_cannot_run_is_refused_at_once(machine: Machine) -> None:
    with pytest.raises(ImageRefused, match="demo/agent:steady"):
        machine.ensure(machine.job("unheard-of"))


def test_many_that_ensure_at_once_get_one_pod(machine: Machine) -> None:
    job = machine.job("hang")

    async def crowd() -> None:
        await asyncio.gather(*(machine.harness.backend().ensure([job]) for _ in range(6)))

    asyncio.run(crowd())

    machine.evaluator()
    eventually(
        lambda: machine._processes("local_jobs.pod_process"), until=lambda pods: len(pods) == 1
    )  # others give up
    assert (machine.harness.workdir / job.name / "launches").read_text() == "1"


def test_the_shard_is_ended_at_its_deadline(machine: Machine) -> None:
    job = machine.job("hang", deadline_seconds=1.5)
    machine.ensure(job)

    status = machine.end(job)

    assert status.failure
    assert (status.failure.summary, status.failure.fault) == ("The shard was not done in time", Fault.INFRASTRUCTURE)
    eventually(lambda: machine.harness.left() == [])


def test_the_agent_and_its_simulator_see_nothing_of_ours(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVALAI_TOKEN", "secret")
    monkeypatch.setenv("PREFECT_API_KEY", "secret")
    monkeypatch.setenv("AWS_PROFILE", "host")
    machine.ensure(machine.job("hang"))
    machine.evaluator()

    for part in ("agent.sh", "simulator.sh", "local_jobs.standin_agent", "local_jobs.standin_simulator"):
        seen = machine.process(part).environ()
        assert not [name for name in seen if name.startswith(("AWS_", "EVALAI", "PREFECT"))]
        assert "secret" not in " ".join(seen.values())
        assert "HOME" not in seen
    supervisors = machine.process("shard_pod.supervisor").environ()
    assert supervisors["AWS_SECRET_ACCESS_KEY"] == STORAGE["AWS_SECRET_ACCESS_KEY"]
    assert "EVALAI_TOKEN" not in supervisors


def test_no_secret_lies_in_the_run_directory(machine: Machine) -> None:
    directory = machine.ensure(machine.job("hang"))
    machine.evaluator()

    secret = STORAGE["AWS_SECRET_ACCESS_KEY"].encode()
    assert not [path for path in directory.rglob("*") if path.is_file() and secret in path.read_bytes()]


def test_what_the_pair_puts_out_is_in_cloudwatch_under_the_attempts_name(machine: Machine, aws: dict[str, Any]) -> None:
    logs = boto3.client("logs", **aws)
    logs.create_log_group(logGroupName="leaderboard-20")
    machine.backend = machine.harness.backend(log_group="leaderboard-20")
    job = machine.job("fast")
    machine.ensure(job)

    assert machine.end(job).state is ShardState.FINISHED

    prefix = f"{storage_keys.log_streams(7, 1)}shard-0/"
    streams = logs.describe_log_streams(logGroupName="leaderboard-20", logStreamNamePrefix=prefix)["logStreams"]
    assert [each["logStreamName"].removeprefix(prefix) for each in streams] == [
        "agent",
        "init",
        "simulator",
        "supervisor",
    ]
    events = logs.get_log_events(logGroupName="leaderboard-20", logStreamName=f"{prefix}agent")["events"]
    assert "all routes driven" in [event["message"] for event in events]


def test_each_shard_has_ports_of_its_own(machine: Machine) -> None:
    jobs = [machine.job("hang", shard=Shard(index, 4, (index,))) for index in range(4)]

    asyncio.run(machine.backend.ensure(jobs))

    directories = [machine.harness.workdir / job.name for job in jobs]
    eventually(
        lambda: [path.name for path in directories if not (path / "pod.json").exists()], until=lambda late: not late
    )
    ports = {json.loads((directory / "pod.json").read_text())["carla_port"] for directory in directories}
    assert len(ports) == 4


def test_a_pod_that_does_not_heed_term_is_killed_within_five_seconds(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend_module, "GRACE_SECONDS", 0.3)
    machine.ensure(machine.job("hang"))
    pod = machine.process("local_jobs.pod_process")
    pod.suspend()

    asyncio.run(machine.backend.remove(7, 1))

    assert machine.harness.left() == []


def test_what_cannot_be_ended_is_named(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.ensure(machine.job("hang"))
    with monkeypatch.context() as limits:
        limits.setattr(backend_module, "GRACE_SECONDS", 60.0)
        limits.setattr(backend_module, "REMOVE_SECONDS", 0.0)
        with pytest.raises(CleanupIncomplete, match=r"submission-7-attempt-1-shard-.*process \d+"):
            asyncio.run(machine.backend.remove(7, 1))
