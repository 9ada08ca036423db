"""An installation's secrets, read from moto's Secrets Manager."""

import base64
import json
import logging
from typing import Any

import boto3
import pytest
from aws_blocks import UNREACHABLE, credentials_of

from blocks.secrets import ClusterSecret, SecretNames, read_installation_secrets
from evaluation.errors import InvalidConfiguration, ServiceUnavailable

TOKEN = "token-that-nobody-may-see"
CERTIFICATE = base64.b64encode(b"-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----\n").decode()
Secrets = dict[str, Any]


def cluster_secret(name: str) -> dict[str, str]:
    return {
        "name": f"{name}-eks",
        "endpoint": "https://ABC.gr7.us-west-2.eks.amazonaws.com",
        "certificate_authority": CERTIFICATE,
        "simulator_image": "1.dkr.ecr.us-west-2.amazonaws.com/simulator:2.1",
        "leaderboard_image": "1.dkr.ecr.us-west-2.amazonaws.com/leaderboard:2.1",
        "logcopy_image": "1.dkr.ecr.us-west-2.amazonaws.com/logcopy:2.1",
        "s3_bucket": name,
        "dynamodb_submissinons_table": name,
        "cloudwatch_log_group": f"/eks/{name}",
    }


def good_secrets() -> Secrets:
    return {
        "evalai": {"auth_token": TOKEN, "api_server": "https://eval.ai"},
        "evalai-tracks": {
            "2201": "leaderboard-10-SENSORS",
            "2203": "leaderboard-20-SENSORS",
            "2204": "leaderboard-20-MAP",
        },
        "leaderboard-10": cluster_secret("leaderboard-10"),
        "leaderboard-20": cluster_secret("leaderboard-20"),
    }


def stored(aws: dict[str, Any], secrets: Secrets) -> Any:
    client = boto3.client("secretsmanager", **aws)
    for name, content in secrets.items():
        if isinstance(content, bytes):
            client.create_secret(Name=name, SecretBinary=content)
        else:
            client.create_secret(Name=name, SecretString=content if isinstance(content, str) else json.dumps(content))
    return client


def test_good_secrets_are_read(aws: dict[str, Any]) -> None:
    harness = read_installation_secrets(stored(aws, good_secrets()))
    assert harness.evalai.token.get_secret_value() == TOKEN
    assert harness.evalai.api_server == "https://eval.ai"
    assert dict(harness.evalai.phases) == good_secrets()["evalai-tracks"]
    assert harness.clusters["leaderboard-20"] == ClusterSecret(
        cluster="leaderboard-20",
        name="leaderboard-20-eks",
        endpoint="https://ABC.gr7.us-west-2.eks.amazonaws.com",
        certificate_authority=CERTIFICATE,
        simulator_image="1.dkr.ecr.us-west-2.amazonaws.com/simulator:2.1",
        leaderboard_image="1.dkr.ecr.us-west-2.amazonaws.com/leaderboard:2.1",
        logcopy_image="1.dkr.ecr.us-west-2.amazonaws.com/logcopy:2.1",
        s3_bucket="leaderboard-20",
        table="leaderboard-20",
        log_group="/eks/leaderboard-20",
    )
    assert TOKEN not in repr(harness)


def test_the_intended_spelling_of_the_table_wins(aws: dict[str, Any]) -> None:
    secrets = good_secrets()
    secrets["leaderboard-20"]["dynamodb_submissions_table"] = "submissions"
    assert read_installation_secrets(stored(aws, secrets)).clusters["leaderboard-20"].table == "submissions"


def test_only_clusters_of_phases_are_read_and_names_can_differ(aws: dict[str, Any]) -> None:
    good = good_secrets()
    secrets = {
        "prod/evalai": good["evalai"],
        "prod/tracks": {"2204": "leaderboard-20-MAP"},
        "prod/leaderboard-20": good["leaderboard-20"],
    }
    names = SecretNames(evalai="prod/evalai", tracks="prod/tracks", cluster_prefix="prod/")
    assert set(read_installation_secrets(stored(aws, secrets), names).clusters) == {"leaderboard-20"}


def test_a_local_cluster_needs_no_certificate(aws: dict[str, Any]) -> None:
    secrets = good_secrets()
    secrets["leaderboard-20"] |= {"endpoint": "local", "certificate_authority": ""}
    assert read_installation_secrets(stored(aws, secrets)).clusters["leaderboard-20"].endpoint == "local"


@pytest.mark.parametrize(
    ("secret", "change", "sentence"),
    [
        ("evalai", None, "secret evalai: does not exist in this account and region"),
        ("evalai", b"\x00\x01", "secret evalai: holds no text"),
        ("evalai", f"auth_token={TOKEN}", "secret evalai: is not a JSON object without repeated keys"),
        ("evalai", json.dumps([TOKEN]), "secret evalai: is not a JSON object without repeated keys"),
        ("evalai", {"auth_token": ""}, "secret evalai: auth_token must be one word"),
        ("evalai", {"auth_token": TOKEN + "\n"}, "secret evalai: auth_token must be one word"),
        ("evalai", {"auth_token": 5}, "secret evalai: auth_token must be one word"),
        ("evalai", {"api_server": "eval.ai"}, "secret evalai: api_server must be an http(s) address"),
        ("evalai", {"api_server": "http://[::1"}, "secret evalai: api_server must be an http(s) address"),
        ("evalai-tracks", "{}", "secret evalai-tracks: names no phase"),
        ("evalai-tracks", '{"1": "a-B", "1": "c-D"}', "secret evalai-tracks: is not a JSON object without repeated"),
        ("evalai-tracks", {"-1": "leaderboard-20-MAP"}, "secret evalai-tracks: a key must be a phase's id"),
        ("evalai-tracks", {"0": "leaderboard-20-MAP"}, "secret evalai-tracks: 0 must be a phase's id"),
        ("evalai-tracks", {"2201": "MAP"}, "secret evalai-tracks: 2201 must be a codename like"),
        ("evalai-tracks", {"2201": "Board_20-MAP"}, "secret evalai-tracks: 2201 must be a codename like"),
        ("leaderboard-10", None, "secret leaderboard-10: does not exist"),
        ("leaderboard-20", {"s3_bucket": None}, "secret leaderboard-20: s3_bucket is missing"),
        ("leaderboard-20", {"s3_bucket": "My Bucket"}, "secret leaderboard-20: s3_bucket must be an S3 bucket's name"),
        ("leaderboard-20", {"dynamodb_submissinons_table": None}, "20: dynamodb_submissions_table is missing"),
        ("leaderboard-20", {"endpoint": "http://x.example"}, "20: endpoint must be an https address or 'local'"),
        ("leaderboard-20", {"certificate_authority": "abc"}, "20: certificate_authority must be a PEM"),
        ("leaderboard-20", {"certificate_authority": None}, "20: certificate_authority is missing"),
        ("leaderboard-20", {"logcopy_image": "a b"}, "20: logcopy_image must be an image reference"),
        ("leaderboard-20", {"cloudwatch_log_group": "a b"}, "20: cloudwatch_log_group must be a CloudWatch"),
    ],
)
def test_a_broken_secret_is_one_sentence(aws: dict[str, Any], secret: str, change: Any, sentence: str) -> None:
    secrets = good_secrets()
    if isinstance(change, dict):
        secrets[secret] |= change
    else:
        secrets[secret] = change
    client = stored(aws, {name: content for name, content in secrets.items() if content is not None})
    with pytest.raises(InvalidConfiguration) as caught:
        read_installation_secrets(client)
    assert sentence in str(caught.value)
    assert str(caught.value).count("secret ") == 1
    assert TOKEN not in str(caught.value)


def test_all_problems_are_told_at_once(aws: dict[str, Any]) -> None:
    secrets = good_secrets()
    del secrets["evalai"]["auth_token"]
    secrets["leaderboard-10"]["s3_bucket"] = "X"
    with pytest.raises(InvalidConfiguration, match=r"evalai: auth_token is missing; secret leaderboard-10: s3_bucket"):
        read_installation_secrets(stored(aws, secrets))


def test_an_outage_is_no_wrong_secret(aws: dict[str, Any]) -> None:
    client = credentials_of(aws, endpoint_url=UNREACHABLE).get_client("secretsmanager")
    with pytest.raises(ServiceUnavailable, match="Reading the secret evalai failed"):
        read_installation_secrets(client)


def test_debug_logs_hold_no_secret_unless_botocore_s_own_are_asked_for(
    aws: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    client = stored(aws, good_secrets())
    with caplog.at_level(logging.DEBUG):
        read_installation_secrets(client)
    assert TOKEN not in caplog.text

    with caplog.at_level(logging.DEBUG, "botocore"):
        read_installation_secrets(client)
    assert TOKEN in caplog.text
