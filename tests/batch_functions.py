"""Functions that the tests run as Batch jobs."""

import os
import time


def add(first: int, second: int = 0) -> dict[str, object]:
    print("adding", first, second, flush=True)
    return {"sum": first + second, "role": os.environ["AWS_ACCESS_KEY_ID"]}


def fails(words: str) -> None:
    raise ValueError(words)


def dies() -> None:
    os._exit(7)


def hangs() -> None:
    time.sleep(600)


def returns_a_set() -> set[int]:
    return {1}
