"""The whole comparison: what the shards' checkpoints claim, with everything that is known from outside."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from evaluation.pair.observations import Observations
from evaluation.results.checkpoint import Checkpoint
from evaluation.verification.drives import DriveLimits, check_claimed_crashes, check_drives
from evaluation.verification.figures import KnownLengths, check_figures
from evaluation.verification.reasons import Kind, Reason
from evaluation.verification.scoring import MAP, QUALIFIER, Scoring

_SAME_METRES = 0.01


@dataclass(frozen=True)
class ShardEvidence:
    """One shard: what it claims, and what its supervisor and its backend saw. `image`: the agent's digest."""

    index: int
    checkpoint: Checkpoint
    observations: Observations | None


@dataclass(frozen=True)
class Expectations:
    """What is known before anything is driven."""

    scoring: Scoring
    track: str
    lengths: KnownLengths = field(default_factory=KnownLengths)
    limits: DriveLimits = field(default_factory=DriveLimits)
    images: Mapping[str, Sequence[int]] = field(default_factory=dict)  # digest that ran -> shards, where it is known
    image_digest: str = ""  # of the submission's first attempt


def verify(shards: Sequence[ShardEvidence], expected: Expectations) -> tuple[Reason, ...]:
    """Every reason not to believe the result, in the shards' order; empty where all fits."""
    return (
        *(reason for shard in shards for reason in _shard(shard, expected)),
        *check_claimed_crashes([shard.observations for shard in shards if shard.observations], expected.limits),
        *_repetitions(shards),
        *_images(expected),
    )


def _shard(shard: ShardEvidence, expected: Expectations) -> Iterator[Reason]:
    checkpoint = shard.checkpoint
    for run, record in zip(checkpoint.runs, checkpoint.records, strict=True):
        yield from check_figures(record, run.route, str(run), expected.scoring, expected.lengths)
    yield from _sensors(f"shard {shard.index}", checkpoint.sensors, expected)
    yield from check_drives(f"shard {shard.index}", checkpoint, shard.observations, expected.limits)


def _sensors(shard: str, sensors: Sequence[str], expected: Expectations) -> Iterator[Reason]:
    """The evaluator refuses these before the first route; a file that names them was not written by it."""
    track, scoring = expected.track, expected.scoring
    if MAP in sensors and not track.startswith("MAP"):
        yield Reason(Kind.SENSORS, f"{shard}: its agent uses {MAP}, which the track {track} does not allow.")
    limits = scoring.sensors
    if track.endswith(QUALIFIER) and scoring.qualifier_sensors:
        limits = scoring.qualifier_sensors
    for sensor, count in Counter(sensors).items():
        if sensor not in limits:
            yield Reason(Kind.SENSORS, f"{shard}: its agent uses {sensor}, which no evaluator knows.")
        elif count > limits[sensor]:
            most = f"the track {track} allows {limits[sensor]}"
            yield Reason(Kind.SENSORS, f"{shard}: its agent uses {sensor} {count} times, and {most}.")


def _repetitions(shards: Sequence[ShardEvidence]) -> Iterator[Reason]:
    """A route has one length, however often it is driven."""
    lengths: dict[int, float] = {}
    for shard in shards:
        for run, record in zip(shard.checkpoint.runs, shard.checkpoint.records, strict=True):
            length = record["meta"]["route_length"]
            first = lengths.setdefault(run.route, length) if length else length
            if abs(length - first) > _SAME_METRES:
                sentence = f"route_length is {length} m, and {first} m in another repetition of it"
                yield Reason(Kind.LENGTH, f"{run}: {sentence}.")


def _images(expected: Expectations) -> Iterator[Reason]:
    for digest, shards in expected.images.items():
        if expected.image_digest and digest != expected.image_digest:
            which = f"shard {', '.join(map(str, shards))}"
            sentence = f"the image {digest} ran, but the submission's first attempt began with {expected.image_digest}"
            yield Reason(Kind.IMAGE, f"{which}: {sentence}.")
