"""A ledger on moto's DynamoDB with a clock that the test moves and a network that can lose answers."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from aws_blocks import create_table, credentials_of
from botocore.exceptions import ReadTimeoutError

from blocks.ledger_table import LedgerTable
from evaluation.errors import ServiceUnavailable
from evaluation.lifecycle.ledger_entry import LedgerEntry, read_entry

FIRST = datetime(2026, 11, 21, tzinfo=UTC)
LEASE = timedelta(seconds=180)
ENDED = {"end-time": "2026-11-21T10:00:00Z"}


@dataclass
class Harness:
    """A ledger with a clock that the test moves, and a network that can lose the answer to a write."""

    ledger: LedgerTable
    now: datetime = FIRST
    losing: bool = False

    def lose(self, http_response: Any, **_: Any) -> None:
        """botocore's event after a call: what DynamoDB did, is done."""
        if self.losing and http_response.status_code == 200:
            self.losing = False
            raise ReadTimeoutError(endpoint_url="https://dynamodb.example")

    @contextmanager
    def lost_answer(self) -> Iterator[None]:
        self.losing = True
        with pytest.raises(ServiceUnavailable):
            yield
        self.losing = False

    def row(self, pk: int = 90) -> dict[str, object]:
        return dict(self.ledger.row(7, pk) or {})

    def entry(self, pk: int = 90) -> LedgerEntry:
        entry = read_entry(self.ledger.row(7, pk))
        assert entry
        return entry


@contextmanager
def ledger_harness(aws: dict[str, Any]) -> Iterator[Harness]:
    create_table(aws, "leaderboard-20")
    credentials = credentials_of(aws)
    harness = Harness(LedgerTable(table="leaderboard-20", credentials=credentials))
    harness.ledger = harness.ledger.with_clock(lambda: harness.now)
    events = credentials.get_client("dynamodb").meta.events
    events.register("after-call.dynamodb.UpdateItem", harness.lose)
    yield harness
    events.unregister("after-call.dynamodb.UpdateItem", harness.lose)
