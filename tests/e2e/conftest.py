"""One embedded stack for all end-to-end tests, on free ports, in a folder of its own."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import requests

from deployments.people import EvalAIWebsite
from deployments.processes import family_of
from deployments.progress import Observer, Progress
from deployments.settings import Settings
from deployments.stack import PROJECT, Stack, running_stack
from evaluation.errors import ServiceUnavailable
from local_jobs.runs import processes_of


@dataclass(frozen=True)
class Site:
    """The running stack as its users see it."""

    stack: Stack
    people: EvalAIWebsite
    observer: Observer

    def submit(self, phase: str, image: str) -> int:
        return self.people.submit(self.stack.state.phase_pk(phase), image)

    def wait(self, submission: int, until: Callable[[Progress], bool], seconds: float) -> Progress:
        """The first look that `until` accepts; fails with the last one after so many seconds."""
        deadline = time.monotonic() + seconds
        seen = self._look(submission)
        while not until(seen):
            self.stack.processes.check()
            assert time.monotonic() < deadline, f"not after {seconds} s: {seen}"
            time.sleep(0.3)
            # The embedded EvalAI allows 60 requests a minute, as the real one: ask it when the ledger has news.
            news = self.observer.refresh(seen)
            seen = self._look(submission) if news.row.get("status") != seen.row.get("status") else news
            if seen.row.get("status") != seen.evalai and seen.row.get("status") in ("finished", "failed", "cancelled"):
                seen = self._look(submission)
        return seen

    def end_of(self, submission: int, seconds: float = 60) -> Progress:
        return self.wait(submission, lambda seen: seen.over, seconds)

    def stderr(self, submission: int) -> str:
        """What EvalAI shows the team."""
        address = self.people.submission(submission)["stderr_file"]
        return requests.get(address, timeout=10).text

    def shards_of(self, submission: int) -> list[psutil.Process]:
        return processes_of(f"{self.stack.state.shards}/submission-{submission}-")

    def _look(self, submission: int) -> Progress:
        while True:
            try:
                return self.observer.look(submission)
            except ServiceUnavailable:
                time.sleep(1)


def quick_settings(folder: Path) -> Settings:
    """Any free ports, quick routes; the empty Prefect database is shared with `make demo`, it takes 9 s to make."""
    return Settings(
        state_dir=folder,
        cache_dir=PROJECT / ".leaderboard" / "cache",
        prefect_port=24200,
        aws_port=24201,
        evalai_port=24202,
        route_seconds=0.4,
        start_seconds=110,
    )


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_stack(quick_settings(tmp_path_factory.mktemp("stack")), print) as stack:
        yield Site(stack, EvalAIWebsite(stack.state), Observer(stack.state))
    left = family_of(stack.state.id, stack.state.shards)
    assert left == [], f"the stack left processes behind: {left}"
