"""A log's bytes as batches that CloudWatch Logs takes. Source of the limits: PutLogEvents in its API reference."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types_boto3_logs.type_defs import InputLogEventTypeDef

MOST_BYTES, MOST_EVENTS, OVERHEAD = 1_048_576, 10_000, 26  # a batch; each event costs its UTF-8 and this much
# Of one event, before decoding: a byte that is no UTF-8 becomes three. Older quotas allow 256 KiB, newer ones 1 MiB.
LONGEST = 80 * 1024


@dataclass(frozen=True)
class Batch:
    """Events of one call. `end` is how many bytes of the content this batch and those before it cover."""

    end: int
    events: "list[InputLogEventTypeDef]" = field(default_factory=list)


def batches(content: bytes, at: int, whole: bool) -> Iterator[Batch]:
    """The lines of the content, all with the time `at` (milliseconds since the epoch): a line's own time is unknown.

    A last line without its end is left for the next time, unless the content is the `whole` rest. Longer lines are cut,
    empty ones left out: CloudWatch takes none.
    """
    events: list[InputLogEventTypeDef] = []
    size = end = 0
    for start, stop in _lines(content, whole):
        message = content[start:stop].rstrip(b"\r\n").decode(errors="replace")
        cost = len(message.encode()) + OVERHEAD
        if events and (size + cost > MOST_BYTES or len(events) == MOST_EVENTS):
            yield Batch(end, events)
            events, size = [], 0
        if message:
            events.append({"timestamp": at, "message": message})
            size += cost
        end = stop
    if end:
        yield Batch(end, events)


def _lines(content: bytes, whole: bool) -> Iterator[tuple[int, int]]:
    """Start and stop of each line, or of each part of a long one."""
    start = 0
    while start < len(content):
        stop = content.find(b"\n", start, start + LONGEST) + 1
        if not stop:
            stop = min(start + LONGEST, len(content))
            if stop == len(content) and not whole:
                return
            while stop < len(content) and stop > start + LONGEST - 4 and content[stop] & 0xC0 == 0x80:
                stop -= 1  # not within a character
        yield start, stop
        start = stop
