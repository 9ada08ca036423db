"""The Prefect block of EvalAI: where it is, whose token, which phases, and the one request budget."""

from prefect.blocks.core import Block
from pydantic import Field, SecretStr

from blocks.provenance_key import ProvenanceKey
from blocks.schema_once import SchemaOnce
from evalai_api.budget import NoBudget
from evalai_api.client import EvalAIClient
from evalai_api.http import RetryPolicy, Timeouts
from evaluation.errors import InvalidConfiguration, ServiceUnavailable
from evaluation.submission.model import Phase, parse_phase
from prefect_api.request_budget import PrefectBudget

RATE_LIMIT_NAME = "evalai"


class EvalAI(SchemaOnce, Block):
    """EvalAI as one user, the challenge's host, sees it."""

    _block_type_name = "EvalAI"
    _block_type_slug = "evalai"
    _description = "The EvalAI server: messages' submissions, statuses, results."

    api_server: str = Field(description="Address of EvalAI's API, e.g. https://eval.ai; secret evalai, api_server.")
    auth_token: SecretStr = Field(description="Token of a host of the challenge; secret evalai, auth_token.")
    phases: dict[str, str] = Field(description="Phase id to codename <cluster>-<track>; the secret evalai-tracks.")
    challenge_pk: int | None = Field(
        default=None,
        description="Refuse messages of other challenges, which share the queue in EvalAI's development mode.",
    )
    provenance_key: SecretStr | None = Field(
        default=None, description="Signs where results come from; secret evalai, provenance_key. Unsigned without."
    )
    rate_limit: str = Field(
        default=RATE_LIMIT_NAME, description="Prefect's global concurrency limit that holds the request budget."
    )

    def phase(self, phase_pk: int) -> Phase:
        """The phase of that id; raises InvalidConfiguration where evalai-tracks lacks it or its codename is wrong."""
        codename = self.phases.get(str(phase_pk))
        if codename is None:
            known = ", ".join(sorted(self.phases)) or "none"
            raise InvalidConfiguration(
                f"Phase {phase_pk} is not in the secret evalai-tracks",
                f"it knows the phases {known}",
                "Add the phase's id and codename to the secret, then run `leaderboard setup`.",
            )
        return parse_phase(codename)

    @property
    def clusters(self) -> tuple[str, ...]:
        """The clusters that the phases name; raises InvalidConfiguration for a codename that names none."""
        return tuple(sorted({parse_phase(codename).cluster for codename in self.phases.values()}))

    def signing_key(self) -> ProvenanceKey | None:
        """What signs provenance; None where the secret holds none. Raises InvalidConfiguration."""
        return ProvenanceKey(self.provenance_key) if self.provenance_key else None

    def client(self, timeouts: Timeouts | None = None, retries: RetryPolicy | None = None) -> EvalAIClient:
        """A client whose every request takes a slot of the installation's one budget, kept by Prefect's server."""
        return EvalAIClient(
            self.api_server,
            self.auth_token,
            budget=PrefectBudget(self.rate_limit),
            challenge_pk=self.challenge_pk,
            timeouts=timeouts,
            retries=retries,
        )


def host_check_client(evalai: EvalAI) -> EvalAIClient:
    """For a command that a person waits for: a few requests outside of the budget, which leaves some for people."""
    return EvalAIClient(
        evalai.api_server,
        evalai.auth_token,
        budget=NoBudget(),
        timeouts=Timeouts(connect=5, read=30, total=40),
        retries=RetryPolicy(attempts=2, total_seconds=40),
    )


def require_host(evalai: EvalAI) -> str:
    """Whether the token is a host's of the challenge, in words; raises InvalidConfiguration where it is not.

    An outage of EvalAI, or a challenge that is not named, refuses nothing.
    """
    if evalai.challenge_pk is None:
        return "EvalAI's token: not checked, LEADERBOARD_CHALLENGE_PK is not set"
    try:
        host_check_client(evalai).phases(evalai.challenge_pk)  # which EvalAI shows to hosts only
    except ServiceUnavailable as outage:
        return f"EvalAI's token: not checked ({outage.summary})"
    return f"EvalAI's token, a host's of challenge {evalai.challenge_pk}"
