"""A worked example: a function, and a caller who wants its results.

    python -m compute_client.example QUEUE TABLE [BUCKET]

Queue and table are those of deployments/aws/compute.yaml; docs/compute-client.md says how to start its workers.
"""

import sys
from typing import Any


def count_primes(body: dict[str, Any], message_id: str) -> dict[str, object]:
    """The function: how many primes are below `body["below"]`. It runs where the workers are."""
    below = int(body["below"])
    if below < 0:
        raise ValueError(f"below is {below}; it has to be 0 or more")
    sieve = bytearray([1]) * below
    sieve[:2] = bytes(len(sieve[:2]))
    for number in range(2, int(below**0.5) + 1):
        if sieve[number]:
            sieve[number * number :: number] = bytes(len(range(number * number, below, number)))
    return {"primes": sum(sieve), "below": below, "job": message_id}


def main(queue: str, table: str, bucket: str | None = None) -> None:
    """The caller: posts a few jobs, then waits for them one by one."""
    from compute_client import DynamoDBClient, Producer  # the function's process does without boto3

    producer = Producer(queue, DynamoDBClient(table, bucket))
    ids = {below: producer.post_non_blocking({"below": below}) for below in (10, 1_000, 1_000_000)}
    for below, job_id in ids.items():
        print(f"below {below}: {producer.wait(job_id).result}")


if __name__ == "__main__":
    main(*sys.argv[1:])
