"""The shard's door to S3: boto3, configured by its own environment variables."""

from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from evaluation.errors import EvaluationError, InvalidConfiguration, RequestRefused, ServiceUnavailable
from evaluation.results.checkpoint_reading import check_size

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

# Botocore retries inside a call; the supervisor comes again at its next copy.
_CONFIG = Config(retries={"mode": "standard", "total_max_attempts": 4}, connect_timeout=5, read_timeout=30)
LOG_TAG = "kind=log"  # deployments/aws/storage.yaml goes by it
_MISSING = frozenset({"NoSuchKey", "404", "NotFound"})


class ShardStorage:
    """Objects of one bucket, whole. Raises ServiceUnavailable, RequestRefused or InvalidConfiguration."""

    def __init__(self, bucket: str, client: "S3Client | None" = None) -> None:
        self.bucket = bucket
        self._s3: S3Client = client or boto3.client("s3", config=_CONFIG)

    def of(self, bucket: str) -> "ShardStorage":
        """The same door to another bucket."""
        return ShardStorage(bucket, self._s3)

    def read(self, key: str) -> bytes | None:
        """The object's bytes, or None where there is none."""
        return self._read(key, lambda _: None)

    def read_shard_file(self, key: str) -> bytes | None:
        """The same of a file that a shard wrote; raises InvalidCheckpoint for one that is too large, unread."""
        return self._read(key, lambda size: check_size(size, self.address(key)))

    def _read(self, key: str, check: Callable[[int], None]) -> bytes | None:
        try:
            answer = self._s3.get_object(Bucket=self.bucket, Key=key)
            with closing(answer["Body"]) as body:
                check(answer["ContentLength"])
                return body.read()
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in _MISSING:
                return None
            raise _translated(error, self.address(key)) from error
        except (BotoCoreError, OSError) as error:
            raise _translated(error, self.address(key)) from error

    def write(self, key: str, body: bytes, content_type: str) -> None:
        self._put(key, body, ContentType=content_type)

    def write_log(self, key: str, body: bytes) -> None:
        """Write a text that the bucket may forget after a while: its lifecycle knows logs by their tag."""
        self._put(key, body, ContentType="text/plain; charset=utf-8", Tagging=LOG_TAG)

    def _put(self, key: str, body: bytes, **how: Any) -> None:
        try:
            self._s3.put_object(Bucket=self.bucket, Key=key, Body=body, **how)
        except (ClientError, BotoCoreError, OSError) as error:
            raise _translated(error, self.address(key)) from error

    def address(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"


def _translated(error: ClientError | BotoCoreError | OSError, address: str) -> EvaluationError:
    if not isinstance(error, ClientError):
        return ServiceUnavailable(f"S3 does not answer for {address}", str(error))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
    code = error.response.get("Error", {}).get("Code", "")
    if status >= 500 or status == 429 or code in ("SlowDown", "RequestTimeout", "ExpiredToken"):
        return ServiceUnavailable(f"S3 does not answer for {address}", code)
    if code == "NoSuchBucket":
        return InvalidConfiguration(
            f"There is no bucket for {address}", remedy="Create it or correct the cluster block."
        )
    return RequestRefused(f"S3 refuses {address}", code, "Check the rights of the shard's role.")
