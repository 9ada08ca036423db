"""A pod's pair: the product's own `prepare` and supervisor, and a simulator and an agent that do what the seed says.

The supervisor works in a folder of this machine. Its container and the two others die together, with their pod.
"""

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.errors import EvaluationError
from evaluation.pair.protocol import PairExitCode
from evaluation.results.checkpoint_writing import render_document
from evaluation.routes import RouteRun, expand, parse_route_xml
from evaluation.submission.model import LeaderboardVersion
from k8s_jobs.api import Json
from shard_pod.pair_directory import write_whole
from shard_pod.prepare import exit_code, prepare, show_failure
from shard_pod.settings import PairSettings, read_settings
from shard_pod.storage import ShardStorage
from shard_pod.supervisor import PairSupervisor, Stopped
from tests.fakes import _record
from tests.simulation.aws import S3
from tests.simulation.calls import Calls
from tests.simulation.machine import Machine
from tests.simulation.threads import SimulatedEvent

ROUTE_SECONDS = (210.0, 330.0)
PORT = 2000
CRASHING = "demo/agent:crashes"  # an agent that ends on its second route, every time
RESTART_SECONDS = 10.0  # of the supervisor's container, which the kubelet starts again


@dataclass
class Pair:
    """One pod's containers. `ended` gets the pod's exit code."""

    calls: Calls
    machine: Machine
    settings: PairSettings
    s3: S3
    image: str
    ended: Callable[[int], None]
    driven: Callable[[int, int, int], None]  # submission, attempt, route: a record was written
    stop: SimulatedEvent = field(init=False)
    over: bool = False
    _parties: dict[tuple[str, int], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.stop = SimulatedEvent(self.calls.hub)

    def begin(self) -> None:
        self.calls.hub.thread(self.machine, self._live)

    def end(self, gracefully: bool) -> None:
        """By the kubelet: SIGTERM, or at once."""
        if gracefully:
            self.stop.set()
        else:
            self.over = True
            self.machine.kill()
            shutil.rmtree(self.settings.pair_dir, ignore_errors=True)

    def _live(self) -> None:
        storage = ShardStorage(self.settings.bucket, self.s3)  # type: ignore[arg-type]
        code = self._prepared(storage)
        while code is None:
            code = self._supervised(storage)
        self.over = True
        shutil.rmtree(self.settings.pair_dir, ignore_errors=True)
        self.calls.hub.after(0.5, self.ended, code)

    def _prepared(self, storage: ShardStorage) -> int | None:
        """The init container, started again by the Job where it fails for a reason that may pass."""
        try:
            prepare(self.settings, storage)
        except EvaluationError as error:
            if exit_code(error) != 1:
                show_failure(self.settings, storage, error)
            return exit_code(error)
        return None

    def _supervised(self, storage: ShardStorage) -> int | None:
        try:
            supervisor = PairSupervisor(self.settings, storage, self.stop)  # type: ignore[arg-type]
            self._hear(supervisor)
            try:
                return int(supervisor.run())
            except Stopped:
                return int(supervisor.leave())
        except EvaluationError:  # it ends with 1, and is started again
            if self.stop.is_set():
                return int(PairExitCode.CANCELLED)
            self.calls.hub.block(RESTART_SECONDS)
            return None

    def _hear(self, supervisor: PairSupervisor) -> None:
        """The two scripts poll for what the supervisor publishes; here they are called."""
        publish = supervisor._files.publish

        def heard(name: str, content: str) -> None:
            publish(name, content)
            if name.startswith("start") and name[5:].isdigit():
                self._later(self.calls.chance.random.uniform(5, 40), self._warm, int(name[5:]))
            if name.startswith("stop"):
                self._later(2.0, self._stopped, int(name[4:]))

        supervisor._files.publish = heard  # type: ignore[method-assign]

    def _later(self, seconds: float, call: Callable[..., None], *args: Any) -> None:
        self.calls.hub.at(self.calls.hub.now + seconds, self.machine, self._if_alive, call, args)

    def _if_alive(self, call: Callable[..., None], args: tuple[Any, ...]) -> None:
        if not self.over:
            call(*args)

    # The simulator and the agent.

    def _write(self, party: str, name: str, content: str) -> None:
        write_whole(self.settings.pair_dir / party / name, content.encode())

    def _exit(self, party: str, start: int, how: str) -> None:
        if (party, start) not in self._parties:
            self._parties[party, start] = how
            self._write(party, f"exit{start}", how)

    def _breaks(self, start: int) -> bool:
        place = f"{self.settings.submission}.{self.settings.attempt} shard {self.settings.shard}"
        return self.calls.chance.strikes("pair breaks", place, self.calls.hub.now)

    def _warm(self, start: int) -> None:
        if ("simulator", start) in self._parties:
            return
        if self._breaks(start):
            self._exit("simulator", start, "died 139")
            return
        self._write("simulator", f"ready{start}", str(PORT))
        self._write("agent", "agent.log", f"start {start}\n")
        self._later(self.calls.chance.random.uniform(*ROUTE_SECONDS), self._drive, start)

    def _drive(self, start: int) -> None:
        """The next record, and then the one after it."""
        if ("agent", start) in self._parties or ("simulator", start) in self._parties:
            return
        document = self._document()
        records, expected = document["_checkpoint"]["records"], self._expected()
        if len(records) < len(expected):
            if self.image == CRASHING and len(records) == 1:
                self._exit("agent", start, "died 1")
                return
            if self._breaks(start):
                self._exit("simulator", start, "died 139")
                return
            run = expected[len(records)]
            records.append(_record(len(records), f"RouteScenario_{run.route}_rep{run.repetition}"))
            self.driven(self.settings.submission, self.settings.attempt, run.route)
            document["_checkpoint"]["progress"] = [len(records), len(expected)]
            text = render_document(document, LeaderboardVersion.V2)
            write_whole(self.settings.checkpoint, text.encode())
        if len(records) == len(expected):
            self._later(1.0, self._exit, "agent", start, "died 0")
            return
        self._later(self.calls.chance.random.uniform(*ROUTE_SECONDS), self._drive, start)

    def _expected(self) -> tuple[RouteRun, ...]:
        """Where routes are pulled, those of the route file that the supervisor has written for this start."""
        if not self.settings.pulled:
            return self.settings.expected
        return expand(parse_route_xml(self.settings.routes.read_bytes(), "routes"), self.settings.repetitions)

    def _document(self) -> dict[str, Any]:
        found = self.settings.checkpoint
        if found.exists():
            document: dict[str, Any] = json.loads(found.read_bytes())
            return document | {"sensors": ["carla_camera"]}
        return {
            "_checkpoint": {"global_record": {}, "progress": [0, len(self._expected())], "records": []},
            "entry_status": "Started",
            "eligible": False,
            "sensors": ["carla_camera"],
            "values": [],
            "labels": [],
        }

    def _stopped(self, start: int) -> None:
        self._exit("simulator", start, "stopped")
        self._exit("agent", start, "stopped")


def settings_of(manifest_container: Json, folder: Path) -> PairSettings:
    """The supervisor's settings as its container's variables say them, with the folders on this machine."""
    variables: Mapping[str, str] = {
        each["name"]: each["value"] for each in manifest_container["env"] if "value" in each
    }
    settings = read_settings(variables)
    from dataclasses import replace

    return replace(
        settings,
        pair_dir=folder,
        checkpoint=folder / "agent" / "checkpoint.json",
        routes=folder / "routes.xml",
        routes_location=settings.routes_location,
    )
