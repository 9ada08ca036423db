"""`leaderboard logs`: what the processes of a submission's shards wrote, out of its S3 folder."""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Protocol

from cyclopts import Parameter
from cyclopts.validators import Number

from cli.arguments import Flag, SubmissionId
from cli.observers import load_challenge
from cli.submission_progress import Place
from deployments.installation import installation
from deployments.settings import load_settings
from evaluation import storage_keys
from evaluation.errors import ServiceUnavailable, UnknownSubmission
from evaluation.lifecycle.ledger_entry import LedgerEntry, read_entry
from evaluation.report_page.safe_text import shown

POLL_SECONDS = 2.0
LINES = 20
CHUNK = 256 * 1024  # bytes of a log's end that are read for its last lines
_KEY = re.compile(r"\d+/shards/(?P<shard>\d+)/logs/attempt-(?P<attempt>\d+)/(?P<process>.+)\.log")


def logs(
    submission: SubmissionId,
    /,
    *,
    shard: int | None = None,
    process: str | None = None,
    attempt: int | None = None,
    lines: Annotated[int, Parameter(validator=Number(gte=0))] = LINES,
    follow: Flag = False,
) -> None:
    """Show the last lines that the processes of a submission's shards wrote: simulator, agent, supervisor.

    A supervisor copies a log to S3 when it has grown by a tenth, and whole at the end; CloudWatch Logs has the lines
    sooner, where the cluster has a log group.

    Parameters
    ----------
    submission
        The submission's id at EvalAI.
    shard
        Only this shard.
    process
        Only this process, such as agent.
    attempt
        This attempt; the latest if not given.
    lines
        How many of each log's last lines.
    follow
        Print what is added, until the evaluation has ended or Ctrl-C.
    """
    with installation(load_settings()):
        entry, place = _entry(load_challenge().places, submission)
        wanted = Wanted(submission, attempt or entry.attempt, shard, process)
        reader = LogReader(place.artifacts, wanted, lines)
        for line in reader.news():
            print(line)
        if not follow:
            if not reader.seen:
                print(f"Attempt {wanted.attempt} has no such log yet.")
            return
        for line in followed(reader, lambda: _is_open(place, entry)):
            print(line, flush=True)


@dataclass(frozen=True)
class Wanted:
    submission: int
    attempt: int
    shard: int | None = None
    process: str | None = None

    def named(self, key: str) -> str | None:
        """`shard 0 agent` for a key that is wanted."""
        found = _KEY.fullmatch(key)
        if found is None or int(found["attempt"]) != self.attempt:
            return None
        if self.shard not in (None, int(found["shard"])):
            return None
        if self.process is not None and not found["process"].startswith(self.process):
            return None
        return f"shard {found['shard']} {found['process']}"


class Logs(Protocol):
    """The part of blocks.artifact_bucket that reads logs."""

    def sizes(self, prefix: str) -> Mapping[str, int]: ...

    def read_from(self, key: str, start: int) -> bytes: ...


class LogReader:
    """The lines of the wanted logs that are new since the last time; at first the last ones. `seen`: bytes by key."""

    def __init__(self, bucket: Logs, wanted: Wanted, lines: int) -> None:
        self._bucket = bucket
        self._wanted = wanted
        self._lines = lines
        self.seen: dict[str, int] = {}

    def news(self) -> Iterator[str]:
        sizes = self._bucket.sizes(storage_keys.shards_prefix(self._wanted.submission))
        for key, size in sorted(sizes.items()):
            name, whole = self._wanted.named(key), key.replace(storage_keys.LAST_LINES, "")
            repeated = whole != key and whole in sizes
            if name is None or repeated or size == self.seen.get(key):
                continue
            before = self.seen.get(key)
            for line in self._first(key, size) if before is None else self._added(key, before, size):
                yield f"{name} | {shown(line)}"

    def _first(self, key: str, size: int) -> list[str]:
        start = max(0, size - CHUNK)
        text = self._read(key, start)
        found = text.splitlines()[1 if start else 0 :]
        return found[-self._lines :] if self._lines else []

    def _added(self, key: str, before: int, size: int) -> list[str]:
        """A log that has become shorter is another: its begin was cut off."""
        return self._read(key, before if size > before else max(0, size - CHUNK)).splitlines()

    def _read(self, key: str, start: int) -> str:
        body = self._bucket.read_from(key, start)
        self.seen[key] = start + len(body)
        return body.decode(errors="replace")


def followed(reader: LogReader, goes_on: Callable[[], bool]) -> Iterator[str]:
    """New lines until the evaluation has ended; in an outage of AWS it waits."""
    while True:
        try:
            going = goes_on()  # asked first: what comes before the end is then read
            yield from reader.news()
        except ServiceUnavailable:
            going = True
        if not going:
            return
        time.sleep(POLL_SECONDS)


def _entry(places: Mapping[str, Place], submission: int) -> tuple[LedgerEntry, Place]:
    for place in places.values():
        for entry in place.ledger.entries():
            if entry.submission == submission:
                return entry, place
    remedy = f"`leaderboard explain {submission}` says where it is."
    raise UnknownSubmission(f"No run has claimed submission {submission}", "so it has no logs", remedy)


def _is_open(place: Place, seen: LedgerEntry) -> bool:
    """Whether the attempt goes on."""
    now = read_entry(place.ledger.row(seen.team, seen.submission))
    return now is not None and now.open and now.attempt == seen.attempt
