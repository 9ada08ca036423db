"""One embedded stack for all end-to-end tests, on free ports, in a folder of its own."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests

from cli.observers import EMBEDDED_PACE, load_challenge
from cli.submission_progress import Observer, Progress
from deployments.installation import installation
from deployments.settings import Settings
from embedded.evalai_website import EvalAIWebsite
from embedded.processes import family_of
from embedded.stack import PROJECT, Stack, running_stack
from evaluation.errors import ServiceUnavailable
from local_jobs.run_directory import RunDirectory, processes_of
from tests.waiting import PATIENCE_SECONDS

WAIT_SECONDS = 240.0  # for a submission's progress; some 20 s on a machine that does nothing else


@dataclass(frozen=True)
class Harness:
    """The running stack as its users see it."""

    stack: Stack
    people: EvalAIWebsite
    observer: Observer

    def submit(self, phase: str, image: str) -> int:
        return self.people.submit(self.stack.state.phase_pk(phase), image)

    def wait(self, submission: int, until: Callable[[Progress], bool]) -> Progress:
        """The first progress that `until` accepts; fails with the last one after WAIT_SECONDS."""
        deadline = time.monotonic() + WAIT_SECONDS
        seen = self._look(submission)
        while not until(seen):
            self.stack.supervisor.tend()
            assert time.monotonic() < deadline, f"not after {WAIT_SECONDS} s: {seen}"
            time.sleep(0.3)
            # The embedded EvalAI allows 60 requests a minute, as the real one: ask it when the ledger has news.
            news = self.observer.refresh(seen)
            seen = self._look(submission) if news.row.get("status") != seen.row.get("status") else news
            if seen.row.get("status") != seen.evalai and seen.row.get("status") in ("finished", "failed", "cancelled"):
                seen = self._look(submission)
        return seen

    def end_of(self, submission: int) -> Progress:
        return self.wait(submission, lambda seen: seen.over)

    def stderr(self, submission: int) -> str:
        """What EvalAI shows the team."""
        return requests.get(self.people.submission(submission).stderr_file, timeout=PATIENCE_SECONDS).text

    def shards_of(self, submission: int) -> list[psutil.Process]:
        return processes_of(f"{self.stack.state.shards}/submission-{submission}-")

    def pods_of(self, submission: int) -> set[tuple[str, int]]:
        """(run directory, pid) of every pod of the submission that is there now."""
        runs = map(RunDirectory, self.stack.state.shards.glob(f"submission-{submission}-*"))
        return {(run.path.name, run.pid) for run in runs if run.pid is not None}

    def flow_runs_of(self, submission: int) -> list[dict[str, Any]]:
        """As Prefect shows them, the first one first."""
        everything = {"sort": "EXPECTED_START_TIME_ASC"}
        answer = requests.post(f"{self.stack.state.prefect_api_url}/flow_runs/filter", json=everything, timeout=30)
        answer.raise_for_status()
        return [run for run in answer.json() if run["parameters"].get("message", {}).get("submission_pk") == submission]

    def shard_states(self, flow_run: str) -> list[tuple[str, str]]:
        """Name and state of the task runs of a flow run's shards, by name."""
        which = {"flow_runs": {"id": {"any_": [flow_run]}}, "task_runs": {"tags": {"all_": ["shard"]}}}
        answer = requests.post(f"{self.stack.state.prefect_api_url}/task_runs/filter", json=which, timeout=30)
        answer.raise_for_status()
        return sorted((each["name"], each["state_type"]) for each in answer.json())

    def _look(self, submission: int) -> Progress:
        while True:
            try:
                return self.observer.snapshot(submission)
            except ServiceUnavailable:
                time.sleep(1)


UNKNOWN = '{"challenge_pk": "1", "phase_pk": "2203", "submission_pk": 4242}'
WRONG = '{"challenge_pk": "1", "phase_pk": "2203", "submission_pk": 0}'


@dataclass(frozen=True)
class Sent:
    """Submissions that nobody has waited for yet, sent after messages that nobody can evaluate."""

    refused: int
    crashing: int
    steady: dict[int, int]  # submission -> how many labels its leaderboard has


def quick_settings(folder: Path) -> Settings:
    """Any free ports, quick routes; the empty Prefect database is shared with `make demo`, it takes 9 s to make."""
    return Settings(
        state_dir=folder,
        cache_dir=PROJECT / ".leaderboard" / "cache",
        prefect_port=24200,
        aws_port=24201,
        evalai_port=24202,
        route_seconds=0.4,
        start_seconds=300,
        hang_seconds=300,  # none of these tests waits for that
    )


def observer_of(settings: Settings, people: EvalAIWebsite) -> Observer:
    with installation(settings):
        challenge = load_challenge()
    return Observer(people.submission, challenge.places, challenge.phases, EMBEDDED_PACE)


@pytest.fixture(scope="package")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    settings = quick_settings(tmp_path_factory.mktemp("stack"))
    with running_stack(settings, print) as stack:
        people = EvalAIWebsite(stack.state)
        yield Harness(stack, people, observer_of(settings, people))
        assert stack.supervisor.crashes == [], "services died by themselves"
    left = family_of(stack.state.id, stack.state.shards)
    assert left == [], f"the stack left processes behind: {left}"


@pytest.fixture(scope="package")
def sent(harness: Harness) -> Sent:
    for body in ("not json", UNKNOWN, WRONG):
        harness.stack.aws.sqs.send_message(QueueUrl=harness.stack.state.queue_url, MessageBody=body)
    refused = harness.submit("leaderboard-20-SENSORS", "registry.example/agent:1")
    crashing = harness.submit("leaderboard-20-MAP", "demo/agent:always-crash")
    labels = {"leaderboard-10-MAP": 12, "leaderboard-20-SENSORS": 15}
    steady = {harness.submit(phase, "demo/agent:steady"): count for phase, count in labels.items()}
    return Sent(refused, crashing, steady)
