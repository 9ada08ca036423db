"""The shard's results: what the evaluator wrote, and the last good copy that nothing bad ever replaces."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path

from evaluation.errors import InvalidCheckpoint, explain
from evaluation.pair.decisions import CheckpointSummary, Decision
from evaluation.results.checkpoint import Document, check_expected
from evaluation.results.checkpoint_json import check_size
from evaluation.results.checkpoint_reading import parse_checkpoint
from evaluation.results.checkpoint_writing import append_quarantined, empty_document, render_document
from evaluation.results.records import refuse
from evaluation.routes import RouteRun
from shard_pod.observation_log import ObservationLog
from shard_pod.pair_directory import PairDirectory, read_whole, remove, write_whole
from shard_pod.settings import PairSettings
from shard_pod.shard_routes import ShardRoutes

log = logging.getLogger(__name__)

EVALUATOR_FILE = "the evaluator's checkpoint"


def statuses_of(settings: PairSettings, runs: Sequence[RouteRun], data: bytes, source: str) -> tuple[str, ...]:
    """Check the file against the shard's runs; its records' statuses. Raises InvalidCheckpoint."""
    checkpoint = parse_checkpoint(data, source, settings.version)
    check_expected(checkpoint, runs, source, growing=settings.pulled)
    return checkpoint.statuses


class CheckpointStore:
    """The evaluator's checkpoint file and its last good copy in the supervisor's directory."""

    def __init__(self, settings: PairSettings, files: PairDirectory, routes: ShardRoutes | None = None) -> None:
        self._settings = settings
        self.routes = routes or ShardRoutes(settings, files)
        self._evaluators: Path = settings.checkpoint
        self._good = files.good_checkpoint
        self._seen: tuple[int, int] | None = None  # time and size of the evaluator's file when it was last read
        self.observations = ObservationLog(files)
        self.refused = ""  # why the evaluator's file cannot be used, while it cannot
        self.good = read_whole(self._good)
        self.statuses = self._statuses_in(self.good, str(self._good)) if self.good else ()

    @property
    def summary(self) -> CheckpointSummary:
        return CheckpointSummary(self.routes.runs, self.statuses, self.refused, self.routes.open)

    @property
    def driving(self) -> RouteRun | None:
        return self.summary.run(len(self.statuses))

    def refresh(self) -> None:
        """Keep the evaluator's file as the good copy if it has changed, is sound, and has lost no record."""
        try:
            status = self._evaluators.lstat()
        except OSError:
            return
        if (status.st_mtime_ns, status.st_size) == self._seen:
            return
        self._seen = (status.st_mtime_ns, status.st_size)
        try:
            data, statuses = self._evaluators_file(status.st_size)
        except InvalidCheckpoint as error:
            self.refused = explain(error.summary, error.cause).removeprefix(f"{EVALUATOR_FILE}: ").rstrip(".")
            log.warning("Not copied: %s", error)
            return
        self.refused = ""
        data = self._with_known_sensors(data)
        if data != self.good:
            self._keep(data, statuses)

    def _with_known_sensors(self, data: bytes) -> bytes:
        """The file with the sensors that are known: an evaluator that resumes empties the list until its first set-up.

        Without sensors a merge of 2.x says Invalid.
        """
        document = json.loads(data)
        known = json.loads(self.good)["sensors"] if self.good else []
        if document["sensors"] or not known:
            return data
        return render_document({**document, "sensors": known}, self._settings.version).encode()

    def _evaluators_file(self, size: int) -> tuple[bytes, tuple[str, ...]]:
        check_size(size, EVALUATOR_FILE)
        data = read_whole(self._evaluators)
        if data is None:
            refuse(EVALUATOR_FILE, "the file", "is not a regular file, or may not be read")
        statuses = self._statuses_in(data, EVALUATOR_FILE)
        if len(statuses) < len(self.statuses):
            problem = f"has {len(statuses)} records, and had {len(self.statuses)} before"
            refuse(EVALUATOR_FILE, "the file", problem)
        return data, statuses

    def apply(self, step: Decision) -> None:
        """Make both files what the step says; doing it twice changes nothing.

        Raises InvalidCheckpoint where the agent's folder does not let its file be replaced.
        """
        total = len(self.routes.runs)
        if self.good is None and step.give_up is None:
            self._replace_evaluators(None)
            return
        document = json.loads(self.good) if self.good else empty_document(total)
        if step.keep < len(self.statuses) or step.exit_code is None:
            document = _from_record(document, step.keep, total)
        if step.give_up:
            version = self._settings.version
            document = append_quarantined(document, step.give_up, version, total=total, status=step.status)
        self.store(document, step.give_up)

    def store(self, document: Document, given_up: RouteRun | None = None) -> None:
        """Make this document both the good copy and what the evaluator resumes from.

        `given_up` is the route whose record the supervisor has written in it.
        """
        data = render_document(document, self._settings.version).encode()
        self._keep(data, self._statuses_in(data, EVALUATOR_FILE), given_up)
        if read_whole(self._evaluators) != data:
            self._replace_evaluators(data)

    def _replace_evaluators(self, data: bytes | None) -> None:
        try:
            if data is None:
                remove(self._evaluators)
            else:
                write_whole(self._evaluators, data)
        except OSError as error:
            problem = f"cannot be replaced: {error.strerror or error}"
            refuse(EVALUATOR_FILE, "the file", problem, "The agent may not change its folder's rights.")
        self.refused = ""

    def cut(self, keep: int) -> None:
        """Make the first `keep` runs all that there are: the others are given back to the pool."""
        if self.good:
            self.store(_from_record(json.loads(self.good), keep, keep))

    def _statuses_in(self, data: bytes, source: str) -> tuple[str, ...]:
        return statuses_of(self._settings, self.routes.runs, data, source)

    def _keep(self, data: bytes, statuses: tuple[str, ...], given_up: RouteRun | None = None) -> None:
        self.observations.checkpoint_changed(self.routes.runs, data, given_up)
        write_whole(self._good, data)
        self.good, self.statuses = data, statuses


def resumable(document: Document, runs: Sequence[RouteRun], quarantined: tuple[RouteRun, ...]) -> Document:
    """An earlier pod's document without the records that stopped it, so that their routes are driven again.

    The document of a finished shard stays as it is.
    """
    statuses = [record["status"] for record in document["_checkpoint"]["records"]]
    keep = CheckpointSummary(runs, statuses).settled(quarantined)
    total = len(runs)
    return document if keep == len(statuses) == total else _from_record(document, keep, total)


def _from_record(document: Document, keep: int, total: int) -> Document:
    """The document with its first `keep` records, from which an evaluator goes on with the next one.

    The evaluators trust progress[0] and not the records, and 2.x repeats a route when the entry status is Crashed.
    """
    checkpoint = document["_checkpoint"]
    records = checkpoint["records"][:keep]
    return {
        **document,
        "_checkpoint": {**checkpoint, "global_record": {}, "progress": [keep, total], "records": records},
        "entry_status": "Started",
        "eligible": False,
        "values": [],
        "labels": [],
    }
