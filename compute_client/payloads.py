"""Bodies and results as JSON text: in the job's row where they fit, else in S3."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aws_api import ClientFactory
from aws_api.s3 import address, read_object, write_object
from evaluation.errors import RequestRefused

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

# Bytes of UTF-8. DynamoDB takes 400 KiB a row, names included: both together leave 50 KiB for everything else.
INLINE_BODY = 100 * 1024
INLINE_RESULT = 250 * 1024


class Contents:
    """One job table's bucket; None where there is none, and then what does not fit is refused."""

    def __init__(self, bucket: str | None, client: ClientFactory) -> None:
        self._bucket = bucket
        self._client = client

    def put(self, kind: str, text: str, inline: int, key: str) -> dict[str, str]:
        """The attributes that hold the text: `<kind>_json`, or `<kind>_key` once it is in S3 under that key.

        Raises RequestRefused where it fits nowhere.
        """
        body = text.encode()
        if len(body) <= inline:
            return {f"{kind}_json": text}
        if self._bucket is None:
            raise RequestRefused(
                f"The {kind} is too large",
                f"{len(body)} bytes; without a bucket {inline} are allowed",
                "Name a bucket.",
            )
        write_object(self._s3(), self._bucket, key, body, "application/json")
        return {f"{kind}_key": key}

    def get(self, kind: str, attributes: Mapping[str, Any]) -> str:
        """The text that `put` wrote; raises RequestRefused where the bucket no longer has it, or none is named."""
        if f"{kind}_json" in attributes:
            return str(attributes[f"{kind}_json"])
        key = attributes.get(f"{kind}_key")
        if key is None or self._bucket is None:
            raise RequestRefused(f"The {kind} cannot be read", f"the row says {key!r}, the bucket is {self._bucket!r}")
        body = read_object(self._s3(), self._bucket, key)
        if body is None:
            raise RequestRefused(f"The {kind} cannot be read", f"there is no object {address(self._bucket, key)}")
        return body.decode(errors="replace")

    def _s3(self) -> "S3Client":
        client: S3Client = self._client("s3")
        return client
