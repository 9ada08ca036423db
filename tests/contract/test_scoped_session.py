"""The supervisor's credentials reach its own submission's folder, on Kubernetes and on Batch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from pytest_httpserver import HTTPServer

from evaluation.routes import RouteRun
from evaluation.shards import Budgets
from evaluation.submission.model import LeaderboardVersion
from shard_pod.scoped_session import scoped_session, session_policy
from shard_pod.settings import PairSettings

ROLE = "arn:aws-cn:iam::123456789012:role/leaderboard-20-submission-worker"


def settings(tmp_path: Path) -> PairSettings:
    return PairSettings(
        submission=90, attempt=1, shard=2, version=LeaderboardVersion.V2, expected=(RouteRun(0),),
        bucket="leaderboard-20", routes_location="s3://private/routes/leaderboard-20.xml", routes=tmp_path / "routes",
        pair_dir=tmp_path, checkpoint=tmp_path / "checkpoint.json", budgets=Budgets(), hang_seconds=1, copy_seconds=1,
        poll_seconds=1, simulator_wait_seconds=1, log_group="leaderboard-20",
    )  # fmt: skip


def asked_of_sts(tmp_path: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """The request in which the role is taken."""
    session, asked = scoped_session(settings(tmp_path), environment), {}
    session.events.register("provide-client-params.sts", lambda params, **_: asked.update(params))
    credentials = session.get_credentials()
    assert credentials
    assert credentials.get_frozen_credentials().token
    return asked


@pytest.fixture
def on_moto(aws: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setenv("AWS_ENDPOINT_URL", aws["endpoint_url"])
    monkeypatch.setenv("AWS_DEFAULT_REGION", aws["region_name"])
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_a_pod_on_kubernetes_takes_its_role_under_the_policy(tmp_path: Path, on_moto: pytest.MonkeyPatch) -> None:
    token = tmp_path / "token"
    token.write_text("a.web.token")
    environment = {"AWS_ROLE_ARN": ROLE, "AWS_WEB_IDENTITY_TOKEN_FILE": str(token)}

    asked = asked_of_sts(tmp_path, environment)

    assert (asked["RoleArn"], asked["WebIdentityToken"]) == (ROLE, "a.web.token")
    assert json.loads(asked["Policy"]) == session_policy(settings(tmp_path), "aws-cn")
    assert asked["RoleSessionName"] == "submission-90-shard-2"


def test_a_job_on_batch_takes_its_role_under_the_policy(
    tmp_path: Path, on_moto: pytest.MonkeyPatch, httpserver: HTTPServer
) -> None:
    task = {"AccessKeyId": "k", "SecretAccessKey": "s", "Token": "t", "Expiration": "2099-01-01T00:00:00Z"}
    httpserver.expect_request("/task").respond_with_json(task)
    config = tmp_path / "aws-config"
    config.write_text(f"[default]\nrole_arn = {ROLE}\nexternal_id = key\ncredential_source = EcsContainer\n")
    on_moto.setenv("AWS_CONFIG_FILE", str(config))
    on_moto.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"http://localhost:{httpserver.port}/task")

    asked = asked_of_sts(tmp_path, {})

    assert (asked["RoleArn"], asked["ExternalId"]) == (ROLE, "key")
    assert json.loads(asked["Policy"]) == session_policy(settings(tmp_path), "aws-cn")


def test_other_credentials_are_used_as_they_are(tmp_path: Path, on_moto: pytest.MonkeyPatch) -> None:
    on_moto.setenv("AWS_ACCESS_KEY_ID", "laptop")
    on_moto.setenv("AWS_SECRET_ACCESS_KEY", "secret")

    credentials = scoped_session(settings(tmp_path), {}).get_credentials()

    assert credentials
    assert credentials.access_key == "laptop"


def test_the_policy_allows_one_folder_and_fits_into_a_request(tmp_path: Path) -> None:
    policy = session_policy(settings(tmp_path))

    resources = {each["Resource"] for each in policy["Statement"] if "s3:PutObject" in each["Action"]}
    assert resources == {"arn:aws:s3:::leaderboard-20/90/*"}
    assert len(json.dumps(policy)) < 2048  # the most that STS takes
