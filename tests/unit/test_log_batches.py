"""What is sent to CloudWatch Logs, and the address of its streams."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prefect_aws import AwsCredentials
from prefect_aws.client_parameters import AwsClientParameters

from blocks.leaderboard_cluster import LeaderboardCluster
from blocks.shard_logs import console_url
from evaluation import storage_keys
from shard_pod.log_batches import LONGEST, MOST_BYTES, MOST_EVENTS, OVERHEAD, batches

AT = 1_700_000_000_000
AWS_LONGEST = 256 * 1024  # of an event, with its overhead: the older quota


def messages(content: bytes, whole: bool = True) -> list[str]:
    return [event["message"] for batch in batches(content, AT, whole) for event in batch.events]


def test_each_line_is_an_event_and_empty_ones_are_none() -> None:
    assert messages(b"one\n\n  two\r\n\nthree") == ["one", "  two", "three"]


def test_an_unfinished_line_waits() -> None:
    (batch,) = batches(b"one\ntw", AT, whole=False)
    assert ([event["message"] for event in batch.events], batch.end) == (["one"], 4)
    assert list(batches(b"tw", AT, whole=False)) == []


def test_a_line_without_end_is_cut_between_characters() -> None:
    text = "é" * LONGEST  # two bytes each
    parts = messages(f"x{text}".encode(), whole=False)
    assert len(parts) == 2
    assert f"x{text}".startswith("".join(parts))


@settings(max_examples=60)
@given(
    pieces=st.lists(
        st.tuples(
            st.sampled_from([b"a", b"\xff", "🚗".encode(), b"\r", b"log line ", b"\x00"]),
            st.sampled_from([0, 1, 7, 3000, LONGEST // 9, LONGEST]),
            st.sampled_from([0, 1, 2, 12_000]),  # ends of lines
        ),
        max_size=12,
    ),
    whole=st.booleans(),
)
def test_any_log_fits_into_calls_and_nothing_is_lost(pieces: list[tuple[bytes, int, int]], whole: bool) -> None:
    content = b"".join(unit * count + b"\n" * ends for unit, count, ends in pieces)
    begun = 0
    for batch in batches(content, AT, whole):
        sizes = [len(event["message"].encode()) + OVERHEAD for event in batch.events]
        assert sum(sizes) <= MOST_BYTES
        assert len(sizes) <= MOST_EVENTS
        assert all(OVERHEAD < size <= AWS_LONGEST for size in sizes)
        assert {event["timestamp"] for event in batch.events} <= {AT}
        assert begun < batch.end
        begun = batch.end
    assert words("".join(messages(content, whole))) == words(content[:begun].decode(errors="replace"))
    left = content[begun:]
    assert left == b"" if whole else (b"\n" not in left and len(left) <= LONGEST)


def words(text: str) -> str:
    """Without the ends of lines, and without what is stripped with them."""
    return text.replace("\n", "").replace("\r", "")


def test_the_consoles_address_encodes_names_twice() -> None:
    streams = storage_keys.log_streams(4711, 2)
    assert console_url("us-west-2", "leaderboard-20", streams) == (
        "https://us-west-2.console.aws.amazon.com/cloudwatch/home?region=us-west-2"
        "#logsV2:log-groups/log-group/leaderboard-20$3FlogStreamNameFilter$3Dsubmission-4711$252Fattempt-2$252F"
    )
    assert "/log-group/$252Feks$252Fleaderboard$252320$3F" in console_url("us-west-2", "/eks/leaderboard#20", streams)


@pytest.mark.parametrize(
    ("region", "console"),
    [
        ("cn-north-1", "https://cn-north-1.console.amazonaws.cn/cloudwatch/"),
        ("us-gov-west-1", "https://us-gov-west-1.console.amazonaws-us-gov.com/cloudwatch/"),
    ],
)
def test_the_other_partitions_have_consoles_of_their_own(region: str, console: str) -> None:
    assert console_url(region, "g", "s").startswith(console)


def cluster(log_group: str = "leaderboard-20", **credentials: object) -> LeaderboardCluster:
    return LeaderboardCluster(
        cluster="leaderboard-20",
        leaderboard_version="2.0",
        compute={"kind": "local", "workdir": "/nowhere"},
        credentials=AwsCredentials(**{"region_name": "us-west-2", **credentials}),
        bucket="leaderboard-20",
        routes="routes.xml",
        image_registries=["demo"],
        log_group=log_group,
    )


def test_a_host_is_led_to_the_attempts_streams() -> None:
    logs = cluster().logs_of(4711, 1)

    assert logs
    assert logs.markdown == (
        "[CloudWatch log group `leaderboard-20`, streams `submission-4711/attempt-1/*`]"
        "(https://us-west-2.console.aws.amazon.com/cloudwatch/home?region=us-west-2"
        "#logsV2:log-groups/log-group/leaderboard-20$3FlogStreamNameFilter$3Dsubmission-4711$252Fattempt-1$252F)"
    )


def test_an_aws_that_is_not_amazons_has_no_console() -> None:
    moto = AwsClientParameters(endpoint_url="http://127.0.0.1:5000")
    logs = cluster(aws_client_parameters=moto).logs_of(4711, 1)

    assert logs
    assert logs.markdown == "CloudWatch log group `leaderboard-20`, streams `submission-4711/attempt-1/*`"


def test_without_a_log_group_there_is_nothing_to_show() -> None:
    assert cluster(log_group="").logs_of(4711, 1) is None
