"""`leaderboard setup`: everything that the flows need on a Prefect server. Idempotent: a repetition changes nothing."""

from pathlib import Path
from typing import Any

import boto3
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, GlobalConcurrencyLimitUpdate, WorkPoolCreate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect_aws import AwsCredentials
from prefect_aws.client_parameters import AwsClientParameters
from pydantic import SecretStr

from blocks import document_names
from blocks.evalai import RATE_LIMIT_NAME, EvalAI, require_host
from blocks.installation import QueueAddresses, SaveCluster, save_blocks
from blocks.secrets import ClusterSecret, EvalAISecret, SecretNames, read_installation_secrets
from blocks.submission_queue import SubmissionQueue
from deployments.clusters_file import ClusterSettings, compute_cluster, read_clusters
from deployments.operator_notifications import notify_operators
from deployments.settings import Settings
from deployments.stack_state import EMBEDDED_CREDENTIALS
from evalai_api.budget import SLOTS, per_second
from evaluation.errors import InvalidConfiguration
from prefect_api.blocks import load_saved_block
from prefect_api.client import prefect_client, wait_for_server
from prefect_api.errors import prefect_errors
from prefect_api.request_budget import UNITS


def set_up(settings: Settings, clusters: Path | None, wait_seconds: float = 0, notify: str | None = None) -> list[str]:
    """Fill the server of PREFECT_API_URL: work pools, request budget, blocks. Returns what is there now, for people.

    `clusters` is a YAML file, cluster -> fields of its LeaderboardCluster block; without it they are left alone.
    `notify` names the notification block through which operators are notified of what only a person can repair.
    Raises InvalidConfiguration for settings, secrets and files that are wrong, ServiceUnavailable.
    """
    compute = read_clusters(clusters) if clusters else {}
    queue = QueueAddresses(
        _required(settings.queue_url, "queue-url"), _required(settings.dead_letter_url, "dead-letter-url")
    )
    with prefect_client() as client:
        wait_for_server(client, wait_seconds)
        with prefect_errors("Setting up Prefect's server"):
            pools = _pools(client, settings)
            _request_budget(client, settings.evalai_requests_per_minute)
            notification = [notify_operators(client, notify)] if notify else []
            secrets_manager = _session(settings).client("secretsmanager", **_endpoint(settings))
            secrets = read_installation_secrets(secrets_manager, SecretNames().prefixed(settings.secrets_prefix))
            token = require_host(_evalai(secrets.evalai, settings.challenge_pk))
            save_blocks(
                secrets,
                site_credentials(settings),
                queue,
                _cluster_saver(compute),
                settings.challenge_pk,
                settings.lease_seconds,
            )
    blocks = [f"blocks of {cluster}" for cluster in secrets.clusters]
    return [
        *pools,
        f"concurrency limit {RATE_LIMIT_NAME}",
        token,
        "blocks of EvalAI and the queue",
        *blocks,
        *notification,
    ]


def make_pools(settings: Settings, wait_seconds: float = 0) -> list[str]:
    """Make the work pools that prefect.yaml names, where they are missing; returns what is there now, for people."""
    with prefect_client() as client:
        wait_for_server(client, wait_seconds)
        with prefect_errors("Making Prefect's work pools"):
            return _pools(client, settings)


def _pools(client: SyncPrefectClient, settings: Settings) -> list[str]:
    return [work_pool(client, settings), work_pool(client, settings, settings.recovery_pool)]


def _evalai(secret: EvalAISecret, challenge_pk: int | None) -> EvalAI:
    return EvalAI(
        api_server=secret.api_server, auth_token=secret.token, phases=dict(secret.phases), challenge_pk=challenge_pk
    )


def load_queue() -> SubmissionQueue:
    """The queue's block; raises InvalidConfiguration where `leaderboard setup` has not run, ServiceUnavailable."""
    return load_saved_block(SubmissionQueue, document_names.QUEUE)


def work_pool(client: SyncPrefectClient, settings: Settings, name: str | None = None) -> str:
    """Make a work pool, the settings' own by default, where there is none; returns what is there, for people."""
    name = name or settings.work_pool
    try:
        pool = client.read_work_pool(name)
    except ObjectNotFound:
        try:
            pool = client.create_work_pool(WorkPoolCreate(name=name, type=settings.work_pool_type))
        except ObjectAlreadyExists:  # a worker that starts at this moment makes it too
            pool = client.read_work_pool(name)
    return f"work pool {pool.name} ({pool.type})"


def _request_budget(client: SyncPrefectClient, requests_per_minute: int) -> None:
    """The one budget of requests to EvalAI for the whole installation."""
    numbers = {"limit": SLOTS * UNITS, "slot_decay_per_second": per_second(requests_per_minute) * UNITS}
    try:
        client.update_global_concurrency_limit(RATE_LIMIT_NAME, GlobalConcurrencyLimitUpdate(**numbers))
    except ObjectNotFound:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=RATE_LIMIT_NAME, **numbers))


def site_credentials(settings: Settings) -> AwsCredentials:
    """The block that the others refer to. No keys for the real AWS: there the roles of the machines count."""
    if not settings.aws_endpoint_url:
        return AwsCredentials(region_name=settings.region)
    return AwsCredentials(
        aws_access_key_id=EMBEDDED_CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=SecretStr(EMBEDDED_CREDENTIALS["AWS_SECRET_ACCESS_KEY"]),
        region_name=settings.region,
        aws_client_parameters=AwsClientParameters(endpoint_url=settings.aws_endpoint_url),
    )


def _session(settings: Settings) -> boto3.session.Session:
    return boto3.session.Session(region_name=settings.region)


def _endpoint(settings: Settings) -> dict[str, Any]:
    return {"endpoint_url": settings.aws_endpoint_url} if settings.aws_endpoint_url else {}


def _cluster_saver(compute: ClusterSettings) -> SaveCluster:
    def save(cluster: ClusterSecret, credentials: AwsCredentials) -> None:
        fields = compute.get(cluster.cluster)
        if fields is not None:
            compute_cluster(cluster, credentials, fields).save(cluster.cluster, overwrite=True)

    return save


def _required(value: str, option: str) -> str:
    if not value:
        variable = f"LEADERBOARD_{option.replace('-', '_').upper()}"
        raise InvalidConfiguration("An address is missing", f"give --{option} or set {variable}")
    return value
