"""What the checks read: the installation's blocks, its secrets, its Prefect server. Each is asked for once."""

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, cast

from prefect.blocks.core import Block
from prefect.client.orchestration import SyncPrefectClient
from prefect_aws import AwsCredentials

from blocks import document_names
from blocks.artifact_bucket import ArtifactBucket
from blocks.aws_client import aws_client
from blocks.evalai import EvalAI
from blocks.leaderboard_cluster import LeaderboardCluster
from blocks.ledger_table import LedgerTable
from blocks.secrets import ClusterSecret, InstallationSecrets, SecretNames, read_installation_secrets
from blocks.submission_queue import SubmissionQueue
from deployments.installation import Installation
from deployments.prefect_setup import site_credentials
from deployments.settings import Settings
from deployments.stack_state import StackState
from doctor.findings import NotChecked
from evaluation.errors import EvaluationError, ServiceUnavailable
from prefect_api.blocks import load_saved_block

Kept = TypeVar("Kept")
SomeBlock = TypeVar("SomeBlock", bound=Block)


class LoadBlock(Protocol):
    """prefect_api.blocks.load_saved_block"""

    def __call__(self, kind: type[SomeBlock], name: str) -> SomeBlock: ...


# A person waits, and a service that is down is down for every check.
_IMPATIENT: dict[str, Any] = {"connect_timeout": 5, "read_timeout": 15, "retries": {"max_attempts": 1}}


class DoctorContext:
    """One installation. What cannot be had is a problem in the check that is about it, NotChecked in all others."""

    def __init__(
        self,
        settings: Settings,
        installation: Installation,
        client: SyncPrefectClient,
        load: LoadBlock = load_saved_block,
    ) -> None:
        self.settings = settings if installation.stack is None else _of_stack(settings, installation.stack)
        self.installation = installation
        self.client = client
        self._load = load
        self._kept: dict[str, object] = {}

    # Each of the following may be asked again and again, and always answers or raises the same.

    def prefect(self) -> SyncPrefectClient:
        """The client, of a server that answers; raises ServiceUnavailable."""
        return self._once("prefect", self._answering)

    def block(self, kind: type[SomeBlock], name: str) -> SomeBlock:
        """A saved block, its credentials made impatient; raises InvalidConfiguration or ServiceUnavailable."""
        self.need(self.prefect, "Prefect's server")
        return self._once(_title(kind, name), lambda: _impatient(self._load(kind, name)))

    def secrets(self) -> InstallationSecrets:
        """The context's secrets; raises InvalidConfiguration that names every problem, or ServiceUnavailable."""
        return self._once("secrets", self._read_secrets)

    def need(self, get: Callable[[], Kept], what: str) -> Kept:
        """What `get` returns; raises NotChecked where it raises, since another line says why."""
        try:
            return get()
        except EvaluationError as error:
            raise NotChecked(f"it needs {what}, see there") from error

    def need_block(self, kind: type[SomeBlock], name: str) -> SomeBlock:
        return self.need(lambda: self.block(kind, name), f"the block {_title(kind, name)}")

    # A block counts, since it is what the flow uses; where there is none, what `leaderboard setup` would put into it.

    @property
    def credentials(self) -> AwsCredentials:
        known = self._perhaps(lambda: self.block(AwsCredentials, document_names.CREDENTIALS))
        return known or _impatient(site_credentials(self.settings))

    @property
    def clusters(self) -> tuple[str, ...]:
        """The clusters that the phases name, as far as anybody knows them."""
        evalai = self._perhaps(lambda: self.block(EvalAI, document_names.EVALAI))
        secrets = self._perhaps(self.secrets)
        return (self._perhaps(lambda: evalai.clusters) or ()) if evalai else tuple(secrets.clusters) if secrets else ()

    @property
    def challenge_pk(self) -> int:
        evalai = self._perhaps(lambda: self.block(EvalAI, document_names.EVALAI))
        pk = (evalai and evalai.challenge_pk) or self.settings.challenge_pk
        if pk is None:
            raise NotChecked(
                "it is not known which challenge is this installation's",
                "Set LEADERBOARD_CHALLENGE_PK, then run `leaderboard setup`.",
            )
        return pk

    def evalai(self) -> EvalAI:
        """EvalAI's block, or what the secrets would make of it."""
        known = self._perhaps(lambda: self.block(EvalAI, document_names.EVALAI))
        if known:
            return known
        secret = self.need(self.secrets, "the block evalai/evalai or the secrets").evalai
        return EvalAI(api_server=secret.api_server, auth_token=secret.token, phases=dict(secret.phases))

    def queue(self) -> SubmissionQueue:
        """The queue's block, or what the settings would make of it."""
        known = self._perhaps(lambda: self.block(SubmissionQueue, document_names.QUEUE))
        if known:
            return known
        queue_url, dead_letter_url = self.settings.queue_url, self.settings.dead_letter_url
        if not (queue_url and dead_letter_url):
            raise NotChecked("it needs the block submission-queue/submissions, see there")
        return SubmissionQueue(queue_url=queue_url, dead_letter_url=dead_letter_url, credentials=self.credentials)

    def table(self, cluster: str) -> str:
        known = self._perhaps(lambda: self.block(LedgerTable, cluster))
        return known.table if known else self.secret_of(cluster, "block or the secret").table

    def bucket(self, cluster: str) -> str:
        known = self._perhaps(lambda: self.block(ArtifactBucket, cluster))
        return known.bucket if known else self.secret_of(cluster, "block or the secret").s3_bucket

    def log_group(self, cluster: str) -> str:
        known = self._perhaps(lambda: self.block(LeaderboardCluster, cluster))
        return (known and known.log_group) or self.secret_of(cluster, "block or the secret").log_group

    def compute(self, cluster: str) -> LeaderboardCluster:
        return self.need_block(LeaderboardCluster, cluster)

    def secret_of(self, cluster: str, what: str = "secret") -> ClusterSecret:
        known = self.need(self.secrets, f"the {what} of {cluster}").clusters.get(cluster)
        if known is None:
            raise NotChecked(f"the secrets name no phase of {cluster}")
        return known

    def _answering(self) -> SyncPrefectClient:
        problem = self.client.api_healthcheck()
        if problem is not None:
            raise ServiceUnavailable(
                f"Prefect's server at {self.installation.prefect_api_url} does not answer",
                type(problem).__name__,
                "Start it, or correct PREFECT_API_URL (and PREFECT_API_KEY).",
            )
        return self.client

    def _read_secrets(self) -> InstallationSecrets:
        client = aws_client(self.credentials, "secretsmanager")
        return read_installation_secrets(client, SecretNames().prefixed(self.settings.secrets_prefix))

    def _once(self, key: str, get: Callable[[], Kept]) -> Kept:
        if key not in self._kept:
            try:
                self._kept[key] = get()
            except EvaluationError as error:
                self._kept[key] = error
        kept = self._kept[key]
        if isinstance(kept, EvaluationError):
            raise kept
        return cast(Kept, kept)

    def _perhaps(self, get: Callable[[], Kept]) -> Kept | None:
        try:
            return get()
        except (EvaluationError, NotChecked):
            return None


def _of_stack(settings: Settings, stack: StackState) -> Settings:
    """The settings that the stack's own commands have: what else would ask the real AWS."""
    own = {"aws_endpoint_url": stack.aws_url, "secrets_prefix": ""}
    document_names = ("region", "queue_url", "dead_letter_url", "work_pool", "challenge_pk")
    return settings.model_copy(update=own | {name: getattr(stack, name) for name in document_names})


def _title(kind: type[Block], name: str) -> str:
    return f"{kind.get_block_type_slug()}/{name}"


def _impatient(block: SomeBlock) -> SomeBlock:
    if isinstance(block, AwsCredentials):
        parameters = block.aws_client_parameters.model_copy(update={"config": _IMPATIENT})
        return block.model_copy(update={"aws_client_parameters": parameters})
    if isinstance(credentials := getattr(block, "credentials", None), AwsCredentials):
        return block.model_copy(update={"credentials": _impatient(credentials)})
    return block
