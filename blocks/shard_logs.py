"""Where a person finds the output of an attempt's shards in CloudWatch Logs (streams: evaluation.storage_keys)."""

import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from aws_api.errors import aws_errors
from shard_pod.log_batches import batches

if TYPE_CHECKING:
    from types_boto3_logs import CloudWatchLogsClient

_CONSOLES = {"cn-": "console.amazonaws.cn", "us-gov-": "console.amazonaws-us-gov.com"}
_CONSOLE = "console.aws.amazon.com"


@dataclass(frozen=True)
class ShardLogs:
    """For hosts: a log group names a site's resources, which no team needs to know."""

    group: str
    streams: str  # what the streams' names begin with
    url: str  # the console's page of these streams; "" where AWS is not Amazon's

    def __str__(self) -> str:
        return self.url or f"{self.group}: {self.streams}*"

    @property
    def markdown(self) -> str:
        """A link where there is a page, names where there is none."""
        names = f"CloudWatch log group `{self.group}`, streams `{self.streams}*`"
        return f"[{names}]({self.url})" if self.url else names


def append_lines(client: "CloudWatchLogsClient", group: str, stream: str, text: str) -> None:
    """Append the text's lines to a stream, which is made where it is missing. Raises what aws_api.errors says."""
    with aws_errors(f"Writing to the log group {group}"):
        with suppress(client.exceptions.ResourceAlreadyExistsException):
            client.create_log_stream(logGroupName=group, logStreamName=stream)
        for batch in batches(text.encode(errors="replace"), int(time.time() * 1000), whole=True):
            client.put_log_events(logGroupName=group, logStreamName=stream, logEvents=batch.events)


def shard_logs(group: str, streams: str, region: str) -> ShardLogs:
    """The logs of AWS itself in this region, with the console's address."""
    return ShardLogs(group, streams, console_url(region, group, streams))


def console_url(region: str, group: str, streams: str) -> str:
    """The console's page of the streams whose names begin so.

    What follows the # is encoded as a query of its own: names twice, with $ for %, and the query's signs once.
    """
    console = next((name for prefix, name in _CONSOLES.items() if region.startswith(prefix)), _CONSOLE)
    return (
        f"https://{region}.{console}/cloudwatch/home?region={region}"
        f"#logsV2:log-groups/log-group/{_twice(group)}$3FlogStreamNameFilter$3D{_twice(streams)}"
    )


def _twice(name: str) -> str:
    return quote(quote(name, safe=""), safe="").replace("%", "$")
