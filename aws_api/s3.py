"""Objects of S3."""

from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING

from botocore.exceptions import ClientError

from aws_api.errors import aws_errors, error_code

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

_ABSENT = frozenset({"NoSuchKey", "404", "NotFound"})
_NOTHING_THERE = _ABSENT | {"InvalidRange", "416"}  # the offset is the object's end
_OTHERS_CAME_FIRST = frozenset({"PreconditionFailed", "ConditionalRequestConflict", "412"})


def address(bucket: str, key: str) -> str:
    return f"s3://{bucket}/{key}"


def read_object(
    client: "S3Client", bucket: str, key: str, check_size: Callable[[int], None] = lambda _: None
) -> bytes | None:
    """The object's bytes, or None where there is none; S3 calls an absent object denied without s3:ListBucket.

    `check_size` is given the number of bytes before any is read, and may raise. Raises what `aws_errors` says.
    """
    found = _found(client, bucket, key, _ABSENT, check_size)
    return found[0] if found else None


def read_object_from(client: "S3Client", bucket: str, key: str, start: int) -> bytes:
    """The object's bytes from that offset on; none where there are none. Raises what `aws_errors` says."""
    found = _found(client, bucket, key, _NOTHING_THERE, Range=f"bytes={start}-")
    return found[0] if found else b""


def object_sizes(client: "S3Client", bucket: str, prefix: str) -> dict[str, int]:
    """Key and bytes of every object whose key begins so. Raises what `aws_errors` says."""
    with aws_errors(f"Listing {address(bucket, prefix)}"):
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return {each["Key"]: each["Size"] for page in pages for each in page.get("Contents", ())}


def write_object(client: "S3Client", bucket: str, key: str, body: bytes, content_type: str, tagging: str = "") -> None:
    """Write an object, replacing an earlier one; `tagging` looks like `kind=log`. Raises what `aws_errors` says."""
    tags = {"Tagging": tagging} if tagging else {}
    with aws_errors(f"Writing {address(bucket, key)}"):
        client.put_object(Bucket=bucket, Key=key, Body=body, ContentType=content_type, **tags)  # type: ignore[arg-type]


def read_version(client: "S3Client", bucket: str, key: str) -> tuple[bytes, str] | None:
    """The object's bytes and its ETag, or None where there is none. Raises as `read_object`."""
    return _found(client, bucket, key, _ABSENT)


def _found(
    client: "S3Client",
    bucket: str,
    key: str,
    absent: frozenset[str],
    check_size: Callable[[int], None] = lambda _: None,
    **options: str,
) -> tuple[bytes, str] | None:
    """Bytes and ETag; None where the error's code is one of `absent`."""
    with aws_errors(f"Reading {address(bucket, key)}"):
        try:
            answer = client.get_object(Bucket=bucket, Key=key, **options)  # type: ignore[arg-type]
        except ClientError as error:
            if error_code(error) in absent:
                return None
            raise
        with closing(answer["Body"]) as body:
            check_size(answer["ContentLength"])
            return body.read(), answer["ETag"]


def write_version(client: "S3Client", bucket: str, key: str, body: bytes, replaced: str | None) -> bool:
    """Write JSON where the object's ETag is still `replaced`, or where there is no object (None).

    False where another write came first. That write may be this one, if its answer was lost: botocore repeats a request
    whose answer does not come, so the caller has to read again. Raises what `aws_errors` says.
    """
    condition = {"IfNoneMatch": "*"} if replaced is None else {"IfMatch": replaced}
    with aws_errors(f"Writing {address(bucket, key)}"):
        try:
            client.put_object(Bucket=bucket, Key=key, Body=body, ContentType="application/json", **condition)  # type: ignore[arg-type]
        except ClientError as error:
            if error_code(error) in _OTHERS_CAME_FIRST | _ABSENT:
                return False
            raise
    return True
