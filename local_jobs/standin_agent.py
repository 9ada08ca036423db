"""Stands in for the evaluator with a team's agent: connects to its simulator, drives its routes, writes a checkpoint.

Source of its variables: docs/reference/step-function.md, "The evaluator's environment". What a route yields is drawn
from its id and STANDIN_SEED, so that a drive which was interrupted and resumed gives the same records. The tag of
AGENT_IMAGE picks a behaviour (local_jobs/demo_images.py). Standard library only, for a quick start.
"""

import json
import os
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from local_jobs.standin_records import Record, Route, crashed_record, driven_record

SENSORS = ["carla_camera", "carla_lidar", "carla_imu", "carla_gnss", "carla_speedometer"]
SENSORS_REFUSED = (
    "The sensor's configuration used is invalid:\n> Illegal sensor 'sensor.camera.depth' used for Track SENSORS!"
)
SETUP_FAILED = "Agent couldn't be set up"
TICKS_PER_SECOND = 20  # of game time, as CARLA's evaluators run it
EVALUATOR_GIVES_UP = 255
CRASH = 1


class Simulator:
    """The connection to the stand-in simulator. Raises OSError when it is lost."""

    def __init__(self, port: int) -> None:
        self._lines = self._connect(port).makefile("rw")
        self.ask("hello")

    @staticmethod
    def _connect(port: int) -> socket.socket:
        deadline = time.monotonic() + 10
        while True:
            try:
                return socket.create_connection(("127.0.0.1", port), timeout=5)
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def ask(self, request: str) -> str:
        self._lines.write(f"{request}\n")
        self._lines.flush()
        answer = self._lines.readline()
        if not answer:
            raise ConnectionResetError("the simulator closed the connection")
        return answer.strip()


class Checkpoint:
    """The checkpoint file, in the form of its version."""

    def __init__(self, path: Path, version: str, total: int, resume: bool) -> None:
        self._path = path
        self._version = version
        self.document: dict[str, Any] = {
            "_checkpoint": {"global_record": {}, "progress": [0, total], "records": []},
            "entry_status": "Started",
            "eligible": False,
            "sensors": [],
            "values": [],
            "labels": [],
        }
        if resume and path.exists():
            self.document = json.loads(path.read_text())
            self.document["entry_status"] = "Started"

    @property
    def records(self) -> list[Record]:
        records: list[Record] = self.document["_checkpoint"]["records"]
        return records

    def add(self, record: Record) -> None:
        self.records.append(record)
        self.document["_checkpoint"]["progress"][0] = len(self.records)
        self.save()

    def save(self) -> None:
        fresh = self._path.with_name(f"{self._path.name}.part")
        fresh.write_text(json.dumps(self.document, indent=4, sort_keys=self._version == "1.0"))
        fresh.replace(self._path)


def read_routes(path: str, subset: str, repetitions: int) -> list[Route]:
    """The routes to drive, in order. Reads both versions' waypoints."""
    points = {}
    for route in ElementTree.parse(path).getroot().iter("route"):  # noqa: S314 - our own file
        nodes = [*route.iter("waypoint"), *route.iter("position")]
        points[int(route.attrib["id"])] = tuple((float(node.attrib["x"]), float(node.attrib["y"])) for node in nodes)
    ids: list[int] = []
    for part in subset.split(","):
        first, _, last = part.partition("-")
        ids.extend(range(int(first), int(last or first) + 1))
    return [Route(id_, repetition, points[id_]) for id_ in ids for repetition in range(repetitions)]


def read_durations(path: str | None) -> dict[int, float]:
    """Seconds by route, where they differ."""
    if path is None:
        return {}
    return {int(route): float(seconds) for route, seconds in json.loads(Path(path).read_text()).items()}


class Journal:
    """A line for every route that is started and every one that is recorded, by all agents in one file.

    It outlives the run directories: what was driven twice, and whether two agents drove one shard, is read from it.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._path = environment.get("STANDIN_JOURNAL")
        names = {"submission": "SUBMISSION", "attempt": "ATTEMPT", "shard": "WORKER_ID"}
        self._who = {"pid": os.getpid(), **{key: int(environment.get(name, "0")) for key, name in names.items()}}

    def note(self, what: str, route: Route) -> None:
        if self._path is None:
            return
        line = {"at": time.time(), "what": what, "route": route.id, "repetition": route.repetition, **self._who}
        with Path(self._path).open("a") as file:  # lines of different agents do not mix: each is one write
            file.write(f"{json.dumps(line)}\n")


class Drive:
    """One run of the evaluator over its routes."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.tag = environment.get("AGENT_IMAGE", "").rpartition(":")[2] or "steady"
        self.version = environment["LEADERBOARD_VERSION"]
        self.seed = environment.get("STANDIN_SEED", "0")
        self.seconds = float(environment.get("STANDIN_ROUTE_SECONDS", "1")) / (10 if self.tag == "fast" else 1)
        self.durations = read_durations(environment.get("STANDIN_DURATIONS"))
        self.routes = read_routes(environment["ROUTES"], environment["ROUTES_SUBSET"], int(environment["REPETITIONS"]))
        path = Path(environment["CHECKPOINT_ENDPOINT"])
        self.crashed_before = path.with_name("crashed-before")
        self.checkpoint = Checkpoint(path, self.version, len(self.routes), bool(environment.get("RESUME")))
        self.port = int(environment["CARLA_PORT"])
        self.journal = Journal(environment)
        self.driven = 0  # in this start

    def run(self) -> int:
        self.checkpoint.save()
        position = len(self.checkpoint.records)
        print(f"{len(self.routes)} routes, {position} of them driven before", flush=True)
        try:
            simulator = Simulator(self.port)
            for index in range(position, len(self.routes)):
                if self.tag == "bad-sensors":
                    print(SENSORS_REFUSED, flush=True)
                    return self.give_up(index, "Rejected", "Agent's sensors were invalid")
                if self.tag == "bad-setup":
                    self.skip(index)
                    continue
                self.checkpoint.document["sensors"] = SENSORS
                self.drive(simulator, index)
        except (OSError, ValueError):
            return self.give_up(len(self.checkpoint.records), "Crashed", "Simulation crashed")
        print("all routes driven", flush=True)
        return 0

    def skip(self, index: int) -> None:
        """What both versions' evaluators do when the agent cannot be set up: a record, and on with the next route."""
        print(f"route {self.routes[index].id}: the agent could not be set up", flush=True)
        self.checkpoint.add(crashed_record(self.routes[index], index, self.version, f"Failed - {SETUP_FAILED}"))

    def give_up(self, index: int, entry_status: str, why: str) -> int:
        """What the evaluator does when its simulator fails or the sensors are invalid: a record, and the end."""
        print(f"stopping: {why}", flush=True)
        self.checkpoint.document["entry_status"] = entry_status
        self.checkpoint.add(crashed_record(self.routes[index], index, self.version, f"Failed - {why}"))
        return EVALUATOR_GIVES_UP

    def drive(self, simulator: Simulator, index: int) -> None:
        route = self.routes[index]
        started = time.monotonic()
        seconds = self.durations.get(route.id, self.seconds)
        pause = min(0.1, seconds / 5)
        simulator.ask(f"route {route.id}")
        self.journal.note("started", route)
        ticks = 0
        while (done := (time.monotonic() - started) / seconds) < 1:
            if ticks % 3 == 0:
                print(f"route {route.id}: {done:.0%}", flush=True)
            simulator.ask("tick")
            ticks += 1
            self.report_tick(ticks, time.monotonic() - started)
            self.misbehave(route, index, done)
            time.sleep(pause)
        record = driven_record(route, index, self.version, self.seed)
        if self.tag == "forged-score":
            record["scores"]["score_composed"] = 100.0
        self.checkpoint.add(record)
        self.driven += 1
        self.journal.note("recorded", route)
        print(f"route {route.id}: recorded", flush=True)

    def report_tick(self, ticks: int, seconds: float) -> None:
        """The line of the evaluator's agent base class, in the form of its version."""
        game = ticks / TICKS_PER_SECOND
        if self.version == "1.0":
            print(
                f"======[Agent] Wallclock_time = {seconds} / {seconds} / Sim_time = {game} / {game / seconds}x",
                flush=True,
            )
        else:
            times = f"System time = {seconds:.3f} -- Game time = {game:.3f} -- Ratio = {game / seconds:.3f}x"
            print(f"=== [Agent] -- Wallclock = {seconds:.3f} -- {times}", flush=True)

    def misbehave(self, route: Route, index: int, done: float) -> None:
        if done < 0.3:
            return
        if index == 1 and (self.tag == "hang" or (self.tag == "hang-once" and self.driven == 1)):
            time.sleep(1_000_000)
        once = self.tag == f"crash-on-route-{route.id}" and not self.crashed_before.exists()
        if once:
            self.crashed_before.touch()
        if once or (self.tag == "always-crash" and self.driven == 1):
            print("RuntimeError: CUDA out of memory", flush=True)
            os._exit(CRASH)


if __name__ == "__main__":
    sys.exit(Drive(os.environ).run())
