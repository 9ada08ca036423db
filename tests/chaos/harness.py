"""The stack under test: the embedded one, with shorter timeouts."""

from dataclasses import dataclass
from functools import cached_property

import requests

from deployments.settings import Settings
from embedded.evalai_website import EvalAIWebsite
from embedded.stack import PROJECT, Stack

FOLDER = PROJECT / ".leaderboard" / "chaos"


def chaos_settings() -> Settings:
    """An hour's timeouts does not fit in ten minutes. EvalAI's limit is raised alike: 40 submissions in 5 minutes ask
    it more often than 60 times a minute."""
    return Settings(
        state_dir=FOLDER,
        cache_dir=PROJECT / ".leaderboard" / "cache",
        prefect_port=24300,
        aws_port=24301,
        evalai_port=24302,
        start_seconds=150,
        route_seconds=1.0,
        hang_seconds=15,
        cancel_check_seconds=10,
        lease_seconds=20,
        reconcile_seconds=45,
        worker_limit=7,
        evalai_requests_per_minute=300,
    )


@dataclass(frozen=True)
class Harness:
    """The running stack."""

    stack: Stack

    @cached_property
    def people(self) -> EvalAIWebsite:
        return EvalAIWebsite(self.stack.state)

    @cached_property
    def standin(self) -> "StandIn":
        return StandIn(self.stack.state.evalai_url, self.stack.state.host_token)


class StandIn:
    """The stand-in's own paths (embedded.evalai_standin.control)."""

    def __init__(self, url: str, token: str) -> None:
        self._url = f"{url}/standin"
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.headers["Authorization"] = f"Bearer {token}"

    def outage(self, kind: str, seconds: float) -> None:
        answer = self._session.post(f"{self._url}/outage", json={"kind": kind, "seconds": seconds}, timeout=20)
        answer.raise_for_status()

    def history(self) -> list[dict[str, str]]:
        answer = self._session.get(f"{self._url}/history", timeout=20)
        answer.raise_for_status()
        writes: list[dict[str, str]] = answer.json()
        return writes
