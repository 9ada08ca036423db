"""Where a result comes from, written beside it and checked again by `leaderboard verify`."""

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version

from prefect.runtime import flow_run

from blocks.artifact_bucket import read_location
from blocks.provenance_key import ProvenanceKey
from evaluation import storage_keys
from evaluation.ports import ArtifactStore
from evaluation.provenance import Decision, Envelope, Origin, sha256, statement, with_decision
from evaluation.submission.image import pinned, repository_digest
from flows.evaluation_context import EvaluationContext
from flows.submission_folder import read_provenance


def write_provenance(context: EvaluationContext) -> None:
    """Write provenance.json over the files of the submission's folder, signed where there is a key. Blocks."""
    content = statement(_files(context), _origin(context))
    _write(context.artifacts, context.submission.pk, context.services.provenance_key, content)


def add_decision(artifacts: ArtifactStore, submission: int, key: ProvenanceKey | None, decision: Decision) -> None:
    """Write an operator's decision into provenance.json and sign it again, where its signature is right. Blocks.

    A file that is none, or that another has signed, stays as it is: `check_provenance` says so.
    """
    envelope = read_provenance(artifacts, submission)
    if envelope and _signature(envelope, key)[1]:
        _write(artifacts, submission, key, with_decision(envelope.statement, decision))


def check_provenance(artifacts: ArtifactStore, submission: int, key: ProvenanceKey | None) -> tuple[str, bool]:
    """What provenance.json says of the folder as it is now, and whether that is as it should be. Blocks.

    Raises InvalidCheckpoint for a file that is none.
    """
    envelope = read_provenance(artifacts, submission)
    if envelope is None:
        return "Provenance: there is no file of it.", False
    changed = [file for file, digest in envelope.files.items() if _digest(artifacts, submission, file) != digest]
    signed, right = _signature(envelope, key)
    if changed:
        return f"Provenance: {signed}, but changed since: {', '.join(changed)}.", False
    return f"Provenance: {signed}; {len(envelope.files)} files are as they were.", right


def _write(artifacts: ArtifactStore, submission: int, key: ProvenanceKey | None, content: bytes) -> None:
    envelope = key.signed(content) if key else Envelope(content)
    name = storage_keys.result_key(submission, storage_keys.PROVENANCE)
    artifacts.write(name, envelope.render(), "application/json")


def _signature(envelope: Envelope, key: ProvenanceKey | None) -> tuple[str, bool]:
    if not envelope.signatures:
        return "unsigned", key is None
    if key is None:
        return "signed, and this installation has no key to check that", False
    if key.has_signed(envelope):
        return f"signed by the key {key.id[:16]}", True
    return "the signature is not this installation's", False


def _digest(artifacts: ArtifactStore, submission: int, file: str) -> str:
    body = artifacts.read(f"{submission}/{file}")
    return "" if body is None else sha256(body)


def _files(context: EvaluationContext) -> Mapping[str, bytes]:
    """What the result consists of, by its name in the folder; what is not there is left out."""
    pk = context.submission.pk
    keys = [storage_keys.plan_key(pk), storage_keys.pool_key(pk)]
    for job in context.jobs:
        keys += [storage_keys.checkpoint_key(pk, job.shard.index), storage_keys.observations_key(pk, job.shard.index)]
    keys += [storage_keys.result_key(pk, name) for name in storage_keys.RESULTS]
    bodies = {key: context.artifacts.read(key) for key in keys}
    return {key.removeprefix(f"{pk}/"): body for key, body in bodies.items() if body is not None}


def _origin(context: EvaluationContext) -> Origin:
    submission, settings = context.submission, context.settings
    image = submission.image or (context.jobs[0].image if context.jobs else "")
    images = {pinned(image, "") or "unknown": context.image_digest or repository_digest(image)}
    images |= {pinned(image, other): other for other in context.images if other != context.image_digest}
    images |= {each: repository_digest(each) for each in settings.our_images}
    known = settings.expectations(submission.phase.track)
    return Origin(
        submission={
            "submission": submission.pk,
            "challenge": submission.challenge_pk,
            "phase": submission.phase.codename,
            "team": submission.team_pk,
            "attempt": context.claim.attempt,
        },
        inputs={**images, settings.routes: sha256(read_location(settings.routes, settings.credentials))},
        settings={
            "cluster": settings.cluster,
            "backend": settings.compute.kind,
            "leaderboardVersion": settings.leaderboard_version.value,
            "scoring": known.scoring.name,
            "penaltyWeights": dict(known.scoring.weights),
            "limits": asdict(known.limits),
        },
        run=str(flow_run.get_id() or ""),
        builder=f"urn:leaderboard-flows:{version('leaderboard-flows')}",
        finished_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
