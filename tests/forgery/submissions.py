"""A submission as its shards leave it: checkpoints, what the supervisors saw, and what was known before.

True ones are the published sets beside the checkout, where they are there, and sets that the stand-in evaluator drew.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

from evaluation.errors import EvaluationError
from evaluation.pair.observations import Observations, SeenStart
from evaluation.results.checkpoint import Checkpoint, check_expected
from evaluation.results.checkpoint_reading import parse_checkpoint
from evaluation.results.merge import merge
from evaluation.results.rejection import rejection
from evaluation.routes import RouteRun, route_lengths
from evaluation.submission.model import LeaderboardVersion
from evaluation.verification.drives import DriveLimits
from evaluation.verification.figures import KnownLengths
from evaluation.verification.scoring import Scoring, scoring_of
from evaluation.verification.verify import Expectations, ShardEvidence, verify
from local_jobs.standin_agent import SENSORS, read_routes
from local_jobs.standin_records import driven_record

V1, V2 = LeaderboardVersion.V1, LeaderboardVersion.V2
BEGIN = datetime(2026, 11, 28, 6, tzinfo=UTC)
BETWEEN_ROUTES = timedelta(seconds=30)
_SMALL = Path(__file__).parents[1] / "unit" / "small_results"
_ROUTES = Path(__file__).parents[2] / "local_jobs" / "routes"
Document = dict[str, Any]


@dataclass(frozen=True)
class Driven:
    """One submission. A shard is a checkpoint document and what its supervisor saw of it."""

    name: str
    version: LeaderboardVersion
    expected: tuple[tuple[RouteRun, ...], ...]
    documents: tuple[Document, ...]
    seen: tuple[Observations | None, ...]
    expectations: Expectations

    def with_shard(self, index: int, document: Document, seen: Observations | None) -> "Driven":
        documents, observed = list(self.documents), list(self.seen)
        documents[index], observed[index] = document, seen
        return replace(self, documents=tuple(documents), seen=tuple(observed))


@dataclass(frozen=True)
class Verdict:
    """`published` is what EvalAI would get a score of; `why` not, otherwise."""

    published: bool
    why: str = ""
    kinds: Sequence[str] = field(default_factory=tuple)


def judge(driven: Driven) -> Verdict:
    """What the flow makes of the files, by the same functions: refused, rejected, held or published."""
    try:
        checkpoints = [_read(driven, index) for index in range(len(driven.documents))]
        parts = [(f"shard-{index}", checkpoint) for index, checkpoint in enumerate(checkpoints)]
        merged = merge(parts, [run for shard in driven.expected for run in shard], driven.version)
    except EvaluationError as error:
        return Verdict(False, str(error), ("refused",))
    if failure := rejection(merged):
        return Verdict(False, str(failure), ("rejected",))
    if not merged.complete:
        return Verdict(False, "the result is incomplete", ("incomplete",))
    shards = [ShardEvidence(index, each, driven.seen[index]) for index, each in enumerate(checkpoints)]
    reasons = verify(shards, driven.expectations)
    if reasons:
        return Verdict(False, str(reasons[0]), tuple(sorted({reason.kind.value for reason in reasons})))
    return Verdict(True)


def observed(runs: Sequence[RouteRun], records: Sequence[Mapping[str, Any]]) -> Observations:
    """One undisturbed start: a record each, when its system time and the gap between two routes have passed."""
    seen, now = Observations().with_new_start(SeenStart(1, 1, BEGIN, BEGIN), runs), BEGIN
    for count, record in enumerate(records, start=1):
        now += BETWEEN_ROUTES + timedelta(seconds=max(0.0, record["meta"]["duration_system"]))
        seen = seen.with_records(runs, records[:count], now)
    return seen


def standin_submission(version: LeaderboardVersion, seed: str, shards: int = 4) -> Driven:
    """Twenty routes of the demo's route file, drawn by the stand-in evaluator from the seed."""
    file = _ROUTES / f"leaderboard-{'10' if version is V1 else '20'}.xml"
    lengths = route_lengths(file.read_bytes(), file.name)
    routes = read_routes(str(file), f"0-{len(lengths) - 1}", 1)
    size = -(-len(routes) // shards)
    parts = [routes[at : at + size] for at in range(0, len(routes), size)]
    documents = []
    for part in parts:
        records = [driven_record(route, index, version.value, seed) for index, route in enumerate(part)]
        documents.append(_document(records, SENSORS))
    driven = KnownLengths(lengths, {route.id: round(route.length, 3) for route in routes})
    return _submission(f"stand-in {version.value} {seed}", version, documents, scoring_of(version), driven)


def small_submissions() -> list[Driven]:
    """The small sets of tests/unit/small_results."""
    found = []
    for version in LeaderboardVersion:
        files = sorted((_SMALL / version.value).glob("shard-*.json"))
        documents = [json.loads(file.read_bytes()) for file in files]
        found.append(_submission(f"small {version.value}", version, documents, scoring_of(version), KnownLengths()))
    return found


def published_submissions(data: Path) -> list[Driven]:
    """The published sets, each with the rules of the evaluator that wrote it."""
    found = []
    for folder, version, weights, sensors, pattern in _PUBLISHED:
        files = sorted((data / folder).glob(pattern))
        documents = [json.loads(file.read_bytes()) for file in files]
        scoring = scoring_of(version).changed(weights, sensors)
        found.append(_submission(f"{folder}/{pattern}", version, documents, scoring, KnownLengths()))
    devtest = KnownLengths(route_lengths((data / "routes/routes_devtest.xml").read_bytes(), "routes_devtest.xml"))
    document = json.loads((data / "results/avd-20.json").read_bytes())
    return [*found, _submission("results/avd-20.json", V2, [document], scoring_of(V2), devtest)]


# Forks: the first has no penalty for stop signs, the second allows its agent six cameras, Bench2Drive's counts the
# minimum speed without a penalty.
_PUBLISHED = (
    ("merge_cases/longest6", V1, {"stop_infraction": 1.0}, {}, "partial_*.json"),
    ("merge_cases/o20", V1, {"stop_infraction": 1.0}, {}, "partial_*.json"),
    ("results", V1, {"stop_infraction": 1.0}, {}, "transfuser-longest6-10.json"),
    ("results", V1, {}, {"carla_camera": 6}, "transfuser-sample-10.json"),
    ("merge_cases/m20", V2, {"min_speed_infractions": 1.0}, {}, "partial_*.json"),
    ("merge_cases/m220", V2, {"min_speed_infractions": 1.0}, {}, "partial_*.json"),
    ("results/simlingo-pdm_lite-2x-4shards", V2, {"min_speed_infractions": 1.0}, {}, "eval_*.json"),
)


def _submission(
    name: str, version: LeaderboardVersion, documents: list[Document], scoring: Scoring, lengths: KnownLengths
) -> Driven:
    checkpoints = [parse_checkpoint(_bytes(document), name, version) for document in documents]
    seen = tuple(observed(each.runs, each.records) for each in checkpoints)
    track = "MAP" if any("carla_opendrive_map" in each.sensors for each in checkpoints) else "SENSORS"
    expected = tuple(each.runs for each in checkpoints)
    return Driven(name, version, expected, tuple(documents), seen, Expectations(scoring, track, lengths, DriveLimits()))


def _document(records: list[Document], sensors: list[str]) -> Document:
    return {
        "_checkpoint": {"global_record": {}, "progress": [len(records), len(records)], "records": records},
        "entry_status": "Started",
        "eligible": False,
        "sensors": list(sensors),
        "values": [],
        "labels": [],
    }


def _read(driven: Driven, index: int) -> Checkpoint:
    source = f"shard-{index}"
    checkpoint = parse_checkpoint(_bytes(driven.documents[index]), source, driven.version)
    check_expected(checkpoint, driven.expected[index], source)
    return checkpoint


def _bytes(document: Document) -> bytes:
    return json.dumps(document).encode()


def true_submissions(data: Path, random: Random, drawn: int) -> list[Driven]:
    """The published sets where `data` is there, and so many that the stand-in evaluator draws of each version."""
    published = published_submissions(data) if data.is_dir() else []
    published += small_submissions()
    seeds = [str(random.randrange(10**9)) for _ in range(drawn)]
    return [*published, *(standin_submission(version, seed) for seed in seeds for version in (V1, V2))]
