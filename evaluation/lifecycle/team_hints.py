"""What a team needs beside the sentence of its failure: the limit that a hang broke, the sensors that it may use."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from evaluation.errors import SubmissionFailed
from evaluation.pair.protocol import PairExitCode, failure_of

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
# What CARLA's evaluator prints of a SensorConfigurationInvalid: 1.0 puts "> " before the second line, 2.0 does not.
_REFUSED = re.compile(r"sensor'?s configuration used is invalid:\s*>?\s*([^\n]+)", re.IGNORECASE)
_LONGEST = 200  # characters of the evaluator's line


@dataclass(frozen=True)
class TeamRules:
    """The rules that an agent has broken. `sensors`: how many of each the track allows."""

    track: str
    hang_seconds: float
    sensors: Mapping[str, int]


def hints(failure: SubmissionFailed, rules: TeamRules) -> Iterator[str]:
    """Sentences to follow the failure's own; none where these rules have no part in it."""
    text = str(failure)
    if failure_of(PairExitCode.AGENT_HANGS).summary in text:
        yield (
            f"It hangs when it makes no progress for {rules.hang_seconds:g} s: no route ends, no game time "
            "passes and no tick is reported, whatever it prints."
        )
    if failure_of(PairExitCode.SENSORS_INVALID).summary in text:
        if refused := _REFUSED.search(_COLOURS.sub("", failure.logs)):
            yield f'The evaluator says: "{refused.group(1).strip()[:_LONGEST]}".'
        allowed = ", ".join(f"{most} {sensor}" for sensor, most in rules.sensors.items())
        yield f"The track {rules.track} allows at most {allowed}."
