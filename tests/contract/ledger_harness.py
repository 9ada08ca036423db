"""The ledgers that keep the rules of claims, each with a clock that the test moves and answers that can be lost."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol
from unittest import mock

import boto3
import pytest
from aws_blocks import create_table, credentials_of
from botocore.exceptions import ReadTimeoutError
from prefect_aws import AwsCredentials

from aws_api.dynamodb_values import encode_all
from blocks.aws_client import aws_client
from blocks.ledger_table import LedgerTable
from evaluation.errors import ServiceUnavailable
from evaluation.lifecycle.ledger_entry import LedgerEntry, read_entry
from evaluation.ports import SubmissionLedger
from tests.fake_ledger import FakeLedger
from tests.simulation.aws import DynamoDB, Tables
from tests.simulation.calls import CallsAtOnce

FIRST = datetime(2026, 11, 21, tzinfo=UTC)
LEASE = timedelta(seconds=180)
ENDED = {"end-time": "2026-11-21T10:00:00Z"}
TABLE = "leaderboard-20"
LEDGERS = ("DynamoDB", "in memory", "simulated")


class Harness(Protocol):
    """A ledger, its clock, and what a test does to it from outside. All submissions are team 7's."""

    ledger: SubmissionLedger
    now: datetime

    def lose_the_next_answer(self, losing: bool = True) -> None: ...

    def put_row(self, row: dict[str, object]) -> None: ...

    def remove(self, pk: int, *attributes: str) -> None:
        """Some attributes, or the whole row where none is named."""


@contextmanager
def lost_answer(harness: Harness) -> Iterator[None]:
    """The write inside is done, and whoever made it does not learn that."""
    harness.lose_the_next_answer()
    with pytest.raises(ServiceUnavailable):
        yield
    harness.lose_the_next_answer(False)


def row_of(harness: Harness, pk: int = 90) -> dict[str, object]:
    return dict(harness.ledger.row(7, pk) or {})


def entry_of(harness: Harness, pk: int = 90) -> LedgerEntry:
    entry = read_entry(harness.ledger.row(7, pk))
    assert entry
    return entry


@dataclass
class DynamoHarness:
    """LedgerTable on moto's DynamoDB."""

    aws: dict[str, Any]
    now: datetime = FIRST
    losing: bool = False
    ledger: LedgerTable = field(init=False)

    def __post_init__(self) -> None:
        table = LedgerTable(table=TABLE, credentials=credentials_of(self.aws))
        self.ledger = table.with_clock(lambda: self.now)

    def lose_the_next_answer(self, losing: bool = True) -> None:
        self.losing = losing

    def lose(self, http_response: Any, **_: Any) -> None:
        """botocore's event after a call: what DynamoDB did, is done."""
        if self.losing and http_response.status_code == 200:
            self.losing = False
            raise ReadTimeoutError(endpoint_url="https://dynamodb.example")

    def put_row(self, row: dict[str, object]) -> None:
        boto3.resource("dynamodb", **self.aws).Table(TABLE).put_item(Item=row)

    def remove(self, pk: int, *attributes: str) -> None:
        table, key = boto3.resource("dynamodb", **self.aws).Table(TABLE), {"team-id": "7", "submission-id": str(pk)}
        if not attributes:
            table.delete_item(Key=key)
            return
        names = {f"#n{number}": name for number, name in enumerate(attributes)}
        table.update_item(Key=key, UpdateExpression=f"REMOVE {', '.join(names)}", ExpressionAttributeNames=names)


@dataclass
class MemoryHarness:
    """The fake that the flows' tests use."""

    now: datetime = FIRST
    ledger: FakeLedger = field(init=False)

    def __post_init__(self) -> None:
        self.ledger = FakeLedger(now=lambda: self.now)

    def lose_the_next_answer(self, losing: bool = True) -> None:
        self.ledger.losing = losing

    def put_row(self, row: dict[str, object]) -> None:
        self.ledger.rows[int(str(row["submission-id"]))] = dict(row)

    def remove(self, pk: int, *attributes: str) -> None:
        for attribute in attributes:
            del self.ledger.rows[pk][attribute]
        if not attributes:
            del self.ledger.rows[pk]


@dataclass
class SimulatedHarness:
    """LedgerTable on the simulated world's DynamoDB."""

    now: datetime = FIRST
    calls: CallsAtOnce = field(default_factory=CallsAtOnce)
    tables: Tables = field(default_factory=lambda: Tables({TABLE: ("team-id", "submission-id")}))
    ledger: LedgerTable = field(init=False)

    def __post_init__(self) -> None:
        table = LedgerTable(table=TABLE, credentials=AwsCredentials(region_name="us-west-2"))
        self.ledger = table.with_clock(lambda: self.now)

    def client(self, *_: object) -> DynamoDB:
        return DynamoDB(self.calls, self.tables, attempts=1)  # type: ignore[arg-type]

    def lose_the_next_answer(self, losing: bool = True) -> None:
        self.calls.losing = losing

    def put_row(self, row: dict[str, object]) -> None:
        self.client().put_item(TABLE, encode_all(row))

    def remove(self, pk: int, *attributes: str) -> None:
        rows, key = self.tables.table(TABLE), ("7", str(pk))
        rows[key] = {name: value for name, value in rows[key].items() if name not in attributes}
        if not attributes:
            del rows[key]


@contextmanager
def dynamo_harness(aws: dict[str, Any]) -> Iterator[DynamoHarness]:
    create_table(aws, TABLE)
    harness = DynamoHarness(aws)
    events = aws_client(harness.ledger.credentials, "dynamodb").meta.events
    events.register("after-call.dynamodb.UpdateItem", harness.lose)
    yield harness
    events.unregister("after-call.dynamodb.UpdateItem", harness.lose)


@contextmanager
def ledger_harness(request: pytest.FixtureRequest) -> Iterator[Harness]:
    """For a fixture with `params=LEDGERS`: each ledger in turn."""
    if request.param == "in memory":
        yield MemoryHarness()
        return
    if request.param == "simulated":
        simulated = SimulatedHarness()
        both = {"aws_client": simulated.client, "own_client": simulated.client}
        with mock.patch.multiple("blocks.ledger_table", **both):
            yield simulated
        return
    with dynamo_harness(request.getfixturevalue("aws")) as harness:
        yield harness
