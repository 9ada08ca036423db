"""What a stand-in server starts with: who exists and what they may do."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from evaluation.errors import InvalidConfiguration


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class User(_Part):
    """`token` is what goes after `Bearer`; `expiring_token` after `Token`; `access_token` is one of the wrong kind."""

    pk: int
    name: str
    token: str
    refreshed_tokens: tuple[str, ...] = ()  # earlier ones, which the server does not accept any more
    expiring_token: str | None = None
    access_token: str | None = None
    staff: bool = False
    verified: bool = True


class Challenge(_Part):
    """`hosts` are names of users. Without a queue no message is sent."""

    pk: int
    title: str = "CARLA Leaderboard"
    hosts: tuple[str, ...] = ()
    queue_url: str | None = None
    remote_evaluation: bool = True
    docker_based: bool = True
    allow_resuming: bool = True


class Phase(_Part):
    """`partial` phases take metrics that the leaderboard does not know; a private one takes no submissions."""

    pk: int
    challenge: int
    codename: str
    partial: bool = False
    disable_logs: bool = False
    public: bool = True
    concurrent_submissions: int = Field(default=1000, gt=0, description="Of one team, in a state of progress.")


class Split(_Part):
    """A leaderboard. `order_by` is the label that ranks, the first one unless stated."""

    pk: int
    phase: int
    labels: tuple[str, ...] = Field(min_length=1)
    codename: str = "leaderboard"
    name: str = "Leaderboard"
    order_by: str | None = None

    @property
    def ranking_label(self) -> str:
        return self.order_by or self.labels[0]


class Team(_Part):
    """`members` are names of users."""

    pk: int
    name: str
    members: tuple[str, ...] = ()


class Config(_Part):
    """The whole world of one server. The file is this model as JSON."""

    users: tuple[User, ...]
    challenges: tuple[Challenge, ...]
    phases: tuple[Phase, ...]
    splits: tuple[Split, ...] = ()
    teams: tuple[Team, ...] = ()
    requests_per_minute: int = 60
    sqs_endpoint_url: str | None = None
    aws_region: str = "us-west-2"
    first_submission: int = Field(default=1, gt=0)
    control: bool = False  # serve the paths of control.py, which the real server does not have


def read_config(file: Path) -> Config:
    """Raises InvalidConfiguration naming the file and the first wrong field."""
    try:
        return Config.model_validate_json(file.read_bytes())
    except OSError as error:
        raise InvalidConfiguration(f"The configuration {file} cannot be read", str(error.strerror)) from error
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or "the file"
        raise InvalidConfiguration(f"The configuration {file} is wrong", f"{field}: {first['msg']}") from error
