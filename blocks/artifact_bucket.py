"""The artifact store in S3: one folder per submission, laid out by evaluation.storage_keys."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

from prefect.blocks.core import Block
from prefect_aws import AwsCredentials
from pydantic import Field

from aws_api.s3 import (
    address,
    object_sizes,
    read_object,
    read_object_from,
    read_version,
    write_object,
    write_version,
)
from blocks.aws_client import aws_client
from blocks.schema_once import SchemaOnce
from evaluation.errors import InvalidCheckpoint, InvalidConfiguration

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client


MAX_BYTES = 64 * 1024 * 1024  # of anything in a submission's folder; what a shard writes has a lower limit of its own


class ArtifactBucket(SchemaOnce, Block):
    """Checkpoints, logs and results of every submission: an S3 bucket."""

    _block_type_name = "Artifact Bucket"
    _block_type_slug = "artifact-bucket"
    _description = "The S3 bucket with one folder per submission."

    bucket: str = Field(description="S3 bucket. Its own default encryption applies to what is written.")
    credentials: AwsCredentials = Field(
        description="AWS Credentials block: region, and keys where no role gives access."
    )

    def write(self, key: str, body: bytes, content_type: str) -> None:
        """Write an object, replacing an earlier one."""
        write_object(self._client(), self.bucket, key, body, content_type)

    def read(self, key: str) -> bytes | None:
        """The object's bytes, or None where there is none. Without s3:ListBucket S3 calls an absent object denied.

        Raises InvalidCheckpoint, before it reads it, for an object of more than 64 MiB.
        """
        return read_object(self._client(), self.bucket, key, partial(_check_size, self.location(key)))

    def sizes(self, prefix: str) -> dict[str, int]:
        """Key and bytes of every object whose key begins so."""
        return object_sizes(self._client(), self.bucket, prefix)

    def read_from(self, key: str, start: int) -> bytes:
        """The object's bytes from that offset on; none where there are none."""
        return read_object_from(self._client(), self.bucket, key, start)

    def read_version(self, key: str) -> tuple[bytes, str] | None:
        """The object's bytes and its version (ETag), or None where there is none."""
        return read_version(self._client(), self.bucket, key)

    def write_version(self, key: str, body: bytes, replaced: str | None) -> bool:
        """Write JSON where the version is still the `replaced` one, None for no object; False where it is another."""
        return write_version(self._client(), self.bucket, key, body, replaced)

    def location(self, key: str) -> str:
        return address(self.bucket, key)

    def _client(self) -> "S3Client":
        return _s3(self.credentials)


def read_location(location: str, credentials: AwsCredentials) -> bytes:
    """The bytes at s3://bucket/key or at a file's path; raises InvalidConfiguration where there are none."""
    if not location.startswith("s3://"):
        try:
            return Path(location).read_bytes()
        except OSError as error:
            raise InvalidConfiguration(f"The file {location} cannot be read", error.strerror or str(error)) from error
    bucket, _, key = location.removeprefix("s3://").partition("/")
    if not (bucket and key):
        raise InvalidConfiguration(f"{location!r} names no object", "it has to look like s3://bucket/key")
    body = read_object(_s3(credentials), bucket, key)  # an operator's own file, of any size
    if body is None:
        raise InvalidConfiguration(f"There is no object {location}")
    return body


def _s3(credentials: AwsCredentials) -> "S3Client":
    return cast("S3Client", aws_client(credentials, "s3"))


def _check_size(location: str, size: int) -> None:
    if size > MAX_BYTES:
        remedy = "Move the file away and resume the submission: what it held is driven or made again."
        raise InvalidCheckpoint(
            f"{location} has {size} bytes, more than {MAX_BYTES}", "none of our files is so large", remedy
        )
