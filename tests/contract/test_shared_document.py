"""The document that one process at a time makes anew: the rules of evaluation.ports.SharedDocument."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from aws_blocks import UNREACHABLE, create_table, credentials_of

from blocks.ledger_table import LedgerTable
from evaluation.errors import RequestRefused, ServiceUnavailable
from evaluation.ports import Made, SharedDocument
from tests.fakes import FakeDocument


@pytest.fixture(params=["DynamoDB", "in memory"])
def document(request: pytest.FixtureRequest) -> Iterator[SharedDocument]:
    if request.param == "in memory":
        yield FakeDocument()
        return
    aws = request.getfixturevalue("aws")
    create_table(aws, "shared-documents")
    yield LedgerTable(table="shared-documents", credentials=credentials_of(aws)).shared_document("list")


def test_nothing_is_there_at_first(document: SharedDocument) -> None:
    assert document.read() == Made(0, 0, b"")


def test_a_making_is_begun_and_then_published(document: SharedDocument) -> None:
    assert document.begin(0) == 1
    assert document.read() == Made(1, 0, b"")

    document.publish(1, b"\x00one")

    assert document.read() == Made(1, 1, b"\x00one")


def test_only_one_of_many_begins(document: SharedDocument) -> None:
    with ThreadPoolExecutor(8) as pool:
        numbers = list(pool.map(document.begin, [0] * 16))

    assert sorted(numbers, key=str) == [1] + [None] * 15


def test_who_was_overtaken_begins_nothing_and_publishes_nothing_over_the_newer(document: SharedDocument) -> None:
    document.begin(0)
    document.begin(1)  # another one, which waited for the first long enough
    document.publish(2, b"newer")

    assert document.begin(1) is None
    document.publish(1, b"older")

    assert document.read() == Made(2, 2, b"newer")


def test_what_does_not_fit_is_refused_and_changes_nothing(document: SharedDocument) -> None:
    document.begin(0)

    with pytest.raises(RequestRefused, match="too large"):
        document.publish(1, b"x" * 400_000)

    assert document.read() == Made(1, 0, b"")


def test_the_row_is_no_submission(aws: dict[str, Any]) -> None:
    create_table(aws, "with-shared-row")
    ledger = LedgerTable(table="with-shared-row", credentials=credentials_of(aws))
    ledger.shared_document("list").begin(0)

    assert list(ledger.entries()) == []


def test_an_outage_is_one(aws: dict[str, Any]) -> None:
    away = LedgerTable(table="away", credentials=credentials_of(aws, endpoint_url=UNREACHABLE))

    with pytest.raises(ServiceUnavailable):
        away.shared_document("list").read()
