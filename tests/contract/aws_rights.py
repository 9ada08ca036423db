"""Which IAM actions a piece of code uses, and whether a role's policies allow that."""

import ast
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import boto3
import pytest
from botocore.client import BaseClient

ACCOUNT, REGION = "123456789012", "us-west-2"  # moto's, and the tests'

# Where IAM's action is not named after the call.
_ACTIONS = {
    "s3:GetBucketEncryption": "s3:GetEncryptionConfiguration",
    "s3:GetPublicAccessBlock": "s3:GetBucketPublicAccessBlock",
    "s3:HeadBucket": "s3:ListBucket",
    "s3:ListObjectsV2": "s3:ListBucket",
}


@dataclass(frozen=True, order=True)
class Right:
    """What a call needs: an action on a resource."""

    action: str  # s3:GetObject
    resource: str  # its ARN


def rights_of(service: str, call: str, given: Mapping[str, Any]) -> Iterator[Right]:
    """The rights that one call of boto3 needs, by its service's prefix, its name and its parameters."""
    resource = _RESOURCES[service](given)
    yield Right(_ACTIONS.get(f"{service}:{call}", f"{service}:{call}"), resource)
    if call == "PutObject" and "Tagging" in given:
        yield Right("s3:PutObjectTagging", resource)


def _log_resource(given: Mapping[str, Any]) -> str:
    group = f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:{given.get('logGroupName') or given['logGroupNamePrefix']}"
    return f"{group}:log-stream:{given['logStreamName']}" if "logStreamName" in given else group


_RESOURCES: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "ecr": lambda given: f"arn:aws:ecr:{REGION}:{ACCOUNT}:repository/{given['repositoryName']}",
    "logs": _log_resource,
    "dynamodb": lambda given: f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{given['TableName']}",
    "s3": lambda given: "arn:aws:s3:::" + "/".join(given[key] for key in ("Bucket", "Key") if key in given),
    "secretsmanager": lambda given: f"arn:aws:secretsmanager:{REGION}:{ACCOUNT}:secret:{given['SecretId']}-A1b2C3",
    "sqs": lambda given: f"arn:aws:sqs:{REGION}:{ACCOUNT}:{given['QueueUrl'].rpartition('/')[2]}",
}


@contextmanager
def recorded(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[Right]]:
    """Every right that boto3's calls inside need; the calls are made as ever."""
    needed: set[Right] = set()
    original = BaseClient._make_api_call

    def call(client: Any, name: str, parameters: dict[str, Any]) -> Any:
        needed.update(rights_of(client.meta.service_model.service_name, name, parameters))
        return original(client, name, parameters)

    with monkeypatch.context() as patch:
        patch.setattr(BaseClient, "_make_api_call", call)
        yield needed


def role_policies(aws: Mapping[str, Any], role: str) -> list[dict[str, Any]]:
    """The role's inline policies, as CloudFormation resolved them."""
    iam = boto3.client("iam", **aws)
    names = iam.list_role_policies(RoleName=role)["PolicyNames"]
    documents = [iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"] for name in names]
    return [_written_out(document) for document in documents]


def managed_policy(aws: Mapping[str, Any], arn: str) -> list[dict[str, Any]]:
    version = boto3.client("iam", **aws).get_policy_version(PolicyArn=arn, VersionId="v1")["PolicyVersion"]
    return [_written_out(version["Document"])]


def _written_out(document: Any) -> dict[str, Any]:
    # moto hands out a policy that CloudFormation made as Python writes a dict.
    return dict(ast.literal_eval(document) if isinstance(document, str) else document)


def allowed(policies: list[dict[str, Any]], right: Right) -> bool:
    """IAM's own rule, for policies that only allow: one statement names both action and resource."""
    return any(
        right.action in _listed(statement["Action"])
        and any(fnmatchcase(right.resource, pattern) for pattern in _listed(statement["Resource"]))
        for policy in policies
        for statement in policy["Statement"]
    )


def granted(policies: list[dict[str, Any]]) -> set[str]:
    """The actions that the policies allow on anything at all."""
    return {action for policy in policies for each in policy["Statement"] for action in _listed(each["Action"])}


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
