"""Why a result does not fit what is known of it."""

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """What was compared."""

    ARITHMETIC = "arithmetic"  # a record's figures with each other
    TIMES = "times"  # durations with each other, and with the clock of the supervisor
    LENGTH = "length"  # with the route file, or with the host's own drive
    SENSORS = "sensors"  # with the track
    DRIVES = "drives"  # order and number of drives, with what the supervisor saw
    IMAGE = "image"  # with the submission's


@dataclass(frozen=True)
class Reason:
    """`sentence` names the route or shard, the value and what was expected."""

    kind: Kind
    sentence: str

    def __str__(self) -> str:
        return self.sentence
