"""The stand-in where it once answered otherwise than the real server, request by request, in the real one's order.

66 requests were made to both (EvalAI at commit 0f04039, November 2026). 28 were alike; the others are below, each with
what the real server answered.

What still differs, and why:

- names of media files: both are random; the folders are alike
- ids of leaderboard rows: the real server counts them over all challenges
- `execution_time`: seconds of a real run; the kind, a number or the word None, is alike
- submit, no status: the words of the 406 were not recorded; here they are Django REST framework's usual ones
- too many submissions at once: which states count is recorded, the words of the 406 are not
- GET of an unknown challenge: not recorded
- resume by a team where the challenge allows none: whether 403 or 406 comes first was not recorded; here 406
"""

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from embedded.evalai_standin import (
    Challenge,
    Config,
    Phase,
    Split,
    State,
    Team,
    User,
    create_app,
    serving,
    state_of,
)
from embedded.evalai_standin.state import LeaderboardEntry
from evaluation.submission.model import SubmissionStatus
from tests.waiting import PATIENCE_SECONDS

CREATOR, MATE, HOST, OTHER_HOST = "creator", "mate", "host", "host2"


def config() -> Config:
    names = (HOST, OTHER_HOST, CREATOR, MATE)
    return Config(
        users=tuple(User(pk=pk, name=name, token=f"{name}-token") for pk, name in enumerate(names, 1)),
        challenges=(
            Challenge(pk=3, title="Compare", hosts=(HOST,)),
            Challenge(pk=4, title="Other", hosts=(OTHER_HOST,), allow_resuming=False),
        ),
        phases=(
            Phase(pk=7, challenge=3, codename="c-A"),
            Phase(pk=8, challenge=3, codename="c-B", public=False),
            Phase(pk=9, challenge=3, codename="c-C", partial=True),
            Phase(pk=6, challenge=4, codename="o-A"),
        ),
        splits=(Split(pk=70, phase=7, labels=("a", "b")), Split(pk=90, phase=9, labels=("a", "b"))),
        teams=(Team(pk=1, name="Team A", members=(CREATOR, MATE)), Team(pk=2, name="Équipe n° 2 / Straße <b>_--")),
        requests_per_minute=1000,
    )


class World:
    def __init__(self, url: str, state: State) -> None:
        self.url, self.state = url, state
        self.first = self.add(7)
        self.second = self.add(7, team=1)

    def add(self, phase: int, team: int = 0, status: SubmissionStatus = SubmissionStatus.SUBMITTED) -> int:
        found = self.state.phase(phase)
        assert found
        row = self.state.add_submission(self.state.config.teams[team], self.state.config.users[2], found, "r/i:1")
        row.status = status
        return row.pk

    def ask(self, method: str, path: str, who: str, **more: Any) -> requests.Response:
        headers = {"Authorization": f"Bearer {who}-token"}
        return requests.request(method, self.url + path, headers=headers, timeout=10, **more)

    def submit(
        self, phase: int, content: bytes = b'{"submitted_image_uri": "r/i:1"}', **form: str
    ) -> requests.Response:
        path = f"/api/jobs/challenge/3/challenge_phase/{phase}/submission/"
        return self.ask("POST", path, CREATOR, files={"input_file": ("s.json", content)}, data=form)

    def meta(self, **fields: object) -> dict[str, Any]:
        path = f"/api/jobs/challenges/3/submissions/{self.first}/update_submission_meta/"
        answer = self.ask("PATCH", path, CREATOR, json=fields)
        assert answer.status_code == 200
        shown: dict[str, Any] = answer.json()
        return shown

    def score(self, pk: int, split: int = 70, **result: object) -> None:
        self.state.submissions[pk].status = SubmissionStatus.FINISHED
        self.state.entries.append(LeaderboardEntry(len(self.state.entries) + 1, pk, split, result))

    def ranked(self, query: str = "") -> list[tuple[int, list[object]]]:
        rows = requests.get(
            f"{self.url}/api/jobs/challenge_phase_split/70/leaderboard/{query}", timeout=PATIENCE_SECONDS
        ).json()
        return [(row["submission__id"], row["result"]) for row in rows["results"]]


@pytest.fixture
def world() -> Iterator[World]:
    app = create_app(config(), publish=[].append)
    with serving(app) as url:
        yield World(url, state_of(app))


def test_submissions_are_refused_as_there(world: World) -> None:
    answers = {
        "no status": world.submit(9),
        "no JSON": world.submit(9, b"", status="submitting"),
        "private": world.submit(8, status="submitting"),
        "unknown": world.submit(99, status="submitting"),
        "of another challenge": world.submit(6, status="submitting"),
    }

    assert {name: (answer.status_code, answer.json()) for name, answer in answers.items()} == {
        "no status": (406, {"status": ["This field is required."]}),
        "no JSON": (
            400,
            {"error": "Error Expecting value: line 1 column 1 (char 0) in submitted_image_uri from submission file"},
        ),
        "private": (403, {"error": "Sorry, cannot accept submissions since challenge phase is not public"}),
        "unknown": (400, {"error": "Challenge Phase does not exist"}),
        "of another challenge": (400, {"error": "Challenge Phase does not exist"}),
    }


@pytest.mark.parametrize(
    ("method", "path", "who", "status", "error"),
    [
        ("GET", "/api/jobs/submission/1", MATE, 401, "Sorry, you are not authorized to access this submission."),
        ("DELETE", "/api/jobs/submission/1", MATE, 401, "Sorry, you are not authorized to access this submission."),
        ("GET", "/api/jobs/challenge/3/submission/", OTHER_HOST, 400, None),
        ("GET", "/api/jobs/challenge/3/submission/", CREATOR, 400, None),
        ("GET", "/api/jobs/challenge/99/submission/", HOST, 404, None),
        ("GET", "/api/challenges/3/phases/", CREATOR, 401, None),
        ("POST", "/api/jobs/submissions/1/resume/", CREATOR, 400, "Only failed submissions can be resumed"),
        (
            "POST",
            "/api/jobs/phases/9/send_submission_message/1/",
            CREATOR,
            403,
            "Submission does not belong to this challenge phase",
        ),
        ("POST", "/api/jobs/phases/99/send_submission_message/1/", CREATOR, 404, None),
    ],
)
def test_requests_are_refused_as_there(
    world: World, method: str, path: str, who: str, status: int, error: str | None
) -> None:
    answer = world.ask(method, path, who)

    assert answer.status_code == status
    assert error in (None, answer.json().get("error"))
    assert status != 404 or "does not exist" in answer.json()["detail"]


def test_a_challenge_that_allows_no_resuming_says_so(world: World) -> None:
    pk = world.add(6, status=SubmissionStatus.FAILED)

    answer = world.ask("POST", f"/api/jobs/submissions/{pk}/resume/", OTHER_HOST)

    assert (answer.status_code, answer.json()) == (
        406,
        {"error": "Challenge Other does not allow resuming submissions."},
    )


def test_a_team_may_write_what_looks_like_ours(world: World) -> None:
    moment = "2026-01-01T00:00:00Z"

    assert world.meta(rerun_resumed_at=moment)["rerun_resumed_at"] == moment
    assert world.meta(challenge_phase=9)["challenge_phase"] == 9
    assert world.meta(challenge_phase=7)["challenge_phase"] == 7
    assert world.meta(started_at=moment, completed_at="2026-01-01T00:00:07Z")["execution_time"] == 7
    assert world.meta(status="resuming")["status"] == "resuming"
    assert world.meta(ignore_submission=True)["ignore_submission"] is True


def test_a_team_sees_its_own_submissions_in_pages(world: World) -> None:
    answer = world.ask("GET", "/api/jobs/challenge/3/challenge_phase/7/submission/", MATE).json()

    assert (answer["count"], answer["next"], answer["previous"]) == (1, None, None)
    assert [row["id"] for row in answer["results"]] == [world.first]


def test_the_leaderboard_ranks_as_there(world: World) -> None:
    world.score(world.first, a=1.0, b=2.0)
    world.score(world.second, b=3.0)

    assert world.ranked() == [(world.first, [1.0, 2.0]), (world.second, ["#", 3.0])]
    assert world.ranked("?order_by=b") == [(world.second, ["#", 3.0]), (world.first, [1.0, 2.0])]
    assert world.ranked("?order_by=unknown") == world.ranked()


def test_the_leaderboard_hides_flagged_rows_and_shows_deleted_ones(world: World) -> None:
    world.score(world.first, a=1.0)
    world.score(world.second, a=0.5)

    world.ask("DELETE", f"/api/jobs/submission/{world.second}", HOST)
    world.meta(is_flagged=True)

    assert [pk for pk, _ in world.ranked()] == [world.second]


def test_a_host_deletes_and_the_list_keeps_the_row(world: World) -> None:
    deleted = world.ask("DELETE", f"/api/jobs/submission/{world.first}", HOST)
    listed = world.ask("GET", "/api/jobs/challenge/3/submission/", HOST).json()

    assert (deleted.status_code, deleted.json()["ignore_submission"]) == (200, True)
    assert "environment_log_file" in deleted.json()
    assert [(row["id"], row["ignore_submission"]) for row in listed] == [(world.first, True), (world.second, False)]


def test_files_lie_in_the_submissions_own_folder(world: World) -> None:
    report = {"challenge_phase": 7, "submission": world.first, "submission_status": "FAILED", "stderr": "x"}
    world.ask("PUT", "/api/jobs/challenge/3/update_submission/", HOST, json=report)

    shown = world.ask("GET", f"/api/jobs/submission/{world.first}", HOST).json()

    folder = f"{world.url}/media/submission_files/challenge_3/phase_7/submission_{world.first}/"
    for name, ending in (("input_file", "json"), ("stderr_file", "txt"), ("submission_result_file", "json")):
        assert shown[name].startswith(folder)
        assert shown[name].endswith(f".{ending}")


def test_a_refreshed_token_is_told_apart_from_an_unknown_one(world: World) -> None:
    users = tuple(
        user.model_copy(update={"refreshed_tokens": (f"{user.name}-old-token",)}) for user in world.state.config.users
    )
    world.state.config = world.state.config.model_copy(update={"users": users})

    said = [
        world.ask("GET", "/api/jobs/submission/1", who).json()["messages"][0]["message"]
        for who in ("host-old", "nobody")
    ]

    assert said == ["Token is blacklisted", "Token is invalid or expired"]


@pytest.mark.parametrize(
    ("status", "accepted"),
    [
        (SubmissionStatus.RUNNING, False),
        (SubmissionStatus.RESUMING, False),
        (SubmissionStatus.PARTIALLY_EVALUATED, True),  # it does not count as being processed
        (SubmissionStatus.FINISHED, True),
    ],
)
def test_a_partial_result_frees_the_teams_slot(world: World, status: SubmissionStatus, accepted: bool) -> None:
    phases = tuple(phase.model_copy(update={"concurrent_submissions": 1}) for phase in world.state.config.phases)
    world.state.config = world.state.config.model_copy(update={"phases": phases})
    world.add(9, status=status)

    assert (world.submit(9, status="submitting").status_code == 201) is accepted
