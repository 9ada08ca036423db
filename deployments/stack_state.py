"""Where the running stack can be found: `.leaderboard/stack.json`, and the lock that its process holds."""

import contextlib
import fcntl
import os
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from deployments.settings import Settings
from evaluation.errors import InvalidConfiguration, ServiceUnavailable

# moto accepts anything; real credentials must never get near it.
EMBEDDED_CREDENTIALS = {"AWS_ACCESS_KEY_ID": "embedded", "AWS_SECRET_ACCESS_KEY": "embedded-secret-access-key"}
LOOPBACK = "127.0.0.1,localhost"  # for NO_PROXY: all of a stack is on this machine


class StackState(BaseModel):
    """What other commands need to reach a running stack. Its tokens are made up and good for nothing else."""

    model_config = ConfigDict(frozen=True)

    id: str
    pid: int
    ready: bool
    folder: Path = Field(description="The state folder, absolute.")
    prefect_url: str
    aws_url: str
    evalai_url: str
    region: str
    queue_url: str
    dead_letter_url: str
    work_pool: str
    challenge_pk: int
    phases: Mapping[str, int] = Field(description="Phase codename -> phase pk.")
    host_token: str = Field(repr=False)
    participant_tokens: Mapping[str, str] = Field(repr=False, description="Team name -> token of its member.")

    @property
    def shards(self) -> Path:
        """The folder of the shards' run directories."""
        return self.folder / "shards"

    @property
    def prefect_api_url(self) -> str:
        return f"{self.prefect_url}/api"

    def phase_pk(self, codename: str) -> int:
        """Raises InvalidConfiguration for a phase that the challenge does not have."""
        if codename not in self.phases:
            raise InvalidConfiguration(f"There is no phase {codename!r}", f"there are {', '.join(sorted(self.phases))}")
        return self.phases[codename]

    def team_token(self, team: str | None) -> str:
        """The token of the named team, or of the first one; raises InvalidConfiguration for an unknown team."""
        name = next(iter(self.participant_tokens)) if team is None else team
        if name not in self.participant_tokens:
            raise InvalidConfiguration(f"There is no team {name!r}", f"there are {', '.join(self.participant_tokens)}")
        return self.participant_tokens[name]


def write_state(settings: Settings, state: StackState) -> None:
    """Replace the file atomically, readable for its owner only."""
    new = settings.state_file.with_suffix(".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(state.model_dump_json(indent=2))
    new.replace(settings.state_file)


def read_state(settings: Settings) -> StackState:
    """The running stack; raises InvalidConfiguration where none runs, ServiceUnavailable while it starts."""
    state = stored_state(settings.state_file)
    if state is None or not _locked(settings):
        raise InvalidConfiguration(
            "No stack is running here", f"looked in {settings.state_dir}", "Start one in another terminal: make up"
        )
    if not state.ready:
        raise ServiceUnavailable("The stack is still starting", remedy="Try again in some seconds.")
    return state


def stored_state(path: Path) -> StackState | None:
    try:
        return StackState.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _locked(settings: Settings) -> bool:
    with contextlib.suppress(OSError), (settings.state_dir / "stack.lock").open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
