"""JobBackend on processes of this machine: a Job is a run directory with a pod, found again by its name."""

import asyncio
import shlex
import shutil
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from evaluation.errors import CleanupIncomplete, Failure, Fault, InvalidConfiguration
from evaluation.pair.diagnosis import quoted
from evaluation.pair.protocol import failure_of_exit, parse_progress
from evaluation.shards import ENDED, ShardJob, ShardState, ShardStatus, ShardStatuses, attempt_of, attempt_prefix
from local_jobs.demo_images import require_known
from local_jobs.gpu_slots import GpuSlots
from local_jobs.run_directory import RunDirectory, describe, end_processes, plain_environment, tail
from shard_pod.environment import Party, job_environment

WATCH_SECONDS = 0.25  # between two polls
SNAPSHOT_SECONDS = 5.0  # a snapshot at least so often
GRACE_SECONDS = 3.0  # from TERM to KILL
JOURNAL = "routes.jsonl"  # what the agents of all shards drove, beside the run directories
REMOVE_SECONDS = 5.0
_RUNNING = frozenset({ShardState.STARTING, ShardState.DRIVING, ShardState.RETRYING})


@dataclass(frozen=True)
class LocalJobBackend:
    """Runs shards with the stand-ins of this package, when a GPU slot is free (gpu_slots). Times in seconds.

    `scripts` is the folder of simulator.sh and agent.sh; `supervisor` its command line, `prepare` what is added to it
    for the first time; `storage` boto3's variables, which only the supervisor gets.
    """

    workdir: Path
    routes: str  # s3://bucket/key, or a file's path
    storage: Mapping[str, str]
    scripts: Path
    supervisor: Sequence[str]
    prepare: Sequence[str] = ("--prepare",)
    route_seconds: float = 1.0
    durations: Path | None = None  # a JSON file, seconds by route: how long the stand-in drives each, in their place
    seed: int = 0
    log_group: str = ""  # CloudWatch's, for the pair's output
    warmup_seconds: float = 0.2
    poll_seconds: float = 0.1
    copy_seconds: float = 1.0
    simulator_wait_seconds: float = 60.0
    gpu_slots: int = 8  # of this machine: so many pairs at once, of all that use the same workdir

    async def ensure(self, jobs: Sequence[ShardJob]) -> None:
        """See JobBackend. Raises ImageRefused for an image that has no stand-in."""
        for job in jobs:
            require_known(job.image)
        for job in jobs:  # all have their place before the first one starts
            await asyncio.to_thread(self._accept, job)
        await asyncio.gather(*(asyncio.to_thread(self._slots.start, self._run(job), self.storage) for job in jobs))

    async def watch(self, jobs: Sequence[ShardJob]) -> AsyncIterator[ShardStatuses]:
        """See JobBackend. Starts the pods whose turn it is, and replaces lost ones, as a Kubernetes Job would."""
        last: ShardStatuses | None = None
        sent_at = 0.0
        while True:
            statuses = await asyncio.to_thread(self._statuses, jobs)
            if statuses != last or time.monotonic() - sent_at > SNAPSHOT_SECONDS:
                last, sent_at = statuses, time.monotonic()
                yield statuses
            if all(status.state in ENDED for status in statuses.values()):
                return
            await asyncio.sleep(WATCH_SECONDS)

    async def remove(self, submission: int, attempt: int) -> None:
        """See JobBackend: within 5 seconds no process of the attempt is left, or CleanupIncomplete names it."""
        await asyncio.to_thread(self._remove, f"{attempt_prefix(submission, attempt)}-shard-")

    async def running(self) -> frozenset[tuple[int, int]]:
        """See JobBackend: every run directory is a Job."""
        names = await asyncio.to_thread(lambda: [path.name for path in self.workdir.resolve().glob("submission-*")])
        return frozenset(attempt for name in names if (attempt := attempt_of(name)))

    async def logs(self, job: ShardJob, lines: int) -> Mapping[str, str]:
        """See JobBackend."""
        run = self._run(job)
        files = {
            "simulator": run.path / "simulator.log",
            "agent": run.path / "agent.log",
            "supervisor": run.path / "supervisor.log",
            "init": run.pair_dir / "supervisor" / "init.log",
        }
        return {process: await asyncio.to_thread(tail, path, lines) for process, path in files.items()}

    def _run(self, job: ShardJob) -> RunDirectory:
        return RunDirectory(self.workdir.resolve() / job.name)

    @property
    def _slots(self) -> GpuSlots:
        return GpuSlots(self.workdir.resolve(), self.gpu_slots)

    def _accept(self, job: ShardJob) -> None:
        run = self._run(job)
        run.create(self._description(job))
        self._enqueue(run, job)

    def _enqueue(self, run: RunDirectory, job: ShardJob) -> None:
        self._slots.enqueue(run, job.team_name, attempt_prefix(job.submission, job.attempt))

    def _remove(self, prefix: str) -> None:
        runs = [RunDirectory(path) for path in self.workdir.resolve().glob(f"{prefix}*")]
        for run in runs:
            run.forbid()
        pods = [run.pid for run in runs if run.alive]
        left = end_processes(
            f"{self.workdir.resolve()}/{prefix}", [pid for pid in pods if pid], GRACE_SECONDS, REMOVE_SECONDS
        )
        if left:
            names = ", ".join(describe(process) for process in left)
            raise CleanupIncomplete(f"Something of {prefix}* is still running", names, "End it by hand.")
        for run in runs:
            run.delete()
        kept = ", ".join(run.path.name for run in runs if run.path.exists())
        if kept:
            raise CleanupIncomplete("Run directories cannot be deleted", kept, "Look at their permissions.")

    def _statuses(self, jobs: Sequence[ShardJob]) -> dict[int, ShardStatus]:
        return {job.shard.index: replace(self._status(job), backend_id=_process(self._run(job))) for job in jobs}

    def _status(self, job: ShardJob) -> ShardStatus:
        run = self._run(job)
        index = job.shard.index
        if not run.path.is_dir():
            return ShardStatus(index, ShardState.GONE, "there is no such Job")
        if run.needs_pod:
            return self._next_pod(index, run, job)
        if run.exit == "0":
            return ShardStatus(
                index, ShardState.FINISHED, "every route has its record", since=_changed(run.path / "exit")
            )
        if run.exit is not None or run.lost:
            failure = _failure(run, job)
            return ShardStatus(index, ShardState.FAILED, failure.summary, _changed(run.path / "exit"), failure)
        return _running(index, run)

    def _next_pod(self, index: int, run: RunDirectory, job: ShardJob) -> ShardStatus:
        """Start a pod if it is the Job's turn; the first one, or one in the place of a pod that was lost."""
        again, since = run.launches > 0, _changed(run.path / "ticket.json")
        with suppress(FileNotFoundError):  # it is being removed
            self._enqueue(run, job)
        place = self._slots.start(run, self.storage)
        words = str(place) if place else "the pair is being prepared"
        if again:
            return ShardStatus(index, ShardState.RETRYING, f"its pod was lost and is replaced; {words}", queue=place)
        state = ShardState.WAITING if place else ShardState.STARTING
        return ShardStatus(index, state, words, since if place else None, queue=place)

    def _description(self, job: ShardJob) -> dict[str, Any]:
        """job.json: what the pod needs to know. Holds no secret."""
        bash = shutil.which("bash")
        if bash is None:
            raise InvalidConfiguration("There is no bash on this machine", remedy="Install bash.")
        return {
            "environment": self._environment(job),
            "simulator": [bash, str(self.scripts.resolve() / "simulator.sh")],
            "agent": [bash, str(self.scripts.resolve() / "agent.sh")],
            "supervisor": list(self.supervisor),
            "prepare": list(self.prepare),
            "deadline_seconds": job.deadline_seconds,
        }

    def _environment(self, job: ShardJob) -> dict[str, str]:
        """The environment of the pair (shard_pod.environment), and the stand-ins' variables. The pod sets ports."""
        pair = self._run(job).pair_dir
        environment = job_environment(
            job,
            routes_location=self._routes_location(),
            routes=str(pair / "agent" / "routes.xml"),
            checkpoint=str(pair / "agent" / "checkpoint.json"),
            pair_dir=str(pair),
            log_group=self.log_group,
            simulator_warmup_seconds=self.warmup_seconds,
            simulator_wait_seconds=self.simulator_wait_seconds,
            poll_seconds=self.poll_seconds,
            copy_seconds=self.copy_seconds,
        )
        return {**plain_environment(), **environment.to_environment(*Party), **self._standins(job)}

    def _standins(self, job: ShardJob) -> dict[str, str]:
        python = f"exec {shlex.quote(sys.executable)} -S -m local_jobs"
        return {
            "SIMULATOR_COMMAND": f"{python}.standin_simulator",
            "EVALUATOR_COMMAND": f"{python}.standin_agent",
            "AGENT_IMAGE": job.image,
            "STANDIN_ROUTE_SECONDS": str(self.route_seconds),
            **({"STANDIN_DURATIONS": str(self.durations.resolve())} if self.durations else {}),
            "STANDIN_SEED": str(self.seed),
            "STANDIN_JOURNAL": str(self.workdir.resolve() / JOURNAL),
        }

    def _routes_location(self) -> str:
        return self.routes if self.routes.startswith("s3://") else str(Path(self.routes).resolve())


def _process(run: RunDirectory) -> str:
    return f"pid {run.pid}" if run.pid else ""


def _running(index: int, run: RunDirectory) -> ShardStatus:
    since = _changed(run.path / "pod.json")
    progress = parse_progress(tail(run.pair_dir / "supervisor" / "progress.json", 1))
    if progress is None:
        state = ShardState.STARTING if run.launches <= 1 else ShardState.RETRYING
        return ShardStatus(index, state, "the pair is being prepared", since)
    # Finished is what the exit file says: until then the last copy is on its way.
    state = progress.state if progress.state in _RUNNING else ShardState.DRIVING
    return ShardStatus(index, state, progress.detail, since)


def _failure(run: RunDirectory, job: ShardJob) -> Failure:
    if run.exit == "deadline":
        return Failure(
            "The shard was not done in time",
            f"it was ended after {job.deadline_seconds:g} seconds",
            "Resume the submission: driven routes are kept.",
            Fault.INFRASTRUCTURE,
        )
    if run.exit is None:
        return failure_of_exit(1, f"its pod was killed {run.launches} times")
    code = int(run.exit) if run.exit.isdigit() else 1
    progress = parse_progress(tail(run.pair_dir / "supervisor" / "progress.json", 1))
    if progress and progress.exit_code == code:
        return failure_of_exit(code, progress.detail)
    return failure_of_exit(code, quoted(tail(run.path / "supervisor.log", 1)))  # as it is: a log is for people


def _changed(path: Path) -> datetime | None:
    try:
        return datetime.fromtimestamp(path.stat().st_mtime, UTC)
    except FileNotFoundError:
        return None
