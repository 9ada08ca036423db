"""The evaluator's writes: update_submission and update_partially_evaluated_submission, PUT and PATCH.

No write checks the present status: a late one undoes a cancellation, as in the real server.
"""

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import cast

from embedded.evalai_standin.config import Split
from embedded.evalai_standin.responses import Answer, Call, Refusal, broken, id_field, refuse, success, text_field
from embedded.evalai_standin.serializers import shown_submission
from embedded.evalai_standin.state import LeaderboardEntry, State, Submission, now
from evaluation.submission.model import SubmissionStatus as Status

_UPDATED = "Submission result has been successfully updated"
_NOT_AUTHORIZED = "Sorry, you are not authorized to make this request!"


@dataclass(frozen=True)
class _Scores:
    """One entry of a result, found to be in order."""

    split: Split
    accuracies: dict[str, object]
    public: bool


def put_report(state: State, call: Call) -> Answer:
    _require_host(state, call, staff_too=True)
    fields = call.fields()
    row = state.known_submission(id_field(fields, "submission"))
    status = _status(fields, {Status.FINISHED, Status.FAILED, Status.CANCELLED})
    logs = _logs(fields, "stdout", "stderr", "environment_log")
    scores = _checked_result(state, fields, row, strict=True) if status is Status.FINISHED else []
    _book(state, row, scores, merge=False)
    _finish(state, call, row, status, logs)
    return success(_UPDATED)


def patch_report(state: State, call: Call) -> Answer:
    _require_host(state, call, staff_too=True)
    fields = call.fields()
    row = state.known_submission(id_field(fields, "submission"))
    status = _status(fields, {Status.QUEUED, Status.RUNNING})
    return _start(state, call, row, status, fields)


def put_partial(state: State, call: Call) -> Answer:
    _require_host(state, call, staff_too=False)
    fields = call.fields()
    row = state.known_submission(id_field(fields, "submission"))
    status = _status(fields, {Status.FINISHED, Status.FAILED, Status.CANCELLED, Status.PARTIALLY_EVALUATED})
    logs = _logs(fields, "stdout", "stderr")
    has_result = status in (Status.FINISHED, Status.PARTIALLY_EVALUATED)
    _book(state, row, _checked_result(state, fields, row, strict=False) if has_result else [], merge=False)
    _finish(state, call, row, status, logs)
    return success(_UPDATED)


def patch_partial(state: State, call: Call) -> Answer:
    _require_host(state, call, staff_too=False)
    fields = call.fields()
    row = state.known_submission(id_field(fields, "submission"))
    status = _status(fields, {Status.RUNNING, Status.PARTIALLY_EVALUATED, Status.FINISHED})
    if status is Status.RUNNING:
        return _start(state, call, row, status, fields)
    logs = _logs(fields, *(name for name in ("stdout", "stderr") if name in fields))
    _book(state, row, _checked_result(state, fields, row, strict=False), merge=True)
    _finish(state, call, row, status, logs)
    return success(_UPDATED)


def _require_host(state: State, call: Call, staff_too: bool) -> None:
    (challenge,) = call.ids
    if not (state.is_host(call.caller, challenge) or (staff_too and call.caller.staff)):
        raise refuse(400, _NOT_AUTHORIZED)


def _status(fields: Mapping[str, object], allowed: Collection[str]) -> Status:
    wanted = text_field(fields, "submission_status").lower()
    if wanted not in allowed:
        raise refuse(400, "Sorry, submission status is invalid")
    return Status(wanted)


def _start(state: State, call: Call, row: Submission, status: Status, fields: Mapping[str, object]) -> Answer:
    name = text_field(fields, "job_name")
    if name:
        row.job_name.append(name.lower())
    state.set_status(row, status, call.caller.name)
    row.started_at = now()
    return Answer(200, shown_submission(state, row, call.user, call.base_url))


def _logs(fields: Mapping[str, object], *names: str) -> dict[str, str]:
    return {name: text_field(fields, name) for name in names}


def _finish(state: State, call: Call, row: Submission, status: Status, logs: Mapping[str, str]) -> None:
    state.set_status(row, status, call.caller.name, call.fields())
    row.completed_at = now()
    if "stdout" in logs:
        row.stdout_file = state.store(row, logs["stdout"])
    if "stderr" in logs:
        row.stderr_file = state.store(row, logs["stderr"])
    if "environment_log" in logs:
        row.environment_log_file = state.store(row, logs["environment_log"])


def _checked_result(state: State, fields: Mapping[str, object], row: Submission, strict: bool) -> list[_Scores]:
    """Raises Refusal in the real server's words. `strict`: unknown metrics are refused even in a partial phase."""
    phase = id_field(fields, "challenge_phase")
    try:
        result = json.loads(cast("str", fields.get("result", "")))  # a list is refused by its TypeError
    except (ValueError, TypeError) as error:
        raise refuse(
            400, f"`result` key contains invalid data with error {error}.Please try again with correct format."
        ) from error
    if not isinstance(result, list | dict) or not all(isinstance(entry, dict) for entry in result):
        raise broken()
    checked = [_checked_entry(state, phase, entry, strict) for entry in result]
    for scores in checked:
        if sum(e.submission == row.pk and e.split == scores.split.pk for e in state.entries) > 1:
            raise broken()  # MultipleObjectsReturned
    return checked


def _checked_entry(state: State, phase: int | None, entry: Mapping[str, object], strict: bool) -> _Scores:
    codename = entry.get("split")
    split = next((s for s in state.config.splits if s.phase == phase and s.codename == codename), None)
    if split is None:
        raise refuse(400, f"Challenge Phase Split does not exist with phase_id: {phase} andsplit codename: {codename}")
    accuracies = entry.get("accuracies")
    if not isinstance(accuracies, dict):
        raise broken()
    _check_metrics(state, split, accuracies, strict)
    return _Scores(split, accuracies, entry.get("show_to_participant") is True)


def _check_metrics(state: State, split: Split, accuracies: Mapping[str, object], strict: bool) -> None:
    found = state.phase(split.phase)
    unknown = [label for label in accuracies if label not in split.labels]
    if unknown and (strict or found is None or not found.partial):
        where = "" if strict else f" of challenge phase: {split.phase}"
        raise refuse(400, f"Following metrics are missing in theleaderboard data: {unknown}{where}")
    malformed = [(label, type(value)) for label, value in accuracies.items() if not isinstance(value, int | float)]
    if malformed:
        raise refuse(400, f"Values for following metrics are not offloat/int: {malformed}")
    if not all(math.isfinite(value) for value in accuracies.values() if isinstance(value, int | float)):
        raise Refusal(Answer(400, {"result": ["Value must be valid JSON."]}))


def _book(state: State, row: Submission, scores: list[_Scores], merge: bool) -> None:
    """Write leaderboard rows; `merge` adds to the row that an earlier PUT made, and needs one."""
    before = {entry.split: entry for entry in state.entries if entry.submission == row.pk}
    for item in scores:
        if merge and item.split.pk not in before:
            raise refuse(
                400,
                f"Leaderboard Data does not exist with phase_id: {item.split.phase} andsubmission id: {row.pk}",
            )
    for item in scores:
        entry = before.get(item.split.pk)
        if entry is None:
            pk = max((e.pk for e in state.entries), default=0) + 1
            state.entries.append(LeaderboardEntry(pk, row.pk, item.split.pk, dict(item.accuracies)))
        else:
            entry.result = (entry.result if merge else {}) | item.accuracies
    public = [item.accuracies for item in scores if item.public]
    row.submission_result_file = state.store(row, str(public), "json")
