"""The local backend as the contract suite sees it: real processes below a temporary folder."""

import sys
from pathlib import Path
from typing import Any

import local_jobs
import shard_pod
from local_jobs.backend import LocalJobBackend
from tests.contract.pair_processes import PairProcesses

STORAGE = {"AWS_DEFAULT_REGION": "us-west-2", "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing-secret"}


class LocalHarness(PairProcesses):
    def __init__(self, workdir: Path, endpoint: str) -> None:
        self.workdir = workdir
        self.endpoint = endpoint

    def backend(self, **changes: Any) -> LocalJobBackend:
        values: dict[str, Any] = {
            "workdir": self.workdir,
            "routes": str(Path(local_jobs.__file__).parent / "routes" / "leaderboard-20.xml"),
            "storage": {**STORAGE, "AWS_ENDPOINT_URL": self.endpoint},
            "scripts": Path(shard_pod.__file__).parent,
            "supervisor": (sys.executable, "-m", "shard_pod.supervisor"),
            "route_seconds": 0.3,
            "warmup_seconds": 0.1,
            "poll_seconds": 0.05,
            "copy_seconds": 0.2,
        }
        return LocalJobBackend(**{**values, **changes})
