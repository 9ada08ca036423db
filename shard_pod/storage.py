"""The shard's access to S3: boto3, configured by its own environment variables."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config

from aws_api.s3 import address, read_object, read_version, write_object, write_version
from evaluation.results.checkpoint_json import check_size
from shard_pod.scoped_session import scoped_session
from shard_pod.settings import PairSettings

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

# Botocore retries inside a call; the supervisor comes again at its next copy.
_CONFIG = Config(retries={"mode": "standard", "total_max_attempts": 4}, connect_timeout=5, read_timeout=30)
LOG_TAG = "kind=log"  # deployments/aws/storage.yaml goes by it


class ShardStorage:
    """Objects of one bucket, whole. Every method raises what aws_api.errors says."""

    def __init__(self, bucket: str, client: "S3Client | None" = None) -> None:
        self.bucket = bucket
        self._s3: S3Client = client or boto3.client("s3", config=_CONFIG)

    @classmethod
    def of_shard(cls, settings: PairSettings, environment: Mapping[str, str]) -> "ShardStorage":
        """The shard's bucket, with credentials that reach the submission's folder only."""
        return cls(settings.bucket, scoped_session(settings, environment).client("s3", config=_CONFIG))

    def of(self, bucket: str) -> "ShardStorage":
        """The same access to another bucket."""
        return ShardStorage(bucket, self._s3)

    def read(self, key: str) -> bytes | None:
        """The object's bytes, or None where there is none."""
        return read_object(self._s3, self.bucket, key)

    def read_shard_file(self, key: str) -> bytes | None:
        """The same of a file that a shard wrote; raises InvalidCheckpoint for one that is too large, unread."""
        return read_object(self._s3, self.bucket, key, lambda size: check_size(size, self.address(key)))

    def write(self, key: str, body: bytes, content_type: str) -> None:
        write_object(self._s3, self.bucket, key, body, content_type)

    def read_version(self, key: str) -> tuple[bytes, str] | None:
        """The object's bytes and its ETag, or None where there is none."""
        return read_version(self._s3, self.bucket, key)

    def write_version(self, key: str, body: bytes, replaced: str) -> bool:
        """Write JSON where the object's ETag is still `replaced`; False where another write came first."""
        return write_version(self._s3, self.bucket, key, body, replaced)

    def write_log(self, key: str, body: bytes) -> None:
        """Write a text that the bucket may forget after a while: its lifecycle knows logs by their tag."""
        write_object(self._s3, self.bucket, key, body, "text/plain; charset=utf-8", LOG_TAG)

    def address(self, key: str) -> str:
        return address(self.bucket, key)
