"""An installation's secrets as saved Prefect blocks, named by blocks.document_names."""

from collections.abc import Callable
from dataclasses import dataclass

from prefect_aws import AwsCredentials

from blocks.artifact_bucket import ArtifactBucket
from blocks.document_names import CREDENTIALS, EVALAI, QUEUE
from blocks.evalai import EvalAI
from blocks.ledger_table import LedgerTable
from blocks.secrets import ClusterSecret, InstallationSecrets
from blocks.submission_queue import SubmissionQueue
from evaluation.lifecycle.stages import LEASE_SECONDS

SaveCluster = Callable[[ClusterSecret, AwsCredentials], None]


@dataclass(frozen=True)
class QueueAddresses:
    queue_url: str
    dead_letter_url: str


def save_blocks(
    secrets: InstallationSecrets,
    credentials: AwsCredentials,
    queue: QueueAddresses,
    save_cluster: SaveCluster,
    challenge_pk: int | None = None,
    lease_seconds: int = LEASE_SECONDS,
) -> None:
    """Save the secrets as blocks named by blocks.document_names, over earlier ones; a repetition changes nothing.

    `save_cluster` saves whatever else a cluster needs: its ComputeCluster. Blocks: call it outside an event loop.
    """
    credentials.save(CREDENTIALS, overwrite=True)  # first: the other blocks then refer to it instead of copying it
    EvalAI(
        api_server=secrets.evalai.api_server,
        auth_token=secrets.evalai.token,
        provenance_key=secrets.evalai.provenance_key,
        phases=dict(secrets.evalai.phases),
        challenge_pk=challenge_pk,
    ).save(EVALAI, overwrite=True)
    SubmissionQueue(queue_url=queue.queue_url, dead_letter_url=queue.dead_letter_url, credentials=credentials).save(
        QUEUE, overwrite=True
    )
    for name, cluster in secrets.clusters.items():
        LedgerTable(table=cluster.table, credentials=credentials, lease_seconds=lease_seconds).save(
            name, overwrite=True
        )
        ArtifactBucket(bucket=cluster.s3_bucket, credentials=credentials).save(name, overwrite=True)
        save_cluster(cluster, credentials)
