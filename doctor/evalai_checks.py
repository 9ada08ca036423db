"""EvalAI: whether the token is a host's, and whether both sides mean the same phases."""

from collections.abc import Iterator
from functools import partial

from doctor.context import DoctorContext
from doctor.findings import Check
from evalai_api.client import FINAL, EvalAIClient
from evalai_api.http import RetryPolicy, Timeouts
from evaluation.errors import InvalidConfiguration

TIMEOUTS, RETRIES = Timeouts(connect=5, read=30), RetryPolicy(attempts=2, total_seconds=40)


def evalai_checks(context: DoctorContext) -> Iterator[Check]:
    yield Check("EvalAI: token", partial(_token, context))
    yield Check("EvalAI: phases", partial(_phases, context))


def _token(context: DoctorContext) -> str:
    challenge = context.challenge_pk
    rows = _client(context).submissions(challenge)  # for hosts only
    going = sum(1 for row in rows if row.status not in FINAL)
    return f"a host's of challenge {challenge}, with {len(rows)} submissions, {going} of them not at their end"


def _phases(context: DoctorContext) -> str:
    challenge, ours = context.challenge_pk, {int(pk): codename for pk, codename in context.evalai().phases.items()}
    theirs = _client(context).phases(challenge)
    differing = [
        f"{pk} is {theirs.get(pk) or 'unknown'} at EvalAI and {ours.get(pk) or 'unknown'} here"
        for pk in sorted({*ours, *theirs})
        if ours.get(pk) != theirs.get(pk)
    ]
    if differing:
        raise InvalidConfiguration(
            f"The phases of challenge {challenge} are not those of the secret evalai-tracks",
            "; ".join(differing),
            "Correct the secret, then run `leaderboard setup`.",
        )
    return f"the same {len(ours)} on both sides"


def _client(context: DoctorContext) -> EvalAIClient:
    """Two requests outside of the installation's budget, which leaves some for people."""
    evalai = context.evalai()
    return EvalAIClient(evalai.api_server, evalai.auth_token, throttle=lambda: None, timeouts=TIMEOUTS, retries=RETRIES)
