"""The retry policy of the tasks: transient errors only, with exponential back-off and jitter."""

from typing import Any, TypedDict

from prefect import Task
from prefect.cache_policies import NO_CACHE, CachePolicy
from prefect.client.schemas.objects import State, TaskRun
from prefect.tasks import exponential_backoff

from evaluation.errors import TransientError


async def is_transient(task: Task[Any, Any], run: TaskRun, state: State[Any]) -> bool:  # noqa: ARG001 - Prefect's form
    """Whether the failed attempt may succeed if it is made again."""
    return isinstance(await state.aresult(raise_on_failure=False), TransientError)


class RetryOptions(TypedDict):
    retries: int
    retry_delay_seconds: Any
    retry_jitter_factor: float
    retry_condition_fn: Any
    cache_policy: CachePolicy


def on_transient_errors(retries: int, first_delay_seconds: float = 2) -> RetryOptions:
    """Options for `@task`: so many retries, the first after about `first_delay_seconds`, then twice as long each."""
    return RetryOptions(
        retries=retries,
        retry_delay_seconds=exponential_backoff(first_delay_seconds),
        retry_jitter_factor=0.5,
        retry_condition_fn=is_transient,
        cache_policy=NO_CACHE,  # the ledger is the truth, never Prefect's cache
    )
