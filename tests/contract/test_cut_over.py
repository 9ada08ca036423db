"""The cut-over of docs/migration.md rehearsed, there and back and there again, while messages arrive all the time."""

from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from blocks.ledger_table import LedgerTable
from tests.contract.aws_blocks import create_queue, create_table, credentials_of, remaining
from tests.contract.cut_over import TABLE, Evaluations, NewSystem, OldPipeline, Sender, fence, old_row
from tests.waiting import eventually


class Site:
    """Both systems on one queue and one table."""

    def __init__(self, aws: dict[str, Any], seed: int) -> None:
        create_table(aws, TABLE)
        self.aws = aws
        self.done = Evaluations()
        self.queue = create_queue(aws, visibility=30)
        self.evalai = Sender(aws, self.queue.queue_url, seed)
        self.old = OldPipeline(aws, self.queue.queue_url, self.done)
        self.new = NewSystem(self.queue, LedgerTable(table=TABLE, credentials=credentials_of(aws)), self.done)

    def cut_over(self) -> None:
        """The page's five steps."""
        self.old.stop()
        self.old.wait_until_the_pipe_has_ended()
        self.old.wait_until_no_execution_is_in_preeks()
        fence(self.aws)
        self.new.start_bridge()

    def go_back(self) -> None:
        self.new.stop_bridge()
        self.new.wait_until_the_runs_have_ended()
        self.old.start()

    def evaluated(self, who: str, more_than: int) -> None:
        """Wait until that system has evaluated some more."""
        eventually(lambda: sum(each == [who] for each in list(self.done.by.values())) > more_than)

    def count(self, who: str) -> int:
        return sum(who in each for each in list(self.done.by.values()))


@pytest.fixture(params=[1, 2, 3])
def site(aws: dict[str, Any], request: pytest.FixtureRequest) -> Iterator[Site]:
    site = Site(aws, request.param)
    yield site
    site.evalai.stop()
    site.old.stop()
    site.new.close()
    site.old.close()


def test_there_and_back_and_there_again_nothing_is_lost_and_nothing_evaluated_twice(site: Site) -> None:
    site.old.start()
    site.evalai.start()
    site.evaluated("old", 5)

    site.cut_over()
    # SQS may deliver a deleted message once more, and the reconciler starts runs for what EvalAI still calls submitted.
    again, under_way = site.old.taken[:3], site.old.taken[3:6]
    for pk in again:
        site.evalai.send(pk)
    for pk in under_way:
        site.new.run_for(pk)
    site.evaluated("new", 5)
    eventually(lambda: set(again) <= set(site.new.duplicates))  # the original could not know them again

    olds = site.count("old")
    site.go_back()
    site.evaluated("old", olds + 3)

    news = site.count("new")
    site.cut_over()
    site.evaluated("new", news + 3)
    site.evalai.stop()
    eventually(lambda: remaining(site.aws, site.queue) == (0, 0))
    site.new.stop_bridge()
    site.new.wait_until_the_runs_have_ended()

    assert {pk: by for pk, by in site.done.by.items() if len(by) != 1} == {}  # none twice
    assert sorted(site.done.by) == site.evalai.sent  # none lost, none made up
    assert set(again + under_way) <= set(site.new.duplicates)
    assert remaining(site.aws, site.queue) == (0, 0)


def test_a_fence_before_the_last_preeks_does_not_hold(aws: dict[str, Any]) -> None:
    """Why the page waits for PreEKS first: what it puts afterwards has no fence."""
    create_table(aws, TABLE)
    done, queue = Evaluations(), create_queue(aws)
    new = NewSystem(queue, LedgerTable(table=TABLE, credentials=credentials_of(aws)), done)
    try:
        fence(aws)
        boto3.client("dynamodb", **aws).put_item(TableName=TABLE, Item=old_row(1000))
        new.run_for(1000)
        assert done.by[1000] == ["new"]  # beside the execution that simulates it

        fence(aws)
        boto3.client("dynamodb", **aws).put_item(TableName=TABLE, Item=old_row(1001))
        fence(aws)
        new.run_for(1001)
        assert 1001 not in done.by
    finally:
        new.close()
