"""What follows the submissions of an installation: of the embedded stack as of any other, through its blocks."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from blocks import document_names
from blocks.artifact_bucket import ArtifactBucket
from blocks.evalai import EvalAI, host_check_client
from blocks.ledger_table import LedgerTable
from cli.submission_progress import Observer, Pace, Place, Progress
from deployments.installation import Installation
from deployments.settings import Settings
from deployments.stack_state import stored_state
from evalai_api.client import EvalAIClient
from evaluation.errors import EvaluationError, InvalidConfiguration, ServiceUnavailable
from evaluation.lifecycle.ledger_entry import LedgerEntry
from prefect_api.blocks import load_saved_block

EMBEDDED_PACE = Pace(look=0.5, ask_evalai=4.0)


@dataclass(frozen=True)
class Challenge:
    """EvalAI's block, its client for commands, and where each cluster keeps its submissions."""

    evalai: EvalAI
    client: EvalAIClient
    places: dict[str, Place]

    @property
    def pk(self) -> int:
        """EvalAI's id of the challenge; raises InvalidConfiguration where it is not set."""
        if self.evalai.challenge_pk is None:
            raise InvalidConfiguration(
                "The challenge is not known",
                "the block evalai does not name it",
                "Set LEADERBOARD_CHALLENGE_PK and run `leaderboard setup`.",
            )
        return self.evalai.challenge_pk

    @property
    def phases(self) -> dict[int, str]:
        return {int(pk): codename for pk, codename in self.evalai.phases.items()}

    def entries(self) -> Iterator[LedgerEntry]:
        """Every claimed submission of every cluster. Raises what reading a ledger raises."""
        for place in self.places.values():
            yield from place.ledger.entries()


def load_challenge() -> Challenge:
    """From the blocks of the installation that this context talks to; raises InvalidConfiguration."""
    evalai = load_saved_block(EvalAI, document_names.EVALAI)
    places = {
        name: Place(load_saved_block(LedgerTable, name), load_saved_block(ArtifactBucket, name))
        for name in evalai.clusters
    }
    return Challenge(evalai, host_check_client(evalai), places)


def observer_of(challenge: Challenge, target: Installation) -> Observer:
    if target.stack is None:
        return Observer(challenge.client.submission_row, challenge.places, challenge.phases)
    from embedded.evalai_website import EvalAIWebsite  # only where a stack runs

    # As the challenge's other host, whose request budget is its own: the flow runs need theirs.
    ask = EvalAIWebsite(target.stack).submission
    return Observer(ask, challenge.places, challenge.phases, EMBEDDED_PACE)


def while_it_lasts(snapshots: Iterable[Progress], target: Installation, settings: Settings) -> Iterator[Progress]:
    """The snapshots; raises ServiceUnavailable where the embedded stack that they are of has stopped.

    Another stack may have come in its place, which knows other submissions and tokens.
    """
    following = iter(snapshots)
    while True:
        try:
            seen = next(following)
        except StopIteration:
            return
        except EvaluationError as error:
            time.sleep(1)  # a stack that stops ends its parts first
            if gone := _gone(target, settings):
                raise gone from error
            raise
        if gone := _gone(target, settings):
            raise gone
        yield seen


def _gone(target: Installation, settings: Settings) -> ServiceUnavailable | None:
    if target.stack is None:
        return None
    now = stored_state(settings.state_file)
    if now is not None and now.id == target.stack.id:
        return None
    cause = "another one has taken its place, with other submissions" if now else "its submissions went with it"
    return ServiceUnavailable("The stack was stopped", cause, "Submit again: `leaderboard submit`.")
