"""`leaderboard doctor` on AWS (moto) and EvalAI (the stand-in): all green, then one thing broken at a time.

Prefect's part is in tests/flows/test_doctor_on_prefect.py, the whole on a running stack in tests/e2e.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from prefect.blocks.core import Block
from prefect.client.orchestration import SyncPrefectClient
from prefect_aws import AwsClientParameters, AwsCredentials
from pydantic import SecretStr

from blocks import document_names
from blocks.artifact_bucket import ArtifactBucket
from blocks.evalai import EvalAI
from blocks.leaderboard_cluster import LeaderboardCluster, LocalCompute
from blocks.ledger_table import LedgerTable
from blocks.submission_queue import SubmissionQueue
from deployments.installation import Installation
from deployments.settings import Settings
from deployments.stack_state import EMBEDDED_CREDENTIALS
from doctor.aws_checks import aws_checks
from doctor.cluster_checks import cluster_checks
from doctor.context import DoctorContext
from doctor.evalai_checks import evalai_checks
from doctor.findings import CheckStatus, Finding, run_checks
from doctor.queue_checks import queue_checks
from embedded.aws import DEAD_LETTER_QUEUE, EmbeddedAws, queue_url, routes_location, secrets_of
from embedded.evalai_standin import (
    Challenge,
    Config,
    Phase,
    Split,
    State,
    Team,
    User,
    create_app,
    replace_state,
    serving,
)
from embedded.stack_start import ROUTES
from evaluation.errors import InvalidConfiguration
from evaluation.results.evalai_result import LABELS_V2
from evaluation.submission.model import LeaderboardVersion
from tests.contract.aws_server import empty_aws, moto_server

CLUSTER = "leaderboard-20"
HOST, PARTICIPANT = "host-token-7f3a", "participant-token-91"
PHASES = {2203: "leaderboard-20-SENSORS", 2204: "leaderboard-20-MAP"}
REGISTRY = "123456789012.dkr.ecr.us-west-2.amazonaws.com"
IMAGES = ("simulator", "leaderboard", "logcopy")


@dataclass
class World:
    """What is there, and the blocks and settings of an installation that uses it; a test breaks one of them."""

    aws: EmbeddedAws
    aws_url: str
    evalai_url: str
    blocks: dict[tuple[type[Block], str], Block] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)

    def block(self, kind: type[Any], name: str) -> Any:
        return self.blocks[kind, name]

    def change(self, kind: type[Block], name: str, **changes: object) -> None:
        self.blocks[kind, name] = self.blocks[kind, name].model_copy(update=changes)

    def remove(self, kind: type[Block], name: str) -> None:
        del self.blocks[kind, name]

    def diagnose(self) -> list[Finding]:
        def load(kind: Any, name: str) -> Any:
            if (kind, name) not in self.blocks:
                raise InvalidConfiguration("The block cannot be used")
            return self.blocks[kind, name]

        installation = Installation("http://prefect.example/api")
        context = DoctorContext(self.settings, installation, cast(SyncPrefectClient, Answering()), load)
        parts = (aws_checks, queue_checks, cluster_checks, evalai_checks)
        return [finding for part in parts for finding in run_checks(part(context))]


class Answering:
    """A Prefect server that is well; its blocks come from the test."""

    def api_healthcheck(self) -> None:
        return None


@pytest.fixture(scope="module")
def resources() -> Iterator[tuple[EmbeddedAws, str]]:
    """An AWS of this module's own: what deployments/aws makes, images, and resources that are wrong in one way each."""
    with moto_server() as url:
        empty_aws(url)  # the servers of one process share their state
        yield _filled(url), url


def _filled(url: str) -> EmbeddedAws:
    aws = EmbeddedAws(url, "us-west-2")
    aws.create_all(ROUTES, secrets_of("https://evalai.example", HOST, {name: pk for pk, name in PHASES.items()}), 60)
    _put_secret(aws, CLUSTER, **{f"{part}_image": f"{REGISTRY}/{CLUSTER}-{part}:1" for part in IMAGES})
    ecr = aws._client("ecr")
    for part in IMAGES:
        ecr.create_repository(repositoryName=f"{CLUSTER}-{part}")
        media = "application/vnd.docker.distribution.manifest.v2+json"
        manifest = json.dumps({"schemaVersion": 2, "mediaType": media, "config": {"digest": part}})
        ecr.put_image(repositoryName=f"{CLUSTER}-{part}", imageTag="1", imageManifest=manifest)
    _make_wrong_ones(aws)
    return aws


def _put_secret(aws: EmbeddedAws, name: str, **changes: str) -> None:
    manager = aws._client("secretsmanager")
    content = json.loads(manager.get_secret_value(SecretId=name)["SecretString"])
    manager.put_secret_value(SecretId=name, SecretString=json.dumps(content | changes))


def _make_wrong_ones(aws: EmbeddedAws) -> None:
    aws.dynamodb.create_table(
        TableName="wrong-keys",
        KeySchema=[{"AttributeName": "submission-id", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "submission-id", "AttributeType": "N"}],
        BillingMode="PAY_PER_REQUEST",
    )
    for name in ("plain-bucket", "open-bucket"):
        aws.s3.create_bucket(Bucket=name, CreateBucketConfiguration={"LocationConstraint": "us-west-2"})
    rules = aws.s3.get_bucket_encryption(Bucket=CLUSTER)["ServerSideEncryptionConfiguration"]
    aws.s3.put_bucket_encryption(Bucket="open-bucket", ServerSideEncryptionConfiguration=cast(Any, rules))
    arn = "arn:aws:sqs:us-west-2:123456789012"
    _queue(aws, "no-policy")
    _queue(aws, "elsewhere", RedrivePolicy=_policy(f"{arn}:no-policy", 1000))
    _queue(aws, "hasty", RedrivePolicy=_policy(f"{arn}:{DEAD_LETTER_QUEUE}", 5))
    _queue(aws, "at-once", RedrivePolicy=_policy(f"{arn}:{DEAD_LETTER_QUEUE}", 1000), VisibilityTimeout="0")
    _queue(aws, "forgetful-dead", MessageRetentionPeriod="3600")
    _queue(aws, "of-forgetful", RedrivePolicy=_policy(f"{arn}:forgetful-dead", 1000))
    _queue(aws, "full-dead", MessageRetentionPeriod="1209600")
    _queue(aws, "of-full", RedrivePolicy=_policy(f"{arn}:full-dead", 1000))
    for number in range(2):
        aws.sqs.send_message(QueueUrl=aws.sqs.get_queue_url(QueueName="full-dead")["QueueUrl"], MessageBody=f"{number}")


def _policy(arn: str, receives: int) -> str:
    return json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": receives})


def _queue(aws: EmbeddedAws, name: str, **attributes: str) -> None:
    aws.sqs.create_queue(QueueName=name, Attributes=cast(Any, attributes))


@pytest.fixture(scope="module")
def evalai() -> Iterator[str]:
    config = Config(
        users=(User(pk=1, name="host", token=HOST), User(pk=2, name="participant", token=PARTICIPANT)),
        challenges=(Challenge(pk=1, hosts=("host",), queue_url="http://sqs.test/1/queue"),),
        phases=tuple(Phase(pk=pk, challenge=1, codename=codename) for pk, codename in PHASES.items()),
        splits=tuple(Split(pk=pk + 1000, phase=pk, labels=LABELS_V2) for pk in PHASES),
        teams=(Team(pk=1, name="A team", members=("participant",)),),
        requests_per_minute=1000,
    )
    app = create_app(config, publish=[].append)
    with serving(app) as url:
        replace_state(app, State(config, [].append))
        yield url


@pytest.fixture
def world(resources: tuple[EmbeddedAws, str], evalai: str, tmp_path: Path) -> World:
    aws, url = resources
    the_world = World(aws, url, evalai, settings=Settings(aws_endpoint_url=url, challenge_pk=1))
    credentials = AwsCredentials(
        aws_access_key_id=EMBEDDED_CREDENTIALS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=SecretStr(EMBEDDED_CREDENTIALS["AWS_SECRET_ACCESS_KEY"]),
        region_name="us-west-2",
        aws_client_parameters=AwsClientParameters(endpoint_url=url),
    )
    cluster = LeaderboardCluster(
        cluster=CLUSTER,
        leaderboard_version=LeaderboardVersion.V2,
        compute=LocalCompute(workdir=tmp_path / "runs"),
        credentials=credentials,
        bucket=CLUSTER,
        routes=routes_location(CLUSTER),
        image_registries=["demo"],
        log_group=CLUSTER,
    )
    phases = {str(pk): codename for pk, codename in PHASES.items()}
    the_world.blocks = {
        (AwsCredentials, document_names.CREDENTIALS): credentials,
        (EvalAI, document_names.EVALAI): EvalAI(
            api_server=evalai, auth_token=SecretStr(HOST), phases=phases, challenge_pk=1
        ),
        (SubmissionQueue, document_names.QUEUE): SubmissionQueue(
            queue_url=queue_url(url), dead_letter_url=queue_url(url, DEAD_LETTER_QUEUE), credentials=credentials
        ),
        (LedgerTable, CLUSTER): LedgerTable(table=CLUSTER, credentials=credentials),
        (ArtifactBucket, CLUSTER): ArtifactBucket(bucket=CLUSTER, credentials=credentials),
        (LeaderboardCluster, CLUSTER): cluster,
    }
    return the_world


def test_an_installation_that_is_well_is_all_green(world: World) -> None:
    findings = world.diagnose()

    shown = {finding.subject: finding.detail for finding in findings}
    assert [str(finding) for finding in findings if finding.status is not CheckStatus.OK] == []
    assert shown["AWS: secrets"] == "readable, 2 phases of leaderboard-20"
    assert shown[f"AWS: bucket of {CLUSTER}"] == f"{CLUSTER}, encrypted, not public"
    assert shown[f"AWS: simulator image of {CLUSTER}"].startswith(f"{REGISTRY}/{CLUSTER}-simulator:1, pushed ")
    assert shown["Queue: redrive policy"] == "after 1000 receives; dead letters are kept 14 days"
    assert shown[f"Cluster: routes of {CLUSTER}"].startswith("20 routes")
    assert shown["EvalAI: token"].startswith("a host's of challenge 1")
    assert HOST not in "".join(map(str, findings))


def ledger(**changes: object) -> Callable[[World], None]:
    return lambda world: world.change(LedgerTable, CLUSTER, **changes)


def bucket(**changes: object) -> Callable[[World], None]:
    return lambda world: world.change(ArtifactBucket, CLUSTER, **changes)


def queue(queue_name: str, dead: str = DEAD_LETTER_QUEUE) -> Callable[[World], None]:
    def change(world: World) -> None:
        addresses = {
            "queue_url": queue_url(world.aws_url, queue_name),
            "dead_letter_url": queue_url(world.aws_url, dead),
        }
        world.change(SubmissionQueue, document_names.QUEUE, **addresses)

    return change


def compute(**changes: object) -> Callable[[World], None]:
    return lambda world: world.change(LeaderboardCluster, CLUSTER, **changes)


def locked_workdir(world: World) -> None:
    folder = world.block(LeaderboardCluster, CLUSTER).compute.workdir.parent / "file"
    folder.touch()
    world.change(LeaderboardCluster, CLUSTER, compute=LocalCompute(workdir=folder / "runs"))


def of_evalai(**changes: object) -> Callable[[World], None]:
    return lambda world: world.change(EvalAI, document_names.EVALAI, **changes)


def elsewhere(world: World) -> None:
    world.change(EvalAI, document_names.EVALAI, api_server="http://127.0.0.1:1")


STORAGE = "Create or update the stack of deployments/aws/storage.yaml."
QUEUE = "Update the stack of deployments/aws/queue.yaml."
TABLE, BUCKET, LOGS = f"AWS: table of {CLUSTER}", f"AWS: bucket of {CLUSTER}", f"AWS: log group of {CLUSTER}"
REDRIVE = "Queue: redrive policy"


@dataclass(frozen=True)
class Broken:
    name: str
    how: Callable[[World], None]
    problems: dict[str, tuple[str, str]]  # subject -> parts of detail and remedy


BROKEN = [
    Broken("no-table", ledger(table="absent"), {TABLE: ("There is no DynamoDB table absent", STORAGE)}),
    Broken("keys", ledger(table="wrong-keys"), {TABLE: ("has the keys submission-id (HASH, N)", "name another table")}),
    Broken("no-bucket", bucket(bucket="absent"), {BUCKET: ("There is no bucket absent", STORAGE)}),
    Broken("plain", bucket(bucket="plain-bucket"), {BUCKET: ("plain-bucket is not encrypted", STORAGE)}),
    Broken("open", bucket(bucket="open-bucket"), {BUCKET: ("may be made public", "Block all four kinds")}),
    Broken("no-logs", compute(log_group="absent"), {LOGS: ("There is no log group absent", STORAGE)}),
    Broken("no-policy", queue("no-policy"), {REDRIVE: ("no redrive policy", QUEUE)}),
    Broken("other-policy", queue("elsewhere"), {REDRIVE: ("redrive policy names", QUEUE)}),
    Broken(
        "hasty",
        queue("hasty"),
        {REDRIVE: ("SQS gives up after 5 receives; a message that nobody claims is received 99 times", QUEUE)},
    ),
    Broken("forgetful", queue("of-forgetful", "forgetful-dead"), {REDRIVE: ("no longer than the queue", QUEUE)}),
    Broken("visibility", queue("at-once"), {"Queue: messages": ("for 0 s only", "timeout of 10 s at least")}),
    Broken(
        "dead-letters",
        queue("of-full", "full-dead"),
        {"Queue: dead letters": ("2 messages could not be evaluated", "`leaderboard queue dead` shows them")},
    ),
    Broken(
        "no-queue",
        queue("absent"),
        {
            "Queue: messages": ("NonExistentQueue", "Check its name and its region."),
            REDRIVE: ("NonExistentQueue", "Check its name and its region."),
        },
    ),
    Broken(
        "workdir",
        locked_workdir,
        {
            f"Cluster: machines of {CLUSTER}": (
                "is not a folder that this user may write to",
                "workdir in the clusters'",
            )
        },
    ),
    Broken(
        "no-routes",
        compute(routes="s3://leaderboard-private-contents/routes/absent.xml"),
        {f"Cluster: routes of {CLUSTER}": ("There is no object", "Correct it in the place that is named.")},
    ),
    Broken(
        "no-host",
        of_evalai(auth_token=SecretStr(PARTICIPANT)),
        {
            "EvalAI: token": ("does not accept the token", "Put the token of a host of this challenge"),
            "EvalAI: phases": ("does not accept the token", "Put the token of a host of this challenge"),
        },
    ),
    Broken(
        "phases",
        of_evalai(phases={"2203": "leaderboard-20-MAP", "9": "leaderboard-20-X"}),
        {
            "EvalAI: phases": (
                "9 is unknown at EvalAI and leaderboard-20-X here; "
                "2203 is leaderboard-20-SENSORS at EvalAI and leaderboard-20-MAP here; "
                "2204 is leaderboard-20-MAP at EvalAI and unknown here",
                "Correct the secret, then run `leaderboard setup`.",
            )
        },
    ),
    Broken(
        "evalai-down",
        elsewhere,
        {
            "EvalAI: token": ("cannot be reached", "Try again"),
            "EvalAI: phases": ("cannot be reached", "Try again"),
        },
    ),
]


@pytest.mark.parametrize("broken", BROKEN, ids=lambda broken: broken.name)
def test_what_is_broken_is_the_only_problem_and_says_what_to_do(world: World, broken: Broken) -> None:
    broken.how(world)

    findings = world.diagnose()

    problems = {finding.subject: finding for finding in findings if finding.status is CheckStatus.PROBLEM}
    assert set(problems) == set(broken.problems)
    for subject, (detail, remedy) in broken.problems.items():
        assert detail in problems[subject].detail
        assert remedy in problems[subject].remedy
    assert len([finding for finding in findings if finding.status is CheckStatus.OK]) >= 14 - len(problems)
    assert not [token for token in (HOST, PARTICIPANT) if token in "".join(map(str, findings))]


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"simulator_image": f"{REGISTRY}/{CLUSTER}-simulator:2"}, "ImageNotFoundException"),
        ({"simulator_image": f"{REGISTRY}/absent:1"}, "RepositoryNotFoundException"),
    ],
)
def test_an_image_that_is_not_in_ecr_is_named(world: World, changes: dict[str, str], detail: str) -> None:
    with secret(world, CLUSTER, **changes):
        findings = {finding.subject: finding for finding in world.diagnose()}

    found = findings[f"AWS: simulator image of {CLUSTER}"]
    assert found.status is CheckStatus.PROBLEM
    assert f"There is no image {changes['simulator_image']}: {detail}" in found.detail
    assert found.remedy.startswith(f"Push it, or correct simulator_image in the secret of {CLUSTER}")


def test_an_image_elsewhere_is_not_checked(world: World) -> None:
    with secret(world, CLUSTER, simulator_image="registry.example/simulator:1"):
        findings = {finding.subject: finding for finding in world.diagnose()}

    found = findings[f"AWS: simulator image of {CLUSTER}"]
    assert (found.status, found.detail) == (CheckStatus.NOT_CHECKED, "registry.example/simulator:1 is not in ECR")


def test_wrong_secrets_are_named_without_their_values_and_hide_nothing_else(world: World) -> None:
    with secret(world, CLUSTER, endpoint=HOST, s3_bucket=""), secret(world, "evalai", api_server=HOST):
        findings = {finding.subject: finding for finding in world.diagnose()}

    found = findings["AWS: secrets"]
    assert (found.status, found.remedy) == (CheckStatus.PROBLEM, "Correct them in AWS Secrets Manager.")
    for problem in ("secret evalai: api_server must be", f"secret {CLUSTER}: endpoint must be", "s3_bucket must be"):
        assert problem in found.detail
    assert findings[BUCKET].status is CheckStatus.OK  # its block is there
    assert findings[f"AWS: simulator image of {CLUSTER}"].status is CheckStatus.NOT_CHECKED
    assert HOST not in "".join(map(str, findings.values()))


def test_before_the_set_up_the_secrets_and_settings_count(world: World) -> None:
    """No block is there: what secrets and settings say is checked, the rest says what it needs."""
    dead_letter_url = queue_url(world.aws_url, DEAD_LETTER_QUEUE)
    addresses = {"queue_url": queue_url(world.aws_url), "dead_letter_url": dead_letter_url}
    world.blocks, world.settings = {}, world.settings.model_copy(update=addresses)

    with secret(world, "evalai", api_server=world.evalai_url):
        findings = {finding.subject: finding for finding in world.diagnose()}

    unknown = {f"Cluster: machines of {CLUSTER}", f"Cluster: routes of {CLUSTER}", "EvalAI: leaderboards"}
    assert {subject for subject, finding in findings.items() if finding.status is not CheckStatus.OK} == unknown
    assert {findings[subject].detail for subject in unknown} == {
        f"it needs the block compute-cluster/{CLUSTER}, see there"
    }


def test_without_blocks_and_secrets_every_line_says_what_it_needs(world: World) -> None:
    world.blocks = {}
    world.settings = world.settings.model_copy(update={"secrets_prefix": "absent-", "challenge_pk": None})

    findings = world.diagnose()

    statuses = {finding.subject: finding.status for finding in findings}
    assert statuses.pop("AWS: secrets") is CheckStatus.PROBLEM
    assert set(statuses.values()) == {CheckStatus.NOT_CHECKED}
    [token] = [finding for finding in findings if finding.subject == "EvalAI: token"]
    assert token.remedy == "Set LEADERBOARD_CHALLENGE_PK, then run `leaderboard setup`."


@contextmanager
def secret(world: World, name: str, **changes: str) -> Iterator[None]:
    """The secret with other values, and as it was afterwards."""
    manager = world.aws._client("secretsmanager")
    before = manager.get_secret_value(SecretId=name)["SecretString"]
    _put_secret(world.aws, name, **changes)
    try:
        yield
    finally:
        manager.put_secret_value(SecretId=name, SecretString=before)
