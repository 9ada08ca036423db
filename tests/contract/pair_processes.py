"""Pairs as processes of this machine: what the harnesses run in the place of containers, and what is left of it."""

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

import shard_pod
from local_jobs.run_directory import RunDirectory, describe, plain_environment, processes_of

LOGS = frozenset({"simulator", "agent", "supervisor", "init"})


class PairProcesses:
    """What a harness's tests ask of its processes, by the run directories below its folder."""

    workdir: Path
    log_names = LOGS

    def processes(self) -> list[psutil.Process]:
        return processes_of(f"{self.workdir.resolve()}/")

    def left(self) -> list[str]:
        lines = []
        for process in self.processes():
            try:
                lines.append(f"{process.environ()['PAIR_DIR']}: {describe(process)}")
            except psutil.NoSuchProcess:
                continue
        return lines

    def pod(self, directory: RunDirectory, given: Mapping[str, str], image: str, seconds: float) -> dict[str, Any]:
        """job.json of a local pod: the pair's real scripts with the environment that a backend has `given`.

        The paths of the containers become the run directory's, `image` one of our stand-ins.
        """
        scripts, python = Path(shard_pod.__file__).parent, f"exec {sys.executable} -S -m local_jobs"
        bash, pair = shutil.which("bash") or "bash", str(directory.pair_dir)
        return {
            "environment": {
                **plain_environment(),
                **{name: _placed(value, pair) for name, value in given.items() if not name.startswith("AWS_")},
                "ROUTES": f"{pair}/agent/routes.xml",
                "CARLA_PORT": "0",  # the pod has one of its own
                "SIMULATOR_COMMAND": f"{python}.standin_simulator",
                "EVALUATOR_COMMAND": f"{python}.standin_agent",
                "AGENT_IMAGE": image,
                "STANDIN_ROUTE_SECONDS": "0.3",
                "STANDIN_SEED": "0",
                "STANDIN_JOURNAL": str(self.workdir / "routes.jsonl"),
            },
            "simulator": [bash, str(scripts / "simulator.sh")],
            "agent": [bash, str(scripts / "agent.sh")],
            "supervisor": [sys.executable, "-m", "shard_pod.supervisor"],
            "prepare": ["--prepare"],
            "deadline_seconds": seconds,
        }


def log_files(directory: RunDirectory) -> dict[str, Path]:
    """Where the output of each process of the pair is."""
    own = {name: directory.path / f"{name}.log" for name in ("simulator", "agent", "supervisor")}
    return {**own, "init": directory.pair_dir / "supervisor" / "init.log"}


def _placed(value: str, pair_dir: str) -> str:
    """A path of the containers' /pair as the run directory has it."""
    return pair_dir + value.removeprefix("/pair") if value.startswith("/pair/") or value == "/pair" else value
