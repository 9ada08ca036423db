"""The shard's access to CloudWatch Logs: boto3, configured by its own environment variables."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import boto3.session
from botocore.config import Config

from aws_api.errors import aws_errors
from evaluation.errors import EvaluationError

if TYPE_CHECKING:
    from types_boto3_logs import CloudWatchLogsClient
    from types_boto3_logs.type_defs import InputLogEventTypeDef

_CONFIG = Config(retries={"mode": "standard", "total_max_attempts": 2}, connect_timeout=3, read_timeout=10)


class LogGroup:
    """One log group, which has to be there; its streams are made when they are first written to.

    The client is made then, too, in a session of its own: it is used in a thread of its own.
    """

    def __init__(
        self, name: str, session: Callable[[], boto3.session.Session] = lambda: boto3.session.Session()
    ) -> None:
        self.name = name
        self._session = session
        self._logs: CloudWatchLogsClient | None = None
        self._streams: set[str] = set()

    def put(self, stream: str, events: "list[InputLogEventTypeDef]") -> None:
        """Append one batch; raises what aws_api.errors says."""
        try:
            with aws_errors(f"Writing to the log group {self.name}"):
                self._logs = self._logs or self._session().client("logs", config=_CONFIG)
                if stream not in self._streams:
                    self._make(self._logs, stream)
                    self._streams.add(stream)
                self._logs.put_log_events(logGroupName=self.name, logStreamName=stream, logEvents=events)
        except EvaluationError:
            self._streams.discard(stream)  # somebody may have deleted it
            raise

    def _make(self, logs: "CloudWatchLogsClient", stream: str) -> None:
        try:
            logs.create_log_stream(logGroupName=self.name, logStreamName=stream)
        except logs.exceptions.ResourceAlreadyExistsException:
            return
