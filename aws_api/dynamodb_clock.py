"""DynamoDB's own time, by which leases of several machines can be compared: the machines' clocks differ."""

import threading
from email.utils import parsedate_to_datetime
from time import monotonic, time
from typing import Any

from aws_api import ClientFactory
from aws_api.errors import aws_errors

FRESH_SECONDS = 60.0  # so long this machine's monotonic clock is relied on


class DynamoDBClock:
    """Seconds since 1970 at DynamoDB, to the second: by an answer's `Date`, and then by this machine's monotonic clock.

    Asks once a minute at most, and only when it is asked itself. Raises what `aws_errors` says.
    """

    def __init__(self, table: str, key: str, client: ClientFactory) -> None:
        """`key` is the name of the table's only key, a text."""
        self._table, self._key, self._client = table, key, client
        self._lock = threading.Lock()
        self._last: tuple[float, float] | None = None  # DynamoDB's time, this machine's monotonic time

    def __call__(self) -> float:
        if self._age() > FRESH_SECONDS:
            self._ask()
        with self._lock:
            if self._last is None:  # an endpoint that sends no Date
                return time()
            theirs, ours = self._last
            return theirs + monotonic() - ours

    def _age(self) -> float:
        with self._lock:
            return monotonic() - self._last[1] if self._last else float("inf")

    def _ask(self) -> None:
        with aws_errors(f"Asking DynamoDB table {self._table} for the time"):
            answer = self._client("dynamodb").get_item(TableName=self._table, Key={self._key: {"S": "time"}})
        self._observe(answer)

    def _observe(self, answer: Any) -> None:
        date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
        if date:
            with self._lock:
                self._last = parsedate_to_datetime(date).timestamp(), monotonic()
