"""The Prefect block of EvalAI: where it is, whose token, which phases, and the one request budget."""

import httpx
from prefect.blocks.core import Block
from prefect.concurrency.asyncio import ConcurrencySlotAcquisitionError
from prefect.concurrency.sync import rate_limit
from pydantic import Field, SecretStr

from blocks.provenance_key import ProvenanceKey
from evalai_api.client import EvalAIClient
from evalai_api.http import RetryPolicy, Timeouts
from evaluation.errors import InvalidConfiguration, ServiceUnavailable
from evaluation.submission.model import Phase, parse_phase

# EvalAI allows a user 60 requests in 60 s, over all endpoints. A global concurrency limit with decay lets through its
# slots at once and then what decays, so that at most 8 + 0.8 * 60 = 56 fall into any minute; the rest is for the
# people who use the same account in a browser.
RATE_LIMIT_NAME = "evalai"
REQUESTS_PER_MINUTE = 60  # EvalAI's own limit, which the next two keep to
RATE_LIMIT_SLOTS = 8
RATE_LIMIT_DECAY_PER_SECOND = 0.8
# Prefect counts whole slots and starts counting anew at each refusal, so callers who queue up get about 0.6 a second
# of it (measured on 3.8.8 with SQLite: ten of them 36 slots in 45 s, nobody waited longer than 12 s).
# A write takes the slots of its read and its own before the read, one after the other, so its read may be sent later
# than its slot was taken, by one wait: what is left below EvalAI's limit absorbs that, else a 429 is waited out.
# A caller waits its turn at most this long.
RATE_LIMIT_WAIT_SECONDS = 600.0


class EvalAI(Block):
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
            throttle=lambda: take_slot(self.rate_limit),
            challenge_pk=self.challenge_pk,
            timeouts=timeouts,
            retries=retries,
        )


def host_check_client(evalai: EvalAI) -> EvalAIClient:
    """For a command that a person waits for: a few requests outside of the budget, which leaves some for people."""
    return EvalAIClient(
        evalai.api_server,
        evalai.auth_token,
        throttle=lambda: None,
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


def take_slot(limit: str, wait_seconds: float = RATE_LIMIT_WAIT_SECONDS) -> None:
    """Wait for a slot of the budget; blocks, so call it in a thread.

    Raises InvalidConfiguration where the limit does not exist or has no decay, ServiceUnavailable where Prefect's
    server does not answer or no slot came free in `wait_seconds`.
    """
    try:
        rate_limit(limit, occupy=1, timeout_seconds=wait_seconds, strict=True)
    except TimeoutError as error:
        raise ServiceUnavailable(
            "EvalAI's request budget is used up", f"no slot of the limit {limit!r} came free in {wait_seconds:g} s"
        ) from error
    except ConcurrencySlotAcquisitionError as error:
        # One class for a missing limit, a refusal and an unreachable server; its cause distinguishes them.
        cause = error.__cause__
        refused = isinstance(cause, httpx.HTTPStatusError) and cause.response.status_code < 500
        if cause is None or refused:
            raise InvalidConfiguration(
                f"Prefect has no usable rate limit {limit!r} for EvalAI", str(error), "Run `leaderboard setup`."
            ) from error
        raise ServiceUnavailable("Prefect's server does not hand out EvalAI's request budget", str(error)) from error
