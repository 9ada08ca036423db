"""EvalAI: whether the token is a host's and lasts, and whether both sides mean the same phases and leaderboards."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial

from blocks.evalai import host_check_client
from doctor.context import DoctorContext
from doctor.findings import Check, NotChecked
from evalai_api.client import EvalAIClient
from evalai_api.fields import PhaseRow, SplitRow
from evalai_api.token import token_claims
from evaluation.errors import EvaluationError, InvalidConfiguration
from evaluation.results.evalai_result import LABELS
from evaluation.submission.model import parse_phase

SOON = timedelta(days=30)
RANKING_LABEL = "Driving score"
CONFIG_REMEDY = "Correct it in the challenge's settings at EvalAI (docs/evalai.md has a challenge_config.yaml)."


def evalai_checks(context: DoctorContext) -> Iterator[Check]:
    yield Check("EvalAI: token", partial(_token, context))
    yield Check("EvalAI: phases", partial(_phases, context))
    yield Check("EvalAI: leaderboards", partial(_leaderboards, context))
    yield Check("EvalAI: challenge", partial(_challenge, context))


def _token(context: DoctorContext) -> str:
    challenge = context.challenge_pk
    claims = token_claims(context.evalai().auth_token)
    _client(context).phases(challenge)  # for hosts only
    owner = f", user {claims.user}" if claims.user is not None else ""
    if claims.expires_at is None:
        return f"a host's of challenge {challenge}{owner}; it does not say when it expires"
    day = f"{claims.expires_at:%Y-%m-%d}"
    if claims.expires_at - datetime.now(UTC) < SOON:
        raise InvalidConfiguration(
            f"The token of EvalAI expires on {day}",
            f"it is a host's of challenge {challenge}{owner}",
            "Refresh it on the user's profile at EvalAI, put it into the secret evalai, run `leaderboard setup`.",
        )
    return f"a host's of challenge {challenge}{owner}, until {day}"


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


def _leaderboards(context: DoctorContext) -> str:
    """EvalAI refuses a label that it does not know, and shows a row without the ranking label as 0."""
    challenge, client = context.challenge_pk, _client(context)
    ours = context.evalai().phases
    phases = [phase for phase in _phase_rows(context) if ours.get(str(phase.pk)) == phase.codename]
    splits = client.leaderboards(challenge)
    problems = [
        f"{phase.codename}: {problem}"
        for phase in phases
        if (problem := _labels_problem(context, phase, [each for each in splits if each.phase_pk == phase.pk]))
    ]
    if problems:
        raise InvalidConfiguration(
            f"Leaderboards of challenge {challenge} do not take the results", "; ".join(problems), CONFIG_REMEDY
        )
    return f"the labels of all {len(phases)} are those of the results"


def _labels_problem(context: DoctorContext, phase: PhaseRow, splits: list[SplitRow]) -> str:
    if len(splits) != 1:
        return f"it has {len(splits)} leaderboards, wanted is one"
    schema = splits[0].leaderboard_schema
    expected, found = LABELS[context.compute(parse_phase(phase.codename).cluster).leaderboard_version], schema.labels
    missing, extra = sorted({*expected} - {*found}), sorted({*found} - {*expected})
    said = [f"without {', '.join(missing)}"] if missing else []
    said += [f"with the unknown {', '.join(extra)}"] if extra else []
    if schema.default_order_by != RANKING_LABEL:
        said.append(f"ranked by {schema.default_order_by or 'nothing'} instead of {RANKING_LABEL}")
    return ", ".join(said)


def _challenge(context: DoctorContext) -> str:
    pk = context.challenge_pk
    phases, challenge = _phase_rows(context), _client(context).challenge(pk)
    wanted = {
        "remote_evaluation": challenge.remote_evaluation,
        "is_docker_based": challenge.is_docker_based,
        "allow_resuming_submissions": challenge.allow_resuming_submissions,
    }
    problems = [f"{name} is off" for name, value in wanted.items() if not value]
    notes = []
    for phase in phases:
        problem, note = _partial_results(context, phase)
        problems += [problem] if problem else []
        notes += [note] if note else []
    if problems:
        raise InvalidConfiguration(f"Challenge {pk} cannot be evaluated here", "; ".join(problems), CONFIG_REMEDY)
    return "; ".join(["remote evaluation, Docker images, resuming", *notes])


def _partial_results(context: DoctorContext, phase: PhaseRow) -> tuple[str, str]:
    """What is wrong, and what an operator should know, about a phase of a cluster that publishes partial results."""
    try:
        seconds = context.compute(parse_phase(phase.codename).cluster).partial_result_seconds
    except (EvaluationError, NotChecked):  # the checks of the phases and of the blocks say that
        return "", ""
    if seconds is None:
        return "", ""
    if not phase.partial_results:
        flag = "is_partial_submission_evaluation_enabled"
        return f"{phase.codename} gets partial results, and {flag} is off", ""
    most = phase.concurrent_submissions
    return "", f"{phase.codename}: a partial result frees its team's slot, so that more than {most} may run at once"


def _phase_rows(context: DoctorContext) -> list[PhaseRow]:
    return context.need(lambda: _client(context).phase_rows(context.challenge_pk), "EvalAI's phases")


def _client(context: DoctorContext) -> EvalAIClient:
    return host_check_client(context.evalai())
