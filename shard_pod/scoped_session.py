"""Credentials of the supervisor that reach its own submission's folder only: the role's, under a session policy.

A session policy is given when the role is taken and can only take rights away. On Kubernetes the role is taken by web
identity, on Batch by the profile that names the role and its external id (deployments/aws/batch-shards.yaml); with any
other credentials (a laptop's) there is no role to take, and nothing is narrowed.
"""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import boto3.session
import botocore.session
from botocore.credentials import (
    AssumeRoleCredentialFetcher,
    AssumeRoleWithWebIdentityCredentialFetcher,
    ContainerProvider,
    DeferredRefreshableCredentials,
)
from botocore.utils import FileWebIdentityTokenLoader

if TYPE_CHECKING:
    from shard_pod.settings import PairSettings

ROLE, TOKEN_FILE = "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE"


def session_policy(settings: "PairSettings", partition: str = "aws") -> dict[str, Any]:
    """What a supervisor does: its folder, its routes, its streams. Source: deployments/aws/pods.yaml."""
    folder = f"{settings.submission}/"
    bucket = f"arn:{partition}:s3:::{settings.bucket}"
    statements: list[dict[str, Any]] = [
        _allow(["s3:GetObject", "s3:PutObject", "s3:PutObjectTagging"], f"{bucket}/{folder}*"),
        _allow(["s3:ListBucket"], bucket),
    ]
    if settings.routes_location.startswith("s3://"):
        place = settings.routes_location.removeprefix("s3://")
        statements += [
            _allow(["s3:GetObject"], f"arn:{partition}:s3:::{place}"),
            _allow(["s3:ListBucket"], f"arn:{partition}:s3:::{place.partition('/')[0]}"),
        ]
    if settings.log_group:
        streams = (
            f"arn:{partition}:logs:*:*:log-group:{settings.log_group}:log-stream:submission-{settings.submission}/*"
        )
        statements.append(_allow(["logs:CreateLogStream", "logs:PutLogEvents"], streams))
    return {"Version": "2012-10-17", "Statement": statements}


def _allow(actions: list[str], resource: str) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": actions, "Resource": resource}


def scoped_session(settings: "PairSettings", environment: Mapping[str, str]) -> boto3.session.Session:
    """A session with the role's credentials under the policy, renewed in time; else with the environment's own."""
    session = botocore.session.get_session()
    fetcher = _web_identity(session, settings, environment) or _profile(session, settings)
    if fetcher is not None:
        refresh = fetcher.fetch_credentials
        # botocore has no setting for a session policy; its documented components are put together here.
        session._credentials = DeferredRefreshableCredentials(refresh, "assume-role")  # type: ignore[attr-defined]
    return boto3.session.Session(botocore_session=session)


def _arguments(settings: "PairSettings", role: str) -> dict[str, Any]:
    name = f"submission-{settings.submission}-shard-{settings.shard}"
    return {"Policy": json.dumps(session_policy(settings, role.split(":")[1])), "RoleSessionName": name}


def _web_identity(
    session: botocore.session.Session, settings: "PairSettings", environment: Mapping[str, str]
) -> AssumeRoleWithWebIdentityCredentialFetcher | None:
    role, token = environment.get(ROLE), environment.get(TOKEN_FILE)
    if not (role and token):
        return None
    return AssumeRoleWithWebIdentityCredentialFetcher(
        session.create_client, FileWebIdentityTokenLoader(token), role, extra_args=_arguments(settings, role)
    )


def _profile(session: botocore.session.Session, settings: "PairSettings") -> AssumeRoleCredentialFetcher | None:
    profile = session.get_scoped_config()
    if not (profile.get("role_arn") and profile.get("credential_source") == "EcsContainer"):
        return None
    source = ContainerProvider().load()
    if source is None:
        return None
    arguments = _arguments(settings, profile["role_arn"]) | {"ExternalId": profile.get("external_id", "")}
    return AssumeRoleCredentialFetcher(session.create_client, source, profile["role_arn"], extra_args=arguments)
