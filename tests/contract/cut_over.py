"""The original pipeline and ours on one queue, as far as a cut-over can lose or repeat a submission: intake and rows.

The original: an EventBridge Pipe receives one message at a time, starts an execution without waiting for it, and
deletes the message; PreEKS then puts the row as a whole (docs/reference/step-function.md). Ours: bridge, event, a run
that claims in the ledger, then deletes. Queue and table are moto's, bridge and ledger the real ones.
"""

import json
import queue
import random
import re
import threading
import time
from collections import defaultdict
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import boto3

from blocks.ledger_table import LedgerTable
from blocks.submission_queue import SubmissionQueue
from evaluation.errors import AlreadyClaimed
from evaluation.submission.message import Delivery
from prefect_api.events import OutgoingEvent
from services.bridge import BridgeSettings, run_bridge
from tests.contract.aws_blocks import a_submission
from tests.waiting import PATIENCE_SECONDS

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "migration.md").read_text("utf-8")
TABLE = "leaderboard-20"
QUICK = BridgeSettings(wait_seconds=0, claim_seconds=5, first_pause_seconds=0.05, longest_pause_seconds=0.1)
MESSAGE = {"challenge_pk": "1", "phase_pk": "2203", "submitted_image_uri": "reg/img:1"}


class Evaluations:
    """Who has evaluated which submission: its shards were launched."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.by: dict[int, list[str]] = defaultdict(list)

    def add(self, pk: int, who: str) -> None:
        with self._lock:
            self.by[pk].append(who)


class Sender:
    """EvalAI: sends submission after submission, at odd times, until it is told to stop."""

    def __init__(self, aws: dict[str, Any], url: str, seed: int) -> None:
        self._sqs, self._url = boto3.client("sqs", **aws), url
        self._random = random.Random(seed)  # noqa: S311 - a test's times
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.sent: list[int] = []

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(PATIENCE_SECONDS)

    def send(self, pk: int) -> None:
        self._sqs.send_message(QueueUrl=self._url, MessageBody=json.dumps({**MESSAGE, "submission_pk": pk}))

    def _run(self) -> None:
        while not self._stop.wait(self._random.uniform(0.0, 0.06)):
            pk = 1000 + len(self.sent)
            self.sent.append(pk)
            self.send(pk)


class OldPipeline:
    """Pipe, and the executions' first step. After `stop` the Pipe goes on for a little, as the real one does."""

    def __init__(self, aws: dict[str, Any], url: str, done: Evaluations, lag: float = 0.3) -> None:
        self._aws, self._url, self._done, self._lag = aws, url, done, lag
        self._executions = ThreadPoolExecutor(4)
        self._in_preeks: list[Future[None]] = []
        self._stopped_at: float | None = None
        self._thread: threading.Thread | None = None
        self.taken: list[int] = []

    def start(self) -> None:
        self._stopped_at = None
        self._thread = threading.Thread(target=self._pipe)
        self._thread.start()

    def stop(self) -> None:
        """`aws pipes stop-pipe`: returns at once."""
        self._stopped_at = time.monotonic()

    def wait_until_the_pipe_has_ended(self) -> None:
        """The page's two minutes."""
        assert self._thread
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive()

    def wait_until_no_execution_is_in_preeks(self) -> None:
        for each in self._in_preeks:
            each.result(PATIENCE_SECONDS)

    def close(self) -> None:
        self._executions.shutdown()

    def _pipe(self) -> None:
        sqs = boto3.client("sqs", **self._aws)
        while self._stopped_at is None or time.monotonic() < self._stopped_at + self._lag:
            found = sqs.receive_message(QueueUrl=self._url, MaxNumberOfMessages=1, WaitTimeSeconds=0)
            for message in found.get("Messages", []):
                pk = int(json.loads(message["Body"])["submission_pk"])
                self.taken.append(pk)
                self._in_preeks.append(self._executions.submit(self._preeks, pk))
                sqs.delete_message(QueueUrl=self._url, ReceiptHandle=message["ReceiptHandle"])
            time.sleep(0.01)

    def _preeks(self, pk: int) -> None:
        """Puts the row as a whole, whatever is there, and goes on to the simulation."""
        time.sleep(0.1)
        boto3.client("dynamodb", **self._aws).put_item(TableName=TABLE, Item=old_row(pk))
        self._done.add(pk, "old")


class NewSystem:
    """The bridge, and one worker that takes the runs one after the other, as late as a busy one does."""

    def __init__(self, submissions: SubmissionQueue, ledger: LedgerTable, done: Evaluations) -> None:
        self._submissions, self._ledger, self._done = submissions, ledger, done
        self._runs: queue.Queue[OutgoingEvent | None] = queue.Queue()
        self._worker = threading.Thread(target=self._work)
        self._worker.start()
        self._stop = threading.Event()
        self._bridge: threading.Thread | None = None
        self.duplicates: list[int] = []

    def start_bridge(self) -> None:
        self._stop = threading.Event()
        self._bridge = threading.Thread(target=run_bridge, args=(self._submissions, self, self._stop, QUICK))
        self._bridge.start()

    def stop_bridge(self) -> None:
        self._stop.set()
        assert self._bridge
        self._bridge.join(PATIENCE_SECONDS)
        assert not self._bridge.is_alive()

    def publish(self, event: OutgoingEvent) -> None:
        """Prefect's API and automation: one run for each event."""
        self._runs.put(event)

    def wait_until_the_runs_have_ended(self) -> None:
        self._runs.join()

    def close(self) -> None:
        self._runs.put(None)
        self._worker.join(PATIENCE_SECONDS)

    def run_for(self, pk: int, delivery: Delivery | None = None) -> None:
        """One run of evaluate-submission up to its launch; without a delivery, as the reconciler starts it."""
        try:
            self._ledger.claim(a_submission(pk=pk), f"run-{pk}-{time.monotonic()}")
        except AlreadyClaimed:
            self.duplicates.append(pk)
        else:
            self._done.add(pk, "new")
        if delivery:
            self._submissions.acknowledge(delivery)

    def _work(self) -> None:
        while (event := self._runs.get()) is not None:
            message: Any = event.payload["message"]
            self.run_for(int(message["submission_pk"]), Delivery.model_validate(event.payload["delivery"]))
            self._runs.task_done()


def old_row(pk: int) -> dict[str, Any]:
    key = {"team-id": {"S": "7"}, "submission-id": {"S": str(pk)}}
    return key | {"team-name": {"S": "Team"}, "status": {"S": "RUNNING"}}


def fence(aws: dict[str, Any]) -> int:
    """What the page's function does, with the page's own expressions: returns how many rows it found."""
    client = boto3.client("dynamodb", **aws)
    names = json.loads(re.findall(r"--expression-attribute-names '([^']*)'", PAGE)[0])
    pages = client.get_paginator("scan").paginate(
        TableName=TABLE,
        ProjectionExpression=_option("projection-expression"),
        FilterExpression=_option("filter-expression"),
        ExpressionAttributeNames=names,
    )
    found = [key for page in pages for key in page["Items"]]
    for key in found:
        client.update_item(
            TableName=TABLE,
            Key=key,
            UpdateExpression=_option("update-expression"),
            ConditionExpression=_option("condition-expression"),
            ExpressionAttributeNames=json.loads(_option("expression-attribute-names")),
            ExpressionAttributeValues=json.loads(_option("expression-attribute-values")),
        )
    return len(found)


def _option(name: str) -> str:
    """The last value that the page gives to an option of `aws dynamodb`."""
    return str(re.findall(rf"--{name} '([^']*)'", PAGE)[-1])
