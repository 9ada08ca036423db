"""A whole pair: supervisor and scripts as processes; simulator and evaluator are commands of the test's."""

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3

import shard_pod
from evaluation.pair.protocol import PairProgress, parse_progress
from evaluation.results.records import INFRACTIONS
from evaluation.submission.model import LeaderboardVersion
from tests.contract.pair_bench import BUCKET, credentials
from tests.waiting import eventually

SCRIPTS = Path(shard_pod.__file__).parent
# What the evaluators of a test share: `add` appends a record to the checkpoint and returns how many there are.
EVALUATOR = f"""
import json, os, signal, socket, subprocess, sys, threading, time
PATH = os.environ["CHECKPOINT_ENDPOINT"]
def records():
    return json.load(open(PATH))["_checkpoint"]["records"] if os.path.exists(PATH) else []
def add(status="Completed"):
    done = records()
    n = len(done)
    done.append({{
        "index": n, "route_id": f"RouteScenario_{{n}}_rep0", "status": status, "num_infractions": 0,
        "infractions": {{kind: [] for kind in {INFRACTIONS[LeaderboardVersion.V2]!r}}},
        "scores": {{"score_route": 100.0, "score_penalty": 1.0, "score_composed": 100.0}},
        "meta": {{"route_length": 100.0, "duration_game": 1.0, "duration_system": 1.0}},
    }})
    json.dump({{
        "_checkpoint": {{"global_record": {{}}, "progress": [n + 1, 3], "records": done}}, "entry_status": "Started",
        "eligible": False, "sensors": ["carla_gnss"], "values": [], "labels": [],
    }}, open(PATH + ".part", "w"), indent=4)
    os.replace(PATH + ".part", PATH)
    return n + 1
"""
# A simulator that answers every connection's first bytes, as CARLA answers its RPC.
SIMULATOR = """
import os, socketserver
class Handler(socketserver.BaseRequestHandler):
    def handle(self):
        if self.request.recv(100):
            self.request.sendall(b"\\x94\\x01\\x00\\xc0\\xc0")
socketserver.ThreadingTCPServer.allow_reuse_address = True
socketserver.ThreadingTCPServer.daemon_threads = True
socketserver.ThreadingTCPServer(("127.0.0.1", int(os.environ["CARLA_PORT"])), Handler).serve_forever()
"""


@dataclass
class WholePair:
    """One pair with three routes, in a folder. `settings` change its environment."""

    folder: Path
    aws: dict[str, Any]
    port: int
    settings: dict[str, str] = field(default_factory=dict)
    processes: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    @property
    def pair_dir(self) -> Path:
        return self.folder / "pair"

    def start(self, simulator: str, evaluator: str) -> None:
        """Start it with a simulator's command and an evaluator's Python text."""
        place = {"LocationConstraint": self.aws["region_name"]}
        boto3.client("s3", **self.aws).create_bucket(Bucket=BUCKET, CreateBucketConfiguration=place)  # type: ignore[arg-type]
        for party in ("supervisor", "simulator", "agent"):
            (self.pair_dir / party).mkdir(parents=True)
        (self.folder / "evaluator.py").write_text(EVALUATOR + evaluator)
        (self.folder / "simulator.py").write_text(SIMULATOR)
        (self.folder / "routes.xml").write_text('<routes><route id="0"/><route id="1"/><route id="2"/></routes>')
        common = self._environment(simulator)
        supervisor = {**common, **credentials(self.aws), "LEADERBOARD_VERSION": "2.0", **self.settings}
        self._run([sys.executable, "-m", "shard_pod.supervisor", "--prepare"], supervisor)
        for party in ("simulator", "agent"):
            self._run(["bash", str(SCRIPTS / f"{party}.sh")], {**common, **self.settings})

    def _run(self, command: list[str], environment: dict[str, str]) -> None:
        with (self.folder / "errors.log").open("ab") as errors:
            process = subprocess.Popen(
                command, env=environment, cwd=SCRIPTS.parent, stdout=subprocess.DEVNULL, stderr=errors
            )
        self.processes.append(process)

    def _environment(self, simulator: str) -> dict[str, str]:
        pair = self.pair_dir
        return {
            "PATH": os.environ["PATH"],
            "WORK": str(self.folder),
            "PAIR_DIR": str(pair),
            "SUBMISSION": "7",
            "ATTEMPT": "1",
            "WORKER_ID": "0",
            "SHARD_COUNT": "1",
            "BUCKET": BUCKET,
            "ROUTES_LOCATION": str(self.folder / "routes.xml"),
            "ROUTES": str(pair / "agent" / "routes.xml"),
            "ROUTES_SUBSET": "0-2",
            "REPETITIONS": "1",
            "CHECKPOINT_ENDPOINT": str(pair / "agent" / "checkpoint.json"),
            "CHALLENGE_TRACK_CODENAME": "SENSORS",
            "CARLA_PORT": str(self.port),
            "TRAFFIC_MANAGER_PORT": str(self.port + 1),
            "SIMULATOR_COMMAND": simulator,
            "EVALUATOR_COMMAND": f"exec {sys.executable} -u {self.folder}/evaluator.py",
            "SIMULATOR_WARMUP_SECONDS": "0.1",
            "SIMULATOR_WAIT_SECONDS": "60",
            "POLL_SECONDS": "0.1",
            "COPY_SECONDS": "0.3",
            "HANG_SECONDS": "60",
            "AGENT_RESTARTS": "2",
            "INFRASTRUCTURE_RESTARTS": "2",
            "SIMULATOR_CRASHES_PER_ROUTE": "3",
        }

    @property
    def good_simulator(self) -> str:
        return f"exec {sys.executable} {self.folder}/simulator.py"

    def progress(self) -> PairProgress | None:
        path = self.pair_dir / "supervisor" / "progress.json"
        return parse_progress(path.read_bytes()) if path.exists() else None

    def ended(self) -> PairProgress:
        """What it says at its end."""
        eventually(lambda: all(process.poll() is not None for process in self.processes))
        progress = self.progress()
        assert progress
        return progress

    def close(self) -> None:
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + 30
        for process in self.processes:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
