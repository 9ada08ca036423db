"""ArtifactBucket against moto's S3."""

from pathlib import Path
from typing import Any

import boto3
import pytest
from aws_blocks import UNREACHABLE, credentials_of

from blocks.artifact_bucket import ArtifactBucket, read_location
from evaluation.errors import InvalidCheckpoint, InvalidConfiguration, ServiceUnavailable
from evaluation.ports import ArtifactStore


@pytest.fixture
def bucket(aws: dict[str, Any]) -> ArtifactBucket:
    boto3.client("s3", **aws).create_bucket(
        Bucket="leaderboard-20", CreateBucketConfiguration={"LocationConstraint": "us-west-2"}
    )
    return ArtifactBucket(bucket="leaderboard-20", credentials=credentials_of(aws))


def test_what_is_written_is_read(bucket: ArtifactBucket, aws: dict[str, Any]) -> None:
    store: ArtifactStore = bucket
    store.write("90/merged.json", b'{"a": 1}', "application/json")
    store.write("90/merged.json", b'{"a": 2}', "application/json")
    head = boto3.client("s3", **aws).head_object(Bucket="leaderboard-20", Key="90/merged.json")
    assert store.read("90/merged.json") == b'{"a": 2}'
    assert head["ContentType"] == "application/json"
    assert store.location("90/merged.json") == "s3://leaderboard-20/90/merged.json"


def test_a_log_is_read_from_where_the_last_reading_ended(bucket: ArtifactBucket) -> None:
    store: ArtifactStore = bucket
    for key in ("7/shards/0/a.log", "7/shards/1/b.log", "70/shards/0/c.log"):
        store.write(key, b"0123456789", "text/plain")

    assert store.sizes("7/shards/") == {"7/shards/0/a.log": 10, "7/shards/1/b.log": 10}
    assert store.read_from("7/shards/0/a.log", 7) == b"789"
    assert store.read_from("7/shards/0/a.log", 10) == b""
    assert store.read_from("7/shards/0/absent.log", 3) == b""


def test_an_absent_object_is_none(bucket: ArtifactBucket) -> None:
    assert bucket.read("90/merged.json") is None


def test_a_too_large_object_is_refused_unread(bucket: ArtifactBucket, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("blocks.artifact_bucket.MAX_BYTES", 1000)
    bucket.write("90/shards/0/checkpoint.json", bytes(1000), "application/json")
    assert bucket.read("90/shards/0/checkpoint.json") == bytes(1000)

    bucket.write("90/shards/0/checkpoint.json", bytes(1001), "application/json")
    with pytest.raises(
        InvalidCheckpoint, match=r"^s3://leaderboard-20/90/shards/0/checkpoint\.json has 1001 bytes, more than 1000"
    ):
        bucket.read("90/shards/0/checkpoint.json")


def test_errors_are_translated(aws: dict[str, Any]) -> None:
    absent = ArtifactBucket(bucket="no-such-bucket", credentials=credentials_of(aws))
    for call in (lambda: absent.read("90/x"), lambda: absent.write("90/x", b"", "a/b")):
        with pytest.raises(InvalidConfiguration, match=r"s3://no-such-bucket/90/x failed: NoSuchBucket"):
            call()
    with pytest.raises(ServiceUnavailable, match="AWS does not answer"):
        ArtifactBucket(bucket="b", credentials=credentials_of(aws, endpoint_url=UNREACHABLE)).read("90/x")


def test_read_location(bucket: ArtifactBucket, aws: dict[str, Any], tmp_path: Path) -> None:
    bucket.write("routes/a.xml", b"<routes/>", "application/xml")
    (tmp_path / "b.xml").write_bytes(b"<routes></routes>")
    credentials = credentials_of(aws)
    assert read_location("s3://leaderboard-20/routes/a.xml", credentials) == b"<routes/>"
    assert read_location(str(tmp_path / "b.xml"), credentials) == b"<routes></routes>"


@pytest.mark.parametrize(
    ("location", "sentence"),
    [
        ("s3://leaderboard-20/none.xml", "There is no object s3://leaderboard-20/none.xml"),
        ("s3://leaderboard-20", "names no object"),
        ("none.xml", "The file none.xml cannot be read: No such file or directory"),
    ],
)
def test_read_location_says_what_is_missing(
    bucket: ArtifactBucket, aws: dict[str, Any], location: str, sentence: str
) -> None:
    with pytest.raises(InvalidConfiguration, match=sentence):
        read_location(location, credentials_of(aws))
