"""How EvalAI's serializers show a row: field names, order and oddities as recorded."""

from datetime import datetime

from embedded.evalai_standin.challenge_defaults import CHALLENGE_DEFAULTS
from embedded.evalai_standin.config import Challenge, Phase, Split, User
from embedded.evalai_standin.state import LeaderboardEntry, State, Submission

_START, _END = "2026-01-01T00:00:00.000000Z", "2036-01-01T00:00:00.000000Z"
_TEXTS: dict[str, object] = {
    "method_name": "",
    "method_description": "",
    "project_url": "",
    "publication_url": "",
    "is_public": True,
    "is_flagged": False,
}


def shown_time(value: datetime | None) -> str | None:
    return (
        None
        if value is None
        else value.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if value.microsecond else "%Y-%m-%dT%H:%M:%SZ")
    )


def shown_submission(state: State, row: Submission, viewer: User | None, base_url: str) -> dict[str, object]:
    """`environment_log_file` is there for the challenge's hosts only."""

    def url(path: str | None) -> str | None:
        return None if path is None else f"{base_url}/media/{path}"

    texts = _TEXTS | row.texts
    environment = {"environment_log_file": url(row.environment_log_file)}
    return {
        "id": row.pk,
        "participant_team": row.team.pk,
        "participant_team_name": row.team.name,
        "execution_time": execution_time(row),
        "challenge_phase": row.phase,
        "created_by": row.created_by,
        "status": row.status.value,
        "input_file": url(row.input_file),
        "submission_input_file": None,
        "stdout_file": url(row.stdout_file),
        "stderr_file": url(row.stderr_file),
        **(environment if viewer is not None and state.is_host(viewer, row.challenge) else {}),
        "started_at": shown_time(row.started_at),
        "completed_at": shown_time(row.completed_at),
        "submitted_at": shown_time(row.submitted_at),
        "rerun_resumed_at": shown_time(row.rerun_resumed_at),
        **{name: texts[name] for name in _TEXTS},
        "ignore_submission": row.deleted,
        "submission_result_file": url(row.submission_result_file),
        "when_made_public": None,
        "is_baseline": texts.get("is_baseline", False),
        "job_name": list(row.job_name),
        "submission_metadata": row.metadata,
        "is_verified_by_host": texts.get("is_verified_by_host", False),
    }


def execution_time(row: Submission) -> float | str:
    """Seconds, or the word "None"."""
    if row.started_at is None or row.completed_at is None:
        return "None"
    return (row.completed_at - row.started_at).total_seconds()


def shown_challenge(challenge: Challenge) -> dict[str, object]:
    """The challenge's own page, as far as this server knows one; the rest is as the recorded challenge had it."""
    return CHALLENGE_DEFAULTS | {
        "id": challenge.pk,
        "title": challenge.title,
        "slug": f"{challenge.title.lower().replace(' ', '-')}-None",
        "start_date": _START,
        "end_date": _END,
        "is_docker_based": challenge.docker_based,
        "remote_evaluation": challenge.remote_evaluation,
        "allow_resuming_submissions": challenge.allow_resuming,
        "queue": (challenge.queue_url or "").rpartition("/")[2],
    }


def shown_phase(challenge: Challenge, phase: Phase, for_host: bool) -> dict[str, object]:
    common: dict[str, object] = {
        "id": phase.pk,
        "name": phase.codename,
        "description": "d",
        "leaderboard_public": True,
        "start_date": _START,
        "end_date": _END,
        "challenge": challenge.pk,
        "max_submissions_per_day": 100000,
        "max_submissions_per_month": 100000,
        "max_submissions": 100000,
        "submission_artifact_retention_policy": "keep_forever",
        "is_public": phase.public,
        "is_active": True,
        "is_submission_public": True,
        "codename": phase.codename,
        "slug": f"{challenge.title}-{phase.codename}-{challenge.pk}".lower().replace(" ", "-"),
        "max_concurrent_submissions_allowed": phase.concurrent_submissions,
        "is_restricted_to_select_one_submission": False,
        "submission_meta_attributes": None,
        "is_partial_submission_evaluation_enabled": phase.partial,
        "allowed_submission_file_types": ".json",
        "default_submission_meta_attributes": None,
        "allowed_email_ids": [],
        "disable_logs": phase.disable_logs,
        "is_submission_paused": False,
    }
    hosts_only: dict[str, object] = {
        "annotations_uploaded_using_cli": False,
        "test_annotation": None,
        "environment_image": None,
        "config_id": None,
    }
    return common | hosts_only if for_host else common


def shown_split(phase: Phase, split: Split) -> dict[str, object]:
    return {
        "id": split.pk,
        "dataset_split": 1,
        "challenge_phase": split.phase,
        "challenge_phase_name": phase.codename,
        "dataset_split_name": split.name,
        "visibility": 3,
        "show_leaderboard_by_latest_submission": False,
        "show_execution_time": False,
        "show_scores_on_leaderboard": True,
        "leaderboard_schema": _schema(split),
        "is_multi_metric_leaderboard": True,
    }


def shown_entry(split: Split, entry: LeaderboardEntry, row: Submission, score: float) -> dict[str, object]:
    texts = _TEXTS | row.texts
    return {
        "id": entry.pk,
        "submission__participant_team": row.team.pk,
        "submission__participant_team__team_name": row.team.name,
        "submission__participant_team__team_url": "",
        "submission__is_baseline": texts.get("is_baseline", False),
        "submission__is_public": texts["is_public"],
        "challenge_phase_split": split.pk,
        "result": [entry.result.get(label, "#") for label in split.labels],
        "error": None,
        "leaderboard__schema": _schema(split),
        "submission__submitted_at": shown_time(row.submitted_at),
        "submission__method_name": texts["method_name"],
        "submission__id": row.pk,
        "submission__submission_metadata": row.metadata,
        "submission__is_verified_by_host": texts.get("is_verified_by_host", False),
        "filtering_score": score,
        "filtering_error": 0,
    }


def _schema(split: Split) -> dict[str, object]:
    return {"labels": list(split.labels), "default_order_by": split.ranking_label}
