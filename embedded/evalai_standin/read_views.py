"""The views that only read."""

from datetime import datetime

from embedded.evalai_standin.responses import Answer, Call, broken, deny, not_found_page, refuse
from embedded.evalai_standin.serializers import shown_challenge, shown_entry, shown_phase, shown_split, shown_submission
from embedded.evalai_standin.state import LeaderboardEntry, State, Submission
from evaluation.submission.model import SubmissionStatus

# What the list may be filtered by; the real one does not know the two newest states.
_FILTERS = frozenset(SubmissionStatus) - {SubmissionStatus.PARTIALLY_EVALUATED, SubmissionStatus.ARCHIVED}
_PAGE_SIZE = 100


def get_submission(state: State, call: Call) -> Answer:
    (pk,) = call.ids
    row = state.submissions.get(pk)
    if row is None:
        raise refuse(404, f"Submission {pk} does not exist")
    if not (state.is_host(call.caller, row.challenge) or call.caller.pk == row.created_by):
        raise refuse(401, "Sorry, you are not authorized to access this submission.")
    return Answer(200, shown_submission(state, row, call.user, call.base_url))


def list_submissions(state: State, call: Call) -> Answer:
    (challenge,) = call.ids
    if state.challenge(challenge) is None:
        raise deny(404, f"Challenge {challenge} does not exist")
    if not state.is_host(call.caller, challenge):
        raise refuse(400, "Sorry, you are not authorized to make this request!")
    rows = [row for row in state.submissions.values() if row.challenge == challenge]
    status = call.query.get("status")
    if status is not None:
        if status not in _FILTERS:
            raise refuse(400, f"Invalid submission status {status}")
        rows = [row for row in rows if row.status == status]
    after = call.query.get("submitted_after")
    if after is not None:
        rows = [row for row in rows if row.submitted_at > datetime.fromisoformat(after)]
    return Answer(200, [shown_submission(state, row, call.user, call.base_url) for row in rows])


def list_own_submissions(state: State, call: Call) -> Answer:
    """A team's submissions to a phase, the newest first."""
    _, phase = call.ids
    team = state.team_of(call.caller)
    rows = [row for row in state.submissions.values() if row.phase == phase and team and row.team.pk == team.pk]
    rows.sort(key=lambda row: row.submitted_at, reverse=True)
    return _page([shown_submission(state, row, call.user, call.base_url) for row in rows], call)


def get_challenge(state: State, call: Call) -> Answer:
    (pk,) = call.ids
    challenge = state.challenge(pk)
    if challenge is None:
        raise refuse(406, "Challenge does not exist!")
    return Answer(200, shown_challenge(challenge))


def list_phases(state: State, call: Call) -> Answer:
    (pk,) = call.ids
    challenge = state.challenge(pk)
    if challenge is None:
        raise deny(404, f"Challenge {pk} does not exist")
    if not state.is_host(call.caller, pk):
        raise refuse(401, "Sorry, you are not authorized to access these challenge phases.")
    return Answer(200, [shown_phase(challenge, p, for_host=True) for p in state.config.phases if p.challenge == pk])


def get_phase(state: State, call: Call) -> Answer:
    challenge_pk, pk = call.ids
    challenge, phase = state.challenge(challenge_pk), state.phase(pk)
    if challenge is None or phase is None or phase.challenge != challenge_pk:
        raise refuse(406, f"Challenge phase {pk} does not exist for challenge {challenge_pk}")
    for_host = call.user is not None and state.is_host(call.user, challenge_pk)
    return Answer(200, shown_phase(challenge, phase, for_host))


def list_splits(state: State, call: Call) -> Answer:
    (challenge,) = call.ids
    phases = {phase.pk: phase for phase in state.config.phases if phase.challenge == challenge}
    return Answer(200, [shown_split(phases[s.phase], s) for s in state.config.splits if s.phase in phases])


def get_leaderboard(state: State, call: Call) -> Answer:
    """The best row of each team. A bool among the ranking values breaks it for everyone, as in the real one."""
    (pk,) = call.ids
    split = state.split(pk)
    if split is None:
        raise deny(404, f"ChallengePhaseSplit {pk} does not exist")
    label = call.query.get("order_by", split.ranking_label)
    if label not in split.labels:
        label = split.ranking_label
    ranked = [(_score(entry, label), entry) for entry in _entries_shown(state, pk)]
    ranked.sort(key=lambda item: (item[0], item[1].submission), reverse=True)  # ties: the newest first
    best: dict[int, dict[str, object]] = {}
    for score, entry in ranked:
        row = state.submissions[entry.submission]
        best.setdefault(row.team.pk, shown_entry(split, entry, row, score))
    return _page(list(best.values()), call)


def get_media(state: State, path: str) -> Answer:
    content = state.media.get(path)
    return not_found_page() if content is None else Answer(200, content.decode(), "text/plain; charset=utf-8")


def _entries_shown(state: State, split: int) -> list[LeaderboardEntry]:
    phase = next((state.phase(s.phase) for s in state.config.splits if s.pk == split), None)
    shown = {SubmissionStatus.FINISHED}
    if phase is not None and phase.partial:
        shown.add(SubmissionStatus.PARTIALLY_EVALUATED)

    def is_shown(row: Submission) -> bool:
        return row.status in shown and row.texts.get("is_public", True) is True and not row.texts.get("is_flagged")

    return [entry for entry in state.entries if entry.split == split and is_shown(state.submissions[entry.submission])]


def _score(entry: LeaderboardEntry, label: str) -> float:
    value = entry.result.get(label, 0)  # a row without the label is shown, and ranks as 0
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise broken()
    return value


def _page(rows: list[dict[str, object]], call: Call) -> Answer:
    size = int(call.query.get("page_size", _PAGE_SIZE))
    number = int(call.query.get("page", 1))
    pages = max(1, -(-len(rows) // size))
    if not 1 <= number <= pages:
        raise deny(404, "Invalid page.")

    def link(page: int) -> str | None:
        return f"{call.base_url}{call.path}?page={page}" if 1 <= page <= pages else None

    shown = rows[(number - 1) * size : number * size]
    return Answer(200, {"count": len(rows), "next": link(number + 1), "previous": link(number - 1), "results": shown})
