"""What participants and hosts do to submissions: submit, cancel, resume, re-run, delete."""

import json
from datetime import datetime

from embedded.evalai_standin.config import Phase, Team
from embedded.evalai_standin.queue import again_content, new_content, resent_content
from embedded.evalai_standin.responses import Answer, Call, Refusal, Upload, broken, deny, refuse, success
from embedded.evalai_standin.serializers import shown_submission
from embedded.evalai_standin.state import State, Submission, now
from evaluation.submission.model import SubmissionStatus as Status

_MAY_BE_SET = ("method_name", "method_description", "project_url", "publication_url", "is_public", "is_flagged")
_BEING_PROCESSED = frozenset({Status.SUBMITTED, Status.SUBMITTING, Status.RESUMING, Status.QUEUED, Status.RUNNING})
_MAY_BE_SET_TOO = ("is_baseline", "is_verified_by_host")  # by participants as well, as recorded


def create_submission(state: State, call: Call) -> Answer:
    challenge, phase_pk = call.ids
    phase, team = state.phase(phase_pk), _team(state, call)
    if phase is None or phase.challenge != challenge:
        raise refuse(400, "Challenge Phase does not exist")
    if not phase.public and not state.is_host(call.caller, challenge):
        raise refuse(403, "Sorry, cannot accept submissions since challenge phase is not public")
    _require_a_free_slot(state, team, phase)
    fields = call.fields()
    upload = fields.get("input_file")
    if not isinstance(upload, Upload):
        raise refuse(400, "The file URL is missing!")
    image = _image_of(upload)
    if "status" not in fields:
        raise Refusal(Answer(406, {"status": ["This field is required."]}))
    row = state.add_submission(team, call.caller, phase, image)
    row.texts = {name: fields[name] for name in _MAY_BE_SET if name in fields}
    state.media[row.input_file] = upload.content
    state.publish(row, new_content(challenge, phase_pk, image, row.pk))
    return Answer(201, shown_submission(state, row, call.user, call.base_url))


def update_meta(state: State, call: Call) -> Answer:
    """Cancel, among others. A host of the challenge in the path may change any submission, whatever its challenge."""
    challenge, pk = call.ids
    row = state.submissions.get(pk)
    if not state.is_host(call.caller, challenge):
        team = state.team_of(call.caller)
        if team is None:
            raise deny(404, "ParticipantTeam None does not exist")
        if row is not None and row.team.pk != team.pk:
            row = None
    if row is None:
        raise refuse(404, f"Submission {pk} does not exist")
    fields = call.fields()
    _set(state, row, call, fields)
    return Answer(200, shown_submission(state, row, call.user, call.base_url))


def resume(state: State, call: Call) -> Answer:
    row = _known(state, call)
    if row.deleted:
        raise refuse(400, "Deleted submissions can't be resumed")
    challenge = state.challenge(row.challenge)
    if row.status is not Status.FAILED or challenge is None or not challenge.remote_evaluation:
        raise refuse(400, "Only failed submissions can be resumed")
    if not challenge.allow_resuming:
        raise refuse(406, f"Challenge {challenge.title} does not allow resuming submissions.")
    if not state.is_host(call.caller, row.challenge):
        raise refuse(403, "Only challenge hosts are allowed to resume a submission")
    state.set_status(row, Status.RESUMING, call.caller.name)
    row.rerun_resumed_at = now()
    _publish_again(state, row)
    return success("Submission is successfully resumed")


def re_run(state: State, call: Call) -> Answer:
    row = _known(state, call)
    if not (state.is_host(call.caller, row.challenge) or call.caller.staff):
        raise refuse(403, "Only challenge hosts or admins are allowed to re-run a submission")
    if row.deleted:
        raise refuse(400, "Deleted submissions can't be re-run")
    again = state.copy_for_re_run(row, call.caller.name)
    state.set_status(row, Status.CANCELLED, call.caller.name)
    _publish_again(state, again)
    return success("Submission is successfully submitted for re-running")


def send_message(state: State, call: Call) -> Answer:
    """A participant sends the message of a submission once more: whatever its status, and without its image."""
    phase, pk = call.ids
    row = state.known_submission(pk)
    if state.phase(phase) is None:
        raise deny(404, f"ChallengePhase {phase} does not exist")
    if row.phase != phase:
        raise refuse(403, "Submission does not belong to this challenge phase")
    if row.team != state.team_of(call.caller):
        raise refuse(403, "Submission does not belong to your participant team")
    state.publish(row, resent_content(row.challenge, phase, pk))
    return Answer(200, {})


def delete_submission(state: State, call: Call) -> Answer:
    """It stays, and is ignored."""
    (pk,) = call.ids
    row = state.submissions.get(pk)
    if row is None:
        raise refuse(404, f"Submission {pk} does not exist")
    if not (call.caller.pk == row.created_by or state.is_host(call.caller, row.challenge)):
        raise refuse(401, "Sorry, you are not authorized to access this submission.")
    row.deleted = True
    return Answer(200, shown_submission(state, row, call.user, call.base_url))


def _team(state: State, call: Call) -> Team:
    team = state.team_of(call.caller)
    if team is None:
        raise refuse(403, "You haven't participated in the challenge")
    return team


def _require_a_free_slot(state: State, team: Team, phase: Phase) -> None:
    """`partially_evaluated` does not count as being processed: a first partial result frees its team's slot."""
    going = sum(
        row.team.pk == team.pk and row.phase == phase.pk and row.status in _BEING_PROCESSED
        for row in state.submissions.values()
    )
    if going >= phase.concurrent_submissions:
        raise refuse(
            406,
            f"You have {going} submissions that are being processed. "
            "Please wait for them to finish and then try again.",
        )


def _known(state: State, call: Call) -> Submission:
    (pk,) = call.ids
    if pk not in state.submissions:
        raise refuse(404, f"Submission {pk} does not exist")
    return state.submissions[pk]


def _image_of(upload: Upload) -> object:
    """Whatever stands there: EvalAI checks nothing about it."""
    try:
        content = json.loads(upload.content)
    except ValueError as error:
        raise refuse(400, f"Error {error} in submitted_image_uri from submission file") from error
    if not isinstance(content, dict) or "submitted_image_uri" not in content:
        raise refuse(400, "Error 'submitted_image_uri' in submitted_image_uri from submission file")
    return content["submitted_image_uri"]


def _publish_again(state: State, row: Submission) -> None:
    if not state.storage_answers:
        raise broken()  # after the status has changed, and with nothing on the queue
    state.publish(row, again_content(row.challenge, row.phase, row.pk, row.image))


def _set(state: State, row: Submission, call: Call, fields: dict[str, object]) -> None:
    status = fields.get("status", row.status.value)
    if status not in set(Status):
        raise Refusal(Answer(400, {"status": [f'"{status}" is not a valid choice.']}))
    if status != row.status:
        state.set_status(row, Status(str(status)), call.caller.name)
    job_name = fields.get("job_name")
    if isinstance(job_name, list):
        row.job_name = list(map(str, job_name))
    for name in ("completed_at", "started_at", "rerun_resumed_at"):  # by a team as well
        if name in fields:
            setattr(row, name, datetime.fromisoformat(str(fields[name])))
    if isinstance(phase := fields.get("challenge_phase"), int) and state.phase(phase):
        row.phase = phase
    row.deleted = fields.get("ignore_submission", row.deleted) is True
    row.metadata = fields.get("submission_metadata", row.metadata)
    row.texts |= {name: fields[name] for name in (*_MAY_BE_SET, *_MAY_BE_SET_TOO) if name in fields}
