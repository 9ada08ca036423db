"""AWS: the secrets, and each leaderboard's table, bucket, log group and images."""

import re
from collections.abc import Iterator
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from aws_api.errors import aws_errors, error_code
from blocks.aws_client import aws_client
from doctor.context import DoctorContext
from doctor.findings import Check, NotChecked
from evaluation.errors import InvalidConfiguration
from evaluation.lifecycle.ledger_entry import SUBMISSION, TEAM

STORAGE = "Create or update the stack of deployments/aws/storage.yaml."
# docs/aws.md, "Names"
TABLE_KEYS = {TEAM: ("HASH", "S"), SUBMISSION: ("RANGE", "S")}
_ECR = re.compile(
    r"(?P<account>[0-9]{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.amazonaws\.com(\.cn)?/(?P<repository>[^:@]+)"
    r"(:(?P<tag>[^@]+))?(@(?P<digest>sha256:[0-9a-f]{64}))?"
)


def aws_checks(context: DoctorContext) -> Iterator[Check]:
    yield Check("AWS: secrets", partial(_secrets, context))
    for cluster in context.clusters:
        yield Check(f"AWS: table of {cluster}", partial(_table, context, cluster))
        yield Check(f"AWS: bucket of {cluster}", partial(_bucket, context, cluster))
        yield Check(f"AWS: log group of {cluster}", partial(_log_group, context, cluster))
        for part in ("simulator_image", "leaderboard_image", "logcopy_image"):
            yield Check(f"AWS: {part.replace('_', ' ')} of {cluster}", partial(_image, context, cluster, part))


def _secrets(context: DoctorContext) -> str:
    secrets = context.secrets()
    return f"readable, {len(secrets.evalai.phases)} phases of {', '.join(secrets.clusters)}"


def _table(context: DoctorContext, cluster: str) -> str:
    name = context.table(cluster)
    with aws_errors(f"Looking at the DynamoDB table {name}"):
        try:
            table = aws_client(context.credentials, "dynamodb").describe_table(TableName=name)["Table"]
        except ClientError as error:
            if error_code(error) != "ResourceNotFoundException":
                raise
            raise InvalidConfiguration(f"There is no DynamoDB table {name}", "", STORAGE) from error
    types = {each["AttributeName"]: each["AttributeType"] for each in table["AttributeDefinitions"]}
    keys = {key["AttributeName"]: (key["KeyType"], types[key["AttributeName"]]) for key in table["KeySchema"]}
    if keys != TABLE_KEYS:
        wanted = f"they must be {TEAM} (HASH) and {SUBMISSION} (RANGE), both strings"
        found = ", ".join(f"{name} ({kind}, {of})" for name, (kind, of) in keys.items())
        remedy = "Keys cannot be changed: name another table in the cluster's secret, then run `leaderboard setup`."
        raise InvalidConfiguration(f"The table {name} has the keys {found}", wanted, remedy)
    if table["TableStatus"] not in ("ACTIVE", "UPDATING"):
        raise InvalidConfiguration(f"The table {name} is {table['TableStatus']}", "", STORAGE)
    return f"{name}, about {table.get('ItemCount', 0)} rows"


def _bucket(context: DoctorContext, cluster: str) -> str:
    name, s3 = context.bucket(cluster), aws_client(context.credentials, "s3")
    with aws_errors(f"Looking at the bucket {name}"):
        try:
            s3.list_objects_v2(Bucket=name, MaxKeys=1)
        except ClientError as error:
            if error_code(error) != "NoSuchBucket":
                raise
            raise InvalidConfiguration(f"There is no bucket {name}", "", STORAGE) from error
    if not _answer(s3.get_bucket_encryption, name, "ServerSideEncryptionConfigurationNotFoundError"):
        raise InvalidConfiguration(f"The bucket {name} is not encrypted", "", STORAGE)
    access = _answer(s3.get_public_access_block, name, "NoSuchPublicAccessBlockConfiguration")
    blocked = access.get("PublicAccessBlockConfiguration", {})
    if not (blocked and all(blocked.values())):
        open_to = "its public access is not blocked"
        remedy = "Block all four kinds of public access: as deployments/aws/storage.yaml does."
        raise InvalidConfiguration(f"The bucket {name} may be made public", open_to, remedy)
    return f"{name}, encrypted, not public"


def _answer(ask: Any, bucket: str, nothing: str) -> dict[str, Any]:
    """What S3 says of the bucket; empty for the error code that means that nothing is set."""
    with aws_errors(f"Looking at the bucket {bucket}"):
        try:
            return dict(ask(Bucket=bucket))
        except ClientError as error:
            if error_code(error) != nothing:
                raise
            return {}


def _log_group(context: DoctorContext, cluster: str) -> str:
    name = context.log_group(cluster)
    with aws_errors(f"Looking for the log group {name}"):
        answer = aws_client(context.credentials, "logs").describe_log_groups(logGroupNamePrefix=name)
    found = [group for group in answer["logGroups"] if group["logGroupName"] == name]
    if not found:
        raise InvalidConfiguration(f"There is no log group {name}", "the shards' output is not kept", STORAGE)
    days = found[0].get("retentionInDays")
    return f"{name}, kept {f'{days} days' if days else 'for ever'}"


def _image(context: DoctorContext, cluster: str, part: str) -> str:
    image = str(getattr(context.secret_of(cluster), part))
    reference = _ECR.fullmatch(image)
    if reference is None:
        raise NotChecked(f"{image} is not in ECR")
    wanted = {"imageDigest": reference["digest"]} if reference["digest"] else {"imageTag": reference["tag"] or "latest"}
    credentials = context.credentials.model_copy(update={"region_name": reference["region"]})
    remedy = f"Push it, or correct {part} in the secret of {cluster} and run `leaderboard setup`."
    with aws_errors(f"Looking for {image}"):
        try:
            found = aws_client(credentials, "ecr").describe_images(
                registryId=reference["account"], repositoryName=reference["repository"], imageIds=[wanted]
            )["imageDetails"]
        except ClientError as error:
            if error_code(error) not in ("RepositoryNotFoundException", "ImageNotFoundException"):
                raise
            raise InvalidConfiguration(f"There is no image {image}", error_code(error), remedy) from error
    return f"{image}, pushed {found[0]['imagePushedAt']:%d %b %Y}"
