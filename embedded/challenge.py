"""The challenge that the embedded EvalAI hosts: its people, its four phases and their leaderboards."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass

from evaluation.results.evalai_result import LABELS
from evaluation.submission.model import LeaderboardVersion

CHALLENGE = 1
PHASES: Mapping[str, int] = {
    "leaderboard-10-SENSORS": 2201,
    "leaderboard-10-MAP": 2202,
    "leaderboard-20-SENSORS": 2203,
    "leaderboard-20-MAP": 2204,
}
# The second team's name is what real names are like; nothing may be built from it.
TEAMS = ("Demo Team", "Équipe n° 2 / Straße <b>_--", "Team Rocket")


@dataclass(frozen=True)
class Tokens:
    """Made anew for every stack, unless EvalAI is another's.

    The installation and a human host are two users: each has a request budget of its own.
    """

    installation: str
    host: str
    participants: Mapping[str, str]  # team name -> token of its one member


def make_tokens() -> Tokens:
    return Tokens(_token(), _token(), {team: _token() for team in TEAMS})


def _token() -> str:
    return secrets.token_urlsafe(24)


def split_of(phase_pk: int) -> int:
    """The phase's one leaderboard."""
    return phase_pk + 1000


def standin_config(
    tokens: Tokens, queue_url: str, aws_url: str, region: str, requests_per_minute: int
) -> dict[str, object]:
    """The configuration file of embedded.evalai_standin."""
    users = {"leaderboard-flows": tokens.installation, "host": tokens.host}
    users |= {f"participant-{number}": tokens.participants[team] for number, team in enumerate(TEAMS, 1)}
    return {
        "users": [{"pk": pk, "name": name, "token": token} for pk, (name, token) in enumerate(users.items(), 1)],
        "challenges": [{"pk": CHALLENGE, "hosts": ["leaderboard-flows", "host"], "queue_url": queue_url}],
        "phases": [
            {"pk": pk, "challenge": CHALLENGE, "codename": codename, "partial": True} for codename, pk in PHASES.items()
        ],
        "splits": [_split(codename, pk) for codename, pk in PHASES.items()],
        "teams": [
            {"pk": number, "name": team, "members": [f"participant-{number}"]} for number, team in enumerate(TEAMS, 1)
        ],
        "requests_per_minute": requests_per_minute,
        "control": True,
        "sqs_endpoint_url": aws_url,
        "aws_region": region,
    }


def _split(codename: str, phase_pk: int) -> dict[str, object]:
    version = LeaderboardVersion.V1 if codename.startswith("leaderboard-10-") else LeaderboardVersion.V2
    return {"pk": split_of(phase_pk), "phase": phase_pk, "labels": LABELS[version]}
