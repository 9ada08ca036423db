"""The supervisor's log forwarder against moto's CloudWatch Logs."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from pytest_httpserver import HTTPServer

from evaluation import storage_keys
from evaluation.pair.protocol import PairExitCode
from shard_pod import log_forwarder
from shard_pod.log_forwarder import LogForwarder
from shard_pod.log_group import LogGroup
from tests.contract.pair_bench import GOOD, Bench, Make, benches, container, contract, credentials, text
from tests.waiting import PATIENCE_SECONDS, eventually

GROUP = "leaderboard-20"


class Cloud:
    """moto's CloudWatch Logs as a person sees it."""

    def __init__(self, aws: dict[str, Any]) -> None:
        self.logs = boto3.client("logs", **aws)

    def create(self) -> None:
        self.logs.create_log_group(logGroupName=GROUP)

    def streams(self) -> list[str]:
        return [stream["logStreamName"] for stream in self.logs.describe_log_streams(logGroupName=GROUP)["logStreams"]]

    def lines(self, process: str = "agent") -> list[str]:
        stream = storage_keys.log_stream(7, 1, 0, process)
        if stream not in self.streams():
            return []
        events = self.logs.get_log_events(logGroupName=GROUP, logStreamName=stream, startFromHead=True)["events"]
        return [event["message"] for event in events]


@pytest.fixture
def cloud(aws: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Cloud:
    for name, value in credentials(aws).items():
        monkeypatch.setenv(name, value)
    return Cloud(aws)


@pytest.fixture
def bench(tmp_path: Path, aws: dict[str, Any]) -> Iterator[Make]:
    yield from benches(tmp_path, aws)


def shipper(pair: Bench) -> LogForwarder:
    return LogForwarder(pair.settings, pair.files, LogGroup(GROUP))


def add(pair: Bench, content: str, process: str = "agent") -> None:
    path = pair.files.logs[process]
    path.parent.mkdir(exist_ok=True)
    with path.open("a") as log:
        log.write(content)


def test_every_process_has_a_stream_and_each_line_comes_once(bench: Make, cloud: Cloud) -> None:
    cloud.create()
    pair = bench()
    ships = shipper(pair)
    add(pair, "loading\nroute 0: 10%")
    add(pair, "CARLA listens\n", "simulator")

    ships.ship(last=False)
    add(pair, "\nroute 0: 20%\n")
    ships.ship(last=False)

    assert cloud.lines() == ["loading", "route 0: 10%", "route 0: 20%"]
    assert cloud.lines("simulator") == ["CARLA listens"]
    assert cloud.streams() == ["submission-7/attempt-1/shard-0/agent", "submission-7/attempt-1/shard-0/simulator"]


def test_a_new_supervisor_goes_on_where_the_old_one_was(bench: Make, cloud: Cloud) -> None:
    cloud.create()
    pair = bench()
    add(pair, "one\n")
    shipper(pair).ship(last=False)
    add(pair, "two\nthree")

    shipper(pair).ship(last=True)

    assert cloud.lines() == ["one", "two", "three"]


def test_a_log_that_begins_anew_is_sent_from_its_start(bench: Make, cloud: Cloud) -> None:
    cloud.create()
    pair = bench()
    ships = shipper(pair)
    add(pair, "a long first line\n")
    ships.ship(last=False)

    pair.files.logs["agent"].write_text("anew\n")
    ships.ship(last=False)

    assert cloud.lines() == ["a long first line", "anew"]


def test_a_flood_is_bounded_and_says_what_was_left_out(
    bench: Make, cloud: Cloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.create()
    monkeypatch.setattr(log_forwarder, "MOST_BEHIND", 60)
    monkeypatch.setattr(log_forwarder, "CHUNK", 25)
    pair = bench()
    add(pair, "".join(f"line {n:04d}\n" for n in range(1000)))

    shipper(pair).ship(last=False)

    first, *rest = cloud.lines()
    assert first.startswith("[9940 bytes are left out here")
    assert rest == [f"line {n:04d}" for n in range(994, 1000)]


def test_until_there_is_a_log_group_nothing_is_lost(
    bench: Make, cloud: Cloud, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "shard_pod.log_forwarder")
    pair = bench()
    ships = shipper(pair)
    add(pair, "one\n")
    ships.ship(last=False)
    ships.ship(last=False)
    cloud.create()
    add(pair, "two\n")

    ships.ship(last=False)

    assert cloud.lines() == ["one", "two"]
    warnings = [record.getMessage() for record in caplog.records if record.name == "shard_pod.log_forwarder"]
    assert len(warnings) == 2  # once each, not at every look
    assert warnings[0].startswith("Logs are not sent to CloudWatch now: Writing to the log group leaderboard-20 failed")
    assert "The specified log group does not exist. Check its name" in warnings[0]
    assert warnings[1] == "Logs are sent to CloudWatch again"


def test_what_is_throttled_is_sent_later(
    bench: Make, cloud: Cloud, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", httpserver.url_for(""))
    pair = bench()
    ships = shipper(pair)
    add(pair, "one\n")
    httpserver.expect_ordered_request("/").respond_with_json({})  # CreateLogStream
    for _ in range(2):  # botocore tries twice
        httpserver.expect_ordered_request("/").respond_with_json({"__type": "ThrottlingException"}, status=400)
    exists = {"__type": "ResourceAlreadyExistsException"}
    httpserver.expect_ordered_request("/").respond_with_json(exists, status=400)
    httpserver.expect_ordered_request("/").respond_with_json({})
    ships.ship(last=False)
    assert not pair.files.shipped.exists()

    ships.ship(last=False)

    sent, _ = httpserver.log[-1]
    assert [event["message"] for event in sent.get_json(force=True)["logEvents"]] == ["one"]
    assert json.loads(pair.files.shipped.read_text()) == {"agent": 4}


@pytest.mark.parametrize("cloudwatch", ["up", "gone"])
def test_a_shard_finishes_with_and_without_cloudwatch(
    bench: Make, cloud: Cloud, aws: dict[str, Any], cloudwatch: str
) -> None:
    cloud.create()
    pair = bench(log_group=GROUP)
    outage = {"AWS_ENDPOINT_URL_CLOUDWATCH_LOGS": "http://127.0.0.1:9"} if cloudwatch == "gone" else {}
    supervisor = container(
        "shard_pod.supervisor", {**contract(pair.settings), **credentials(aws), **outage, "PYTHONUNBUFFERED": "1"}
    )
    try:
        pair.started(1)
        add(pair, "driving\n")
        pair.writes(text(GOOD, GOOD, GOOD))
        pair.ends(1, "stopped", "died 0")
    finally:
        output, _ = supervisor.communicate(timeout=PATIENCE_SECONDS)

    assert supervisor.returncode == PairExitCode.FINISHED
    assert pair.stored(storage_keys.checkpoint_key) == text(GOOD, GOOD, GOOD).encode()
    if cloudwatch == "gone":
        assert "Logs are not sent to CloudWatch now: Writing to the log group leaderboard-20 failed" in output
        assert cloud.streams() == []
    else:
        assert cloud.lines() == ["driving"]
        assert "Exit code finished: every route has its record" in cloud.lines("supervisor")[-1]


def test_what_prepare_says_when_it_fails_is_sent_too(bench: Make, cloud: Cloud, aws: dict[str, Any]) -> None:
    cloud.create()
    pair = bench(log_group=GROUP, routes="/nowhere/routes.xml")

    prepared = container("shard_pod.prepare", {**contract(pair.settings), **credentials(aws)})
    prepared.communicate(timeout=PATIENCE_SECONDS)

    assert prepared.returncode == PairExitCode.MISCONFIGURED
    assert any("The route file /nowhere/routes.xml cannot be read" in line for line in cloud.lines("init"))


def test_the_thread_follows_by_itself_and_sends_the_last_words(bench: Make, cloud: Cloud) -> None:
    cloud.create()
    pair = bench(copy_seconds=0.05)
    ships = shipper(pair)
    ships.start()
    add(pair, "one\n")
    eventually(lambda: cloud.lines() == ["one"])

    add(pair, "the last words")
    ships.close(10)

    assert cloud.lines() == ["one", "the last words"]
