"""EvalAI's request budget for all processes of an installation: a global concurrency limit of Prefect's server.

Its slots decay, so it is the bucket of `evalai_api.budget`, by the one clock of Prefect's server. Prefect's own
`rate_limit` is not used: it serves the callers of a process one after the other, so that a report would wait behind
looks; and each refusal starts the decay anew, which lost a third of the budget. Here the limit is read first, which
changes nothing, and slots are asked for only where they should be free.
"""

import random
import time
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any

import httpx
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL

from evalai_api.budget import Bucket, Urgency
from evaluation.errors import InvalidConfiguration, ServiceUnavailable
from prefect_api.client import prefect_client
from prefect_api.errors import prefect_answer

# Prefect counts whole slots that have decayed and drops the rest, so the limit counts hundredths of a request.
UNITS = 100
FEWEST = UNITS * (1 + max(Urgency))  # slots without which the least urgent would never get theirs
WAIT_SECONDS = 600.0  # a caller waits its turn at most this long
SHORTEST, LONGEST = 0.2, 5.0  # seconds between two questions of one caller
SET_UP = "Run `leaderboard setup`."


class PrefectBudget:
    """Implements evalai_api.budget.Budget. Every method blocks: call it in a thread."""

    def __init__(self, limit: str, wait_seconds: float = WAIT_SECONDS) -> None:
        """`limit` is the limit's name."""
        self._limit = limit
        self._wait_seconds = wait_seconds

    def take(self, requests: int, urgency: Urgency) -> None:
        """Raises InvalidConfiguration where the limit is missing or no rate limit.

        ServiceUnavailable where Prefect's server does not answer, or no slot came free in time.
        """
        deadline = time.monotonic() + self._wait_seconds
        while (wait := self._try(requests, urgency)) > 0:
            if time.monotonic() + wait > deadline:
                raise ServiceUnavailable(
                    "EvalAI's request budget is used up",
                    f"no slot of the limit {self._limit!r} came free in {self._wait_seconds:g} s",
                )
            time.sleep(wait * random.uniform(1, 1.5))  # noqa: S311 - so that those who wait do not all ask at once

    def pause(self, seconds: float) -> None:
        """Give out no slot for so long; does nothing where Prefect's server does not answer."""
        try:
            taken = self._read().taken_for(seconds)
            with prefect_answer("Pausing EvalAI's request budget"):
                _client().update_global_concurrency_limit(
                    self._limit, GlobalConcurrencyLimitUpdate(active_slots=round(taken * UNITS))
                )
        except (ServiceUnavailable, InvalidConfiguration, ObjectNotFound):
            return  # EvalAI itself refuses the next request

    def used(self) -> float:
        """Which part is taken now, 0 to 1; raises InvalidConfiguration and ServiceUnavailable, as `take`."""
        return self._read().used

    def _try(self, requests: int, urgency: Urgency) -> float:
        """0 where the slots are taken now, else the seconds until the next try."""
        wait = self._read().wait(requests, urgency)
        if wait > 0:
            return min(max(wait, SHORTEST), LONGEST)
        return 0.0 if self._taken(requests) else SHORTEST

    def _taken(self, requests: int) -> bool:
        with prefect_answer("Asking for EvalAI's request budget"):
            try:
                _client().increment_concurrency_slots([self._limit], requests * UNITS, "rate_limit")
            except httpx.HTTPStatusError as error:
                if error.response.status_code == 423:  # others were quicker
                    return False
                raise
        return True

    def _read(self) -> Bucket:
        with prefect_answer("Asking for EvalAI's request budget"):
            try:
                answer = _client().request(
                    "GET", "/v2/concurrency_limits/{id_or_name}", path_params={"id_or_name": self._limit}
                )
            except httpx.HTTPStatusError as error:
                if error.response.status_code == 404:
                    raise self._unusable("there is none of that name") from error
                raise
            return self._bucket(answer.json(), answer.headers.get("Date"))

    def _bucket(self, limit: Any, date: str | None) -> Bucket:
        slots, taken, decay = (limit[key] for key in ("limit", "active_slots", "slot_decay_per_second"))
        if not limit["active"] or not decay > 0:
            raise self._unusable("it is not active" if not limit["active"] else "it has no slot decay")
        if slots < FEWEST:
            raise self._unusable(f"it has {slots} slots: those of an earlier version")
        updated = datetime.fromisoformat(limit["updated"])
        age = (parsedate_to_datetime(date) - updated).total_seconds() if date else 0.0
        return Bucket(slots / UNITS, taken / UNITS, decay / UNITS).after(age)

    def _unusable(self, why: str) -> InvalidConfiguration:
        return InvalidConfiguration(f"Prefect has no usable rate limit {self._limit!r} for EvalAI", why, SET_UP)


def _client() -> SyncPrefectClient:
    return _shared_client(PREFECT_API_URL.value())


@lru_cache(maxsize=2)
def _shared_client(url: str | None) -> SyncPrefectClient:  # noqa: ARG001 - the cache goes by it
    """One for all threads of the process."""
    return prefect_client()
