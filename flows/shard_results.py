"""What the shards left in S3, merged, and beside it what their supervisors saw."""

from dataclasses import dataclass, replace

from evaluation import storage_keys
from evaluation.errors import Fault, InvalidCheckpoint, ShardsFailed
from evaluation.pair.restarts import count_restarts, restarts
from evaluation.results.checkpoint import check_expected
from evaluation.results.checkpoint_reading import parse_checkpoint
from evaluation.results.merge import Merged, merge
from evaluation.results.quarantine import points_lost
from evaluation.routes import expand, format_route_list
from evaluation.shards import all_expected
from evaluation.verification.drives import Drives, drives_again, drives_text
from evaluation.verification.reasons import Reason
from evaluation.verification.verify import ShardEvidence, verify
from flows.evaluation_context import EvaluationContext
from flows.submission_folder import read_observations, read_pool


@dataclass(frozen=True)
class Collected:
    """The merged file, and the shards that it was made of."""

    merged: Merged
    shards: tuple[ShardEvidence, ...]
    returned: tuple[int, ...] = ()  # routes that a pair gave back when it failed

    @property
    def restarts(self) -> list[str]:
        """How often pairs were started again, in one sentence where they were."""
        return count_restarts(
            [each for shard in self.shards if shard.observations for each in restarts(shard.index, shard.observations)]
        )

    @property
    def remarks(self) -> tuple[str, ...]:
        """What belongs beside the score: points lost to routes that were given up, restarts, routes driven again."""
        merged = self.merged
        lost = points_lost(merged.document["_checkpoint"]["records"], len(merged.missing) + merged.routes_done)
        again = len(self._drives_again)
        driven = [f"{again} {'route was' if again == 1 else 'routes were'} driven more than once."] if again else []
        routes = format_route_list(sorted(self.returned))
        back = [f"Given back by a pair that failed, and driven by another: {routes}."] if self.returned else []
        return (*lost, *self.restarts, *back, *driven)

    @property
    def redriven(self) -> list[str]:
        """How many routes were driven more than once, and why."""
        return drives_text(self._drives_again)

    @property
    def _drives_again(self) -> list[Drives]:
        return [drives for shard in self.shards if shard.observations for drives in drives_again(shard.observations)]


def collect(context: EvaluationContext) -> Collected:
    """Read and merge the checkpoints; a shard without one never finished a route. Raises InvalidCheckpoint. Blocks."""
    jobs, artifacts = context.jobs, context.artifacts
    keys = {job: storage_keys.checkpoint_key(job.submission, job.shard.index) for job in jobs}
    bodies = {job: artifacts.read(key) for job, key in keys.items()}
    pulled = jobs[0].shard.pulled
    # Read after the checkpoints: a claim is in the pool before its route is driven.
    pool = read_pool(artifacts, jobs[0].submission) if pulled else None
    parts, shards = [], []
    for job, body in bodies.items():
        if body is None:
            continue
        source = artifacts.location(keys[job])
        checkpoint = parse_checkpoint(body, source, job.version)
        claimed = expand(pool.claims[job.shard.index], job.repetitions) if pool else job.expected
        check_expected(checkpoint, claimed, source, growing=pulled)
        parts.append((source, checkpoint))
        seen = read_observations(artifacts, job.submission, job.shard.index)
        shards.append(ShardEvidence(job.shard.index, checkpoint, seen))
    merged = merge(parts, all_expected(jobs), jobs[0].version, sum_by_route=pulled)
    return Collected(merged, tuple(shards), pool.returned if pool else ())


def others_drove_all(context: EvaluationContext, failure: ShardsFailed) -> bool:
    """Whether every route has its record although shards failed: pairs that pull drive the routes of others. Blocks."""
    if failure.fault is not Fault.INFRASTRUCTURE or not context.jobs[0].shard.pulled:
        return False
    try:
        return collect(context).merged.complete
    except InvalidCheckpoint:
        return False


def reasons_to_hold(context: EvaluationContext, collected: Collected) -> tuple[Reason, ...]:
    """Why the result may not be published without an operator; empty where all fits. Blocks."""
    known = context.settings.expectations(context.submission.phase.track)
    images = {digest: sorted(shards) for digest, shards in sorted(context.images.items())}
    return verify(collected.shards, replace(known, images=images, image_digest=context.image_digest))
