"""What runs in the container of a function's Batch job: reads the call from S3, calls, writes what came of it there.

    python -m batch_jobs.function_main

FUNCTION_FOLDER names the call's folder; AWS_BATCH_JOB_ID, which Batch sets, the outcome in it. The role is the task's.
Exit code 0 with a result, 1 where the function failed or cannot be called.
"""

import json
import os
import sys
from typing import TYPE_CHECKING, Any

import boto3

from aws_api.s3 import read_object, write_object
from batch_jobs.function_job import FOLDER, read_call
from compute_client.function_main import call, load

if TYPE_CHECKING:
    from types_boto3_s3 import S3Client

CALL = "call.json"


def outcome_key(folder: str, job_id: str) -> str:
    """By the job's id: an outcome is never taken for that of another job of the same name."""
    return f"{folder}/outcome-{job_id}.json"


def split(address: str) -> tuple[str, str]:
    """Bucket and folder of s3://bucket/folder."""
    bucket, _, folder = address.removeprefix("s3://").partition("/")
    return bucket, folder


def main() -> int:
    bucket, folder = split(os.environ[FOLDER])
    s3: S3Client = boto3.client("s3")
    body = read_object(s3, bucket, f"{folder}/{CALL}")
    if body is None:
        print(f"There is no call in s3://{bucket}/{folder}/{CALL}", file=sys.stderr)
        return 1
    job_id = os.environ["AWS_BATCH_JOB_ID"]
    content = outcome(*read_call(body.decode()), job_id)
    write_object(s3, bucket, outcome_key(folder, job_id), json.dumps(content).encode("ascii"), "application/json")
    if "result" in content:
        return 0
    error = content.get("error", {})
    words = content.get("misnamed") or error["trace"] or f"{error['type']}: {error['message']}"
    print(words.rstrip(), file=sys.stderr)
    return 1


def outcome(name: str, arguments: str, job_id: str) -> dict[str, Any]:
    """`{"result": JSON text}`, `{"error": ...}` as compute_client's, or `{"misnamed": why}`."""
    try:
        function = load(name)
    except ValueError as error:
        return {"misnamed": str(error)}
    return call(lambda given, _: function(**given), arguments, job_id)  # type: ignore[call-arg]


if __name__ == "__main__":
    sys.exit(main())
