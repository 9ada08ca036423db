"""What a submission's S3 folder keeps beside its checkpoints, read and parsed. Every function blocks."""

from evaluation import storage_keys
from evaluation.pair.observations import Observations, parse_observations
from evaluation.ports import ArtifactStore
from evaluation.provenance import Envelope, parse_envelope
from evaluation.pulling.pool import RoutePool, parse_pool
from evaluation.shards import Plan, parse_plan


def read_plan(artifacts: ArtifactStore, submission: int) -> Plan | None:
    """The plan; None where there is none yet. Raises InvalidConfiguration."""
    key = storage_keys.plan_key(submission)
    body = artifacts.read(key)
    return None if body is None else parse_plan(body, artifacts.location(key))


def read_pool(artifacts: ArtifactStore, submission: int) -> RoutePool | None:
    """Which shard has claimed which routes; None where routes are not pulled. Raises InvalidConfiguration."""
    key = storage_keys.pool_key(submission)
    body = artifacts.read(key)
    return None if body is None else parse_pool(body, artifacts.location(key))


def read_observations(artifacts: ArtifactStore, submission: int, shard: int) -> Observations | None:
    """What the shard's supervisor saw; None where it has written nothing. Raises InvalidCheckpoint."""
    key = storage_keys.observations_key(submission, shard)
    body = artifacts.read(key)
    return parse_observations(body, artifacts.location(key)) if body else None


def read_provenance(artifacts: ArtifactStore, submission: int) -> Envelope | None:
    """The signed statement; None where there is no file of it. Raises InvalidCheckpoint."""
    key = storage_keys.result_key(submission, storage_keys.PROVENANCE)
    body = artifacts.read(key)
    return None if body is None else parse_envelope(body, artifacts.location(key))
