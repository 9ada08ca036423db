"""The embedded AWS: the templates of deployments/aws, deployed into a moto server and filled for a demo."""

import base64
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

import deployments
from blocks.provenance_key import SEED_BYTES
from deployments.stack_state import EMBEDDED_CREDENTIALS
from evaluation.errors import InvalidConfiguration, ServiceUnavailable

if TYPE_CHECKING:
    from types_boto3_cloudformation import CloudFormationClient
    from types_boto3_dynamodb import DynamoDBClient
    from types_boto3_s3 import S3Client
    from types_boto3_secretsmanager import SecretsManagerClient
    from types_boto3_sqs import SQSClient

TEMPLATES = Path(deployments.__file__).parent / "aws"
STAGE = "production"  # the stage whose names are the plain ones

# The names that deployments/aws gives by default; tests/contract/test_aws_stacks.py holds both together.
CLUSTERS = ("leaderboard-10", "leaderboard-20")
PRIVATE_CONTENTS = "leaderboard-private-contents"
QUEUE, DEAD_LETTER_QUEUE = "leaderboard", "leaderboard-dead-letters"
ACCOUNT = "123456789012"  # moto's


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
            EMBEDDED_CREDENTIALS["AWS_ACCESS_KEY_ID"], EMBEDDED_CREDENTIALS["AWS_SECRET_ACCESS_KEY"], region_name=region
        )
        self._url = url

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
        """Make the stacks of a run, put in the routes, and make the secrets.

        `routes` is the folder of the route files `<cluster>.xml`, which land in the private contents.
        Raises ServiceUnavailable, or InvalidConfiguration where a route file is missing.
        """
        self.deploy("queue", VisibilitySeconds=str(visibility_seconds))
        for cluster in CLUSTERS:
            self.deploy("storage", stack=cluster, Leaderboard=cluster)
        self.deploy("private-contents")
        for bucket in (*CLUSTERS, PRIVATE_CONTENTS):
            self._close(bucket)
        self._upload_routes(routes)
        manager: SecretsManagerClient = self._client("secretsmanager")
        with _refusals("a secret"):  # moto's CloudFormation makes none
            for name, content in secrets.items():
                manager.create_secret(Name=name, SecretString=json.dumps(content))

    def deploy(self, template: str, stack: str = "", **parameters: str) -> dict[str, str]:
        """Make a stack of deployments/aws/<template>.yaml, wait until it is there, and return its outputs.

        `stack` names one of several stacks of one template. Raises ServiceUnavailable.
        """
        cloudformation: CloudFormationClient = self._client("cloudformation")
        name = f"{STAGE}-{stack or template}"
        values = {"Stage": STAGE, **parameters}
        # On a busy machine the answer may be late: the request is then sent again, and finds the stack there.
        late = suppress(cloudformation.exceptions.AlreadyExistsException)
        with _refusals(f"the stack {name}"):
            with late:
                cloudformation.create_stack(
                    StackName=name,
                    TemplateBody=(TEMPLATES / f"{template}.yaml").read_text("utf-8"),
                    Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in values.items()],
                    Capabilities=["CAPABILITY_NAMED_IAM"],
                )
            waiter = cloudformation.get_waiter("stack_create_complete")
            waiter.wait(StackName=name, WaiterConfig={"Delay": 1, "MaxAttempts": 20})  # the first poll is at once
            outputs = cloudformation.describe_stacks(StackName=name)["Stacks"][0].get("Outputs", [])
        return {output["OutputKey"]: output["OutputValue"] for output in outputs}

    def _close(self, bucket: str) -> None:
        """Block public access, as the template says: moto's CloudFormation leaves that part out."""
        ways = ("BlockPublicAcls", "BlockPublicPolicy", "IgnorePublicAcls", "RestrictPublicBuckets")
        with _refusals(f"to close the bucket {bucket}"):
            self.s3.put_public_access_block(
                Bucket=bucket,
                PublicAccessBlockConfiguration=dict.fromkeys(ways, True),  # type: ignore[arg-type]
            )

    def _upload_routes(self, routes: Path) -> None:
        for cluster in CLUSTERS:
            try:
                body = (routes / f"{cluster}.xml").read_bytes()
            except OSError as error:
                raise InvalidConfiguration("A demo route file cannot be read", str(error)) from error
            with _refusals(routes_location(cluster)):
                self.s3.put_object(
                    Bucket=PRIVATE_CONTENTS, Key=routes_key(cluster), Body=body, ContentType="application/xml"
                )


@contextmanager
def _refusals(what: str) -> Iterator[None]:
    try:
        yield
    except (ClientError, BotoCoreError) as error:
        raise ServiceUnavailable(f"The embedded AWS refused {what}", str(error)) from error


def secrets_of(evalai_url: str, auth_token: str, phases: Mapping[str, int]) -> dict[str, dict[str, str]]:
    """The four secrets (docs/aws.md, "The secrets"), as names and contents; `phases` maps codename to pk."""
    secrets = {
        "evalai": {"auth_token": auth_token, "api_server": evalai_url, "provenance_key": _new_key()},
        "evalai-tracks": {str(pk): codename for codename, pk in phases.items()},
    }
    return secrets | {cluster: _cluster_secret(cluster) for cluster in CLUSTERS}


def _new_key() -> str:
    return base64.b64encode(os.urandom(SEED_BYTES)).decode()


def _cluster_secret(cluster: str) -> dict[str, str]:
    version = {"leaderboard-10": "1.0"}.get(cluster, "2.0")
    return {
        "name": cluster,
        "endpoint": "local",
        "certificate_authority": "",
        "simulator_image": f"demo/simulator:{version}",
        "leaderboard_image": f"demo/leaderboard:{version}",
        "logcopy_image": f"demo/logcopy:{version}",
        "s3_bucket": cluster,
        "dynamodb_submissions_table": cluster,
        "cloudwatch_log_group": cluster,
    }
