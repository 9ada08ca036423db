"""A real EvalAI beside the embedded rest: `leaderboard up --evalai URL`. The phases come from the server itself."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from embedded.aws import CLUSTERS
from embedded.challenge import Tokens
from evalai_api.budget import NoBudget
from evalai_api.client import EvalAIClient
from evalai_api.http import RetryPolicy, Timeouts
from evaluation.errors import InvalidConfiguration
from evaluation.submission.model import parse_phase

FORM = '{"challenge": 3, "host": "<token>", "teams": {"<team>": "<token of a member>"}}'


class EvalAIAccess(BaseModel):
    """The file of `--evalai-access`: who this machine is at EvalAI. In a file, since everybody sees a command."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    challenge: int = Field(gt=0, description="The challenge's id.")
    host: SecretStr = Field(description="Token of a host, for the commands of this machine.")
    installation: SecretStr | None = Field(
        default=None, description="Token of another host, for the flows: each user has a request budget of its own."
    )
    teams: Mapping[str, SecretStr] = Field(min_length=1, description="Team name -> token of a member.")


@dataclass(frozen=True)
class ExternalEvalAI:
    """A server that somebody else runs. `phases` maps codename to id, of the phases that a cluster here can drive."""

    url: str
    challenge_pk: int
    phases: Mapping[str, int]
    tokens: Tokens


def read_access(file: Path) -> EvalAIAccess:
    """Raises InvalidConfiguration naming the file and the first wrong field, never a token."""
    try:
        return EvalAIAccess.model_validate_json(file.read_bytes())
    except OSError as error:
        raise InvalidConfiguration(
            f"The file {file} cannot be read", str(error.strerror), f"Its form: {FORM}"
        ) from error
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        field = ".".join(map(str, first["loc"])) or "the file"
        problem = f"{field}: {first['msg']}"
    raise InvalidConfiguration(f"The file {file} is wrong", problem, f"Its form: {FORM}")


def find_evalai(url: str, access: EvalAIAccess) -> ExternalEvalAI:
    """Ask the server for the challenge's phases; raises InvalidConfiguration where none fits, ServiceUnavailable."""
    client = EvalAIClient(
        url,
        access.host,
        budget=NoBudget(),
        timeouts=Timeouts(connect=5, read=30, total=40),
        retries=RetryPolicy(attempts=2, total_seconds=40),
    )
    all_phases = client.phases(access.challenge)
    phases = {codename: pk for pk, codename in all_phases.items() if _is_driven_here(codename)}
    if not phases:
        raise InvalidConfiguration(
            f"No phase of challenge {access.challenge} can be driven here",
            f"its phases are {json.dumps(sorted(all_phases.values()))}, the clusters here {', '.join(CLUSTERS)}",
            "Name a phase <cluster>-<track>, e.g. leaderboard-20-SENSORS (docs/evalai.md).",
        )
    installation = (access.installation or access.host).get_secret_value()
    teams = {team: token.get_secret_value() for team, token in access.teams.items()}
    tokens = Tokens(installation, access.host.get_secret_value(), teams)
    return ExternalEvalAI(url.rstrip("/"), access.challenge, phases, tokens)


def _is_driven_here(codename: str) -> bool:
    try:
        return parse_phase(codename).cluster in CLUSTERS
    except InvalidConfiguration:
        return False
