"""Carries out the incidents of a plan on the running stack, and restarts what production would restart."""

import contextlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

import psutil

from embedded.evalai_standin.queue import new_content
from embedded.prefect_server import answers
from evalai_api.fields import SubmissionRow
from evaluation.errors import EvaluationError
from evaluation.submission.model import SubmissionStatus
from local_jobs.run_directory import processes_of
from tests.chaos.evidence import engines
from tests.chaos.harness import Harness
from tests.chaos.plan import Incident, Kind
from tests.chaos.verdict import Hit

PARTS: Mapping[Kind, tuple[str, ...]] = {
    Kind.WORKER: ("worker",),
    Kind.RECOVERY: ("recovery-worker",),
    Kind.MACHINE: ("worker", "recovery-worker"),
    Kind.BRIDGE: ("bridge",),
    Kind.SERVER: ("prefect-server",),
}
MODULES = {
    Kind.POD: "local_jobs.pod_process",
    Kind.SUPERVISOR: "shard_pod.supervisor",
    Kind.SIMULATOR: "local_jobs.standin_simulator",
    Kind.AGENT: "local_jobs.standin_agent",
}
OPEN = frozenset(SubmissionStatus) - {
    SubmissionStatus.FINISHED,
    SubmissionStatus.FAILED,
    SubmissionStatus.CANCELLED,
    SubmissionStatus.ARCHIVED,
}

SHORT_DEATH = 1.0  # seconds until a worker that dies for one of its runs is started again

Say = Callable[[str], None]
Target = TypeVar("Target")


class Havoc:
    """Stands for bad luck; the stack's own supervisor starts bridge, worker and server again."""

    def __init__(self, harness: Harness, images: Mapping[int, str], say: Say) -> None:
        """`images` are those of the submissions sent so far."""
        self.hits: list[Hit] = []
        self._site = harness
        self._images = images
        self._say = say
        self._outage_until = 0.0
        self._touched: set[str] = set()  # shards: a second blow could use up a budget, rightly
        self._resumed: set[int] = set()

    @property
    def evalai_answers(self) -> bool:
        return time.monotonic() > self._outage_until

    def strike(self, incident: Incident) -> bool:
        """Whether it found a target."""
        match incident.kind:
            case Kind.FLOW_RUN:
                return self._flow_run(incident)
            case Kind.WORKER | Kind.RECOVERY | Kind.MACHINE | Kind.BRIDGE | Kind.SERVER:
                return self._part(incident)
            case Kind.POD | Kind.SUPERVISOR | Kind.SIMULATOR | Kind.AGENT:
                return self._shard(incident)
            case Kind.OUTAGE:
                return self._outage(incident)
            case Kind.DUPLICATE | Kind.CANCEL | Kind.RESUME:
                return self.evalai_answers and self._people(incident)

    def tend(self) -> None:
        """Let what has died be started again, and note who is back; to be called often."""
        self._site.stack.supervisor.tend()
        for index, hit in enumerate(self.hits):
            one_part = hit.kind in (Kind.RECOVERY, Kind.BRIDGE, Kind.SERVER)
            if one_part and hit.back_at is None and self._is_back(*PARTS[hit.kind]):
                self.hits[index] = replace(hit, back_at=_now())

    def _is_back(self, name: str) -> bool:
        runs = self._site.stack.processes.child(name).process.poll() is None
        return runs and (name != "prefect-server" or answers(f"{self._site.stack.state.prefect_api_url}/health"))

    def _flow_run(self, incident: Incident) -> bool:
        running = engines(self._site)
        if not running:  # the runs are the worker's own tasks, and die with it only
            return self._part(replace(incident, kind=Kind.WORKER, seconds=SHORT_DEATH))
        process, run = _choose(running, incident.choice)
        process.kill()
        self._hit(Hit(_now(), incident.kind, f"run {run}", run=run))
        return True

    def _part(self, incident: Incident) -> bool:
        names = PARTS[incident.kind]
        if any(self._site.stack.processes.child(name).process.poll() is not None for name in names):
            return False
        for name in names:
            self._site.stack.supervisor.kill(name, down_seconds=incident.seconds)
        killed = engines(self._site) if incident.kind is Kind.MACHINE else []
        for engine, _ in killed:
            engine.kill()
        target = " and ".join([*names, *([f"{len(killed)} flow runs"] if killed else [])])
        self._hit(Hit(_now(), incident.kind, f"{target}, for {incident.seconds:.1f} s"))
        for _, run in killed:
            self.hits.append(Hit(_now(), Kind.FLOW_RUN, f"run {run}", run=run))
        return True

    def _shard(self, incident: Incident) -> bool:
        found = _shard_processes(self._site.stack.state.shards, incident.kind)
        targets = [target for target in found if target[0] not in self._touched]
        if not targets:
            return False
        name, process = _choose(targets, incident.choice)
        try:
            process.kill()
        except psutil.NoSuchProcess:
            return False
        self._touched.add(name)
        _, submission, _, _, _, shard = name.split("-")
        self._hit(Hit(_now(), incident.kind, name, shard=(int(submission), int(shard))))
        return True

    def _outage(self, incident: Incident) -> bool:
        self._site.standin.outage(incident.how, incident.seconds)
        self._outage_until = time.monotonic() + incident.seconds
        self._hit(Hit(_now(), incident.kind, f"{incident.how} for {incident.seconds:.1f} s"))
        return True

    def _people(self, incident: Incident) -> bool:
        try:
            rows = self._site.people.submissions()[::-1]
            targets = [row for row in rows if self._suits(row, incident.kind)]
            if not targets:
                return False
            row = _choose(targets, incident.choice)
            self._ask(row, incident.kind)
        except EvaluationError as error:  # its state has changed since: another one, a little later
            self._say(f"{incident.kind}: {error}")
            return False
        self._hit(Hit(_now(), incident.kind, f"submission {row.pk} ({row.status})"))
        return True

    def _suits(self, row: SubmissionRow, kind: Kind) -> bool:
        match kind:
            case Kind.CANCEL:
                return row.status in OPEN
            case Kind.RESUME:
                return row.status is SubmissionStatus.FAILED and row.pk not in self._resumed
            case _:
                return True

    def _ask(self, row: SubmissionRow, kind: Kind) -> None:
        match kind:
            case Kind.CANCEL:
                self._site.people.cancel(row.pk)
            case Kind.RESUME:
                self._site.people.resume(row.pk)
                self._resumed.add(row.pk)
            case _:
                state = self._site.stack.state
                image = self._images[row.pk]
                body = json.dumps(new_content(state.challenge_pk, row.phase_pk, image, row.pk))
                self._site.stack.aws.sqs.send_message(QueueUrl=state.queue_url, MessageBody=body)

    def _hit(self, hit: Hit) -> None:
        self.hits.append(hit)
        self._say(f"{hit.kind}: {hit.target}")


def _shard_processes(shards: Path, kind: Kind) -> list[tuple[str, psutil.Process]]:
    """(run directory, process) of every shard's process of that kind, in order."""
    found = []
    for process in processes_of(str(shards)):
        with contextlib.suppress(psutil.Error, OSError):
            if any(MODULES[kind] in word for word in process.cmdline()):
                found.append((Path(process.environ()["PAIR_DIR"]).parent.name, process))
    return sorted(found, key=lambda target: target[0])


def _choose(targets: Sequence[Target], choice: float) -> Target:
    return targets[int(choice * len(targets))]


def _now() -> datetime:
    return datetime.now(UTC)
