"""The embedded AWS: everything that contracts/aws.md names, made in a moto server."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from evaluation.errors import InvalidConfiguration, ServiceUnavailable

if TYPE_CHECKING:
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_s3 import S3Client
    from types_boto3_secretsmanager import SecretsManagerClient
    from types_boto3_sqs import SQSClient
    from types_boto3_sqs.literals import QueueAttributeNameType

CLUSTERS = ("leaderboard-10", "leaderboard-20")
PRIVATE_CONTENTS = "leaderboard-private-contents"
ACCOUNT = "123456789012"  # moto's
QUEUE, DEAD_LETTER_QUEUE = "leaderboard-submissions", "leaderboard-submissions-dead"
RECEIVES_BEFORE_DEAD = 50  # the bridge gives up earlier, and says why
RETENTION_SECONDS = 4 * 24 * 3600  # EvalAI's own
# moto accepts anything; real credentials must never get near it.
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "embedded", "AWS_SECRET_ACCESS_KEY": "embedded"}


def queue_url(aws_url: str, name: str = QUEUE) -> str:
    """Deterministic, so that parts which need the queue can start at the same time as the embedded AWS."""
    return f"{aws_url}/{ACCOUNT}/{name}"


def routes_key(cluster: str) -> str:
    return f"routes/{cluster}.xml"


def routes_location(cluster: str) -> str:
    return f"s3://{PRIVATE_CONTENTS}/{routes_key(cluster)}"


class EmbeddedAws:
    """Clients of one moto server."""

    def __init__(self, url: str, region: str) -> None:
        self._session = boto3.session.Session(
            CREDENTIALS["AWS_ACCESS_KEY_ID"], CREDENTIALS["AWS_SECRET_ACCESS_KEY"], region_name=region
        )
        self._url = url
        self._region = region

    @property
    def s3(self) -> "S3Client":
        return cast("S3Client", self._client("s3"))

    @property
    def sqs(self) -> "SQSClient":
        return cast("SQSClient", self._client("sqs"))

    @property
    def dynamodb(self) -> "DynamoDBClient":
        return cast("DynamoDBClient", self._client("dynamodb"))

    def _client(self, service: str) -> Any:
        config = Config(retries={"max_attempts": 2}, connect_timeout=5, read_timeout=20, proxies={})
        return self._session.client(service, endpoint_url=self._url, config=config)  # type: ignore[call-overload]

    def create_all(self, routes: Path, secrets: Mapping[str, Mapping[str, str]], visibility_seconds: int) -> None:
        """Make queues, tables, buckets, log groups and secrets.

        `routes` is the folder of the route files `<cluster>.xml`, which land in the private contents.
        Raises ServiceUnavailable, or InvalidConfiguration where a route file is missing.
        """
        try:
            self._create_queues(visibility_seconds)
            for cluster in CLUSTERS:
                self._create_cluster(cluster)
            self._create_private_contents(routes)
            manager: SecretsManagerClient = self._client("secretsmanager")
            for name, content in secrets.items():
                manager.create_secret(Name=name, SecretString=json.dumps(content))
        except (ClientError, BotoCoreError) as error:
            raise ServiceUnavailable("The embedded AWS refused a resource", str(error)) from error
        except OSError as error:
            raise InvalidConfiguration("A demo route file cannot be read", str(error)) from error

    def _create_queues(self, visibility_seconds: int) -> None:
        sqs = self.sqs
        dead = sqs.create_queue(
            QueueName=DEAD_LETTER_QUEUE, Attributes={"MessageRetentionPeriod": str(RETENTION_SECONDS)}
        )
        names = sqs.get_queue_attributes(QueueUrl=dead["QueueUrl"], AttributeNames=["QueueArn"])["Attributes"]
        redrive = {"deadLetterTargetArn": names["QueueArn"], "maxReceiveCount": RECEIVES_BEFORE_DEAD}
        attributes: dict[QueueAttributeNameType, str] = {
            "RedrivePolicy": json.dumps(redrive),
            "VisibilityTimeout": str(visibility_seconds),
            "MessageRetentionPeriod": str(RETENTION_SECONDS),
        }
        sqs.create_queue(QueueName=QUEUE, Attributes=attributes)

    def _create_cluster(self, cluster: str) -> None:
        """A bucket, a table and a log group of the cluster's name."""
        self.s3.create_bucket(Bucket=cluster, CreateBucketConfiguration={"LocationConstraint": self._region})  # type: ignore[typeddict-item]
        self.dynamodb.create_table(
            TableName=cluster,
            KeySchema=[
                {"AttributeName": "team-id", "KeyType": "HASH"},
                {"AttributeName": "submission-id", "KeyType": "RANGE"},
            ],
            AttributeDefinitions=[
                {"AttributeName": "team-id", "AttributeType": "S"},
                {"AttributeName": "submission-id", "AttributeType": "S"},
            ],
            BillingMode="PAY_PER_REQUEST",
        )
        self._client("logs").create_log_group(logGroupName=cluster)

    def _create_private_contents(self, routes: Path) -> None:
        s3 = self.s3
        s3.create_bucket(
            Bucket=PRIVATE_CONTENTS,
            CreateBucketConfiguration={"LocationConstraint": self._region},  # type: ignore[typeddict-item]
        )
        for cluster in CLUSTERS:
            body = (routes / f"{cluster}.xml").read_bytes()
            s3.put_object(Bucket=PRIVATE_CONTENTS, Key=routes_key(cluster), Body=body, ContentType="application/xml")


def secrets_of(evalai_url: str, auth_token: str, phases: Mapping[str, int]) -> dict[str, dict[str, str]]:
    """The four secrets of contracts/aws.md, as names and contents; `phases` maps codename to pk."""
    secrets = {
        "evalai": {"auth_token": auth_token, "api_server": evalai_url},
        "evalai-tracks": {str(pk): codename for codename, pk in phases.items()},
    }
    return secrets | {cluster: _cluster_secret(cluster) for cluster in CLUSTERS}


def _cluster_secret(cluster: str) -> dict[str, str]:
    generation = {"leaderboard-10": "1.0"}.get(cluster, "2.0")
    return {
        "name": cluster,
        "endpoint": "local",
        "certificate_authority": "",
        "simulator_image": f"demo/simulator:{generation}",
        "leaderboard_image": f"demo/leaderboard:{generation}",
        "logcopy_image": f"demo/logcopy:{generation}",
        "s3_bucket": cluster,
        "dynamodb_submissions_table": cluster,
        "cloudwatch_log_group": cluster,
    }
