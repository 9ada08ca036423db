"""A record's figures: with each other, with its infractions, with the route's length and with physics."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from evaluation.results.metrics import Record
from evaluation.results.records import SENSORS_INVALID, SETUP_FAILED
from evaluation.submission.model import LeaderboardVersion
from evaluation.verification.reasons import Kind, Reason
from evaluation.verification.scoring import OFF_ROAD, Scoring, percentage

_HALF_DIGIT = 0.5e-6  # 2.x rounds scores to six digits
_EXACT = 1e-9  # 1.0 rounds nothing
_DONE = ("Completed", "Perfect")
_ENDS_A_ROUTE = ("route_dev", "vehicle_blocked", "route_timeout")
_NEVER_DRIVEN = (SETUP_FAILED, SENSORS_INVALID)
# Published runs: at most 15 m/s and 3.1 s of game time in a second (docs/reference/results.md, "How long routes take").
MOST_METRES_PER_SECOND = 50.0
MOST_GAME_SECONDS_PER_SECOND = 10.0
# 2.x measures along the road what the route file gives as points: a public pair of runs is 1.14 times as long.
LEAST_ROAD, MOST_ROAD, SNAPPING_METRES = 0.9, 1.6, 100.0
_SAME_METRES = 0.01
_SAME_PERCENT = 0.005  # messages have two digits
_AT_THE_ENDS = 20.0  # metres: a route of this length may be completed in its first moments


@dataclass(frozen=True)
class KnownLengths:
    """Metres by route. `file`: between the points of the route file. `driven`: as the host's own run recorded them."""

    file: Mapping[int, float] = field(default_factory=dict)
    driven: Mapping[int, float] = field(default_factory=dict)

    def range(self, route: int, version: LeaderboardVersion) -> tuple[float, float] | None:
        """The least and the most that a record may say; None where nothing is known."""
        if route in self.driven:
            exact = self.driven[route]
        elif route not in self.file or not self.file[route]:
            return None
        elif version is LeaderboardVersion.V1:  # the sum over the file's points, as 1.0 computes it
            exact = self.file[route]
        else:
            metres = self.file[route]
            return max(0.0, LEAST_ROAD * metres - SNAPPING_METRES), MOST_ROAD * metres + SNAPPING_METRES
        return exact - _SAME_METRES, exact + _SAME_METRES


def check_figures(record: Record, route: int, name: str, scoring: Scoring, lengths: KnownLengths) -> Iterator[Reason]:
    """Everything that one record can be asked for; `name` is its route for people."""
    for kind, problem in (
        *((Kind.ARITHMETIC, each) for each in _scores(record, scoring)),
        *((Kind.ARITHMETIC, each) for each in _story(record)),
        *((Kind.TIMES, each) for each in _times(record)),
        *((Kind.LENGTH, each) for each in _length(record, route, scoring.version, lengths)),
    ):
        yield Reason(kind, f"{name}: {problem}.")


def _scores(record: Record, scoring: Scoring) -> Iterator[str]:
    scores, status = record["scores"], record["status"]
    route, penalty, composed = (scores[key] for key in ("score_route", "score_penalty", "score_composed"))
    exact = scoring.version is LeaderboardVersion.V1
    slack = _EXACT if exact else _HALF_DIGIT * (1 + route + penalty) + _EXACT
    if abs(composed - route * penalty) > slack:
        yield f"score_composed is {composed}, but {route} x {penalty} (route x penalty) is {route * penalty:.6g}"
    if status in _DONE and route < 100:
        yield f"its status is {status}, but score_route is {route} of 100"
    if status == "Perfect" and any(record["infractions"].values()):
        yield "its status is Perfect, but it has infractions"
    if route == 0 and penalty == 0 and composed == 0 and status not in _DONE:
        return  # a route that was given up, or that the simulator did not survive
    try:
        low, high = scoring.penalty_range(record)
    except ValueError as error:
        yield str(error)
        return
    slack = _EXACT if exact else _HALF_DIGIT + _EXACT
    if not low - slack <= penalty <= high + slack:
        left = f"{(low + high) / 2:.6g} (scoring of {scoring.name})"
        yield f"score_penalty is {penalty}, but its infractions leave {left}"


def _story(record: Record) -> Iterator[str]:
    """What the status and the messages say of the drive."""
    status, infractions, route = record["status"], record["infractions"], record["scores"]["score_route"]
    ended = [kind for kind in _ENDS_A_ROUTE if infractions[kind]]
    if status in _DONE and ended:
        yield f"its status is {status}, but {ended[0]} ended it"
    if route > 0 and any(why in status for why in _NEVER_DRIVEN):
        yield f"its status is {status!r}, but score_route is {route}"
    game = record["meta"]["duration_game"]
    for message in infractions[OFF_ROAD] if game > 0 else ():
        metres, share = _outside(message)
        if not 0 <= metres <= MOST_METRES_PER_SECOND * game * share:
            yield f"no car drives so in {game} s of game time: {message[:120]!r}"


def _outside(message: str) -> tuple[float, float]:
    """Metres outside the lanes, and the most that they are of the metres driven; (0, 1) where it does not say."""
    words = message.split(" ")
    try:
        return float(words[8]), (percentage(message) + _SAME_PERCENT) / 100
    except (IndexError, ValueError):  # the penalty is compared with its percentage, the metres with their form
        return 0.0, 1.0


def _times(record: Record) -> Iterator[str]:
    meta, route = record["meta"], record["scores"]["score_route"]
    game, system = meta["duration_game"], meta["duration_system"]
    if route <= 0 and game <= 0:
        return
    if game <= 0 or system <= 0:
        yield f"score_route is {route}, but it was driven in {game} s of game time and {system} s of system time"
        return
    metres = meta["route_length"] * route / 100
    if (metres - _AT_THE_ENDS) / game > MOST_METRES_PER_SECOND:
        yield (
            f"{metres:.0f} m in {game} s of game time are {metres / game:.0f} m/s, "
            f"more than {MOST_METRES_PER_SECOND:g} m/s"
        )
    if game / system > MOST_GAME_SECONDS_PER_SECOND:
        yield (
            f"{game} s of game time in {system} s are {game / system:.0f} times real time, "
            f"more than {MOST_GAME_SECONDS_PER_SECOND:g} times"
        )


def _length(record: Record, route: int, version: LeaderboardVersion, lengths: KnownLengths) -> Iterator[str]:
    length = record["meta"]["route_length"]
    if not length and record["scores"]["score_route"] == 0:
        return  # no scenario was loaded
    known = lengths.range(route, version)
    if known and not known[0] <= length <= known[1]:
        where = "the host's own drive" if route in lengths.driven else "the route file"
        span = f"{known[0]:.0f} to {known[1]:.0f}" if known[1] - known[0] > 1 else f"{sum(known) / 2:.3f}"
        yield f"route_length is {length} m, but by {where} it is {span} m"
    if not length:
        yield f"score_route is {record['scores']['score_route']}, but route_length is {length}"
