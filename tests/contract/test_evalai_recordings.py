"""The stand-in server against what the real EvalAI was recorded to answer (tests/contract/recordings).

Each file is replayed in its order against one server: the state that a recording presumes comes from those before it,
and a submission that it names but that nobody made is put there first. Times and addresses of files are compared by
presence only.
"""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import requests

from embedded.evalai_standin import (
    Challenge,
    Config,
    Phase,
    QueueMessage,
    Split,
    State,
    Team,
    User,
    create_app,
    serving,
    state_of,
)
from embedded.evalai_standin.serializers import execution_time, shown_submission
from embedded.evalai_standin.state import LeaderboardEntry, Submission, now
from evaluation.results.evalai_result import LABELS_V2
from evaluation.submission.model import SubmissionStatus
from tests.waiting import PATIENCE_SECONDS

FOLDER = Path(__file__).parent / "recordings"

QUEUE_BY_HTTP = "the bridge reads SQS itself"
CLUSTER = "EvalAI's own worker asks this, we do not"
HOST_PAGES = "a page of EvalAI's website"
NO_REQUEST = "the recording holds no request"
# (part of the path, or file and number) -> why we have no use for it.
OUT_OF_SCOPE: Mapping[str, str] = {
    "/api/auth/login": "tokens come from a secret",
    "/get_auth_token": "tokens come from a secret",
    "/evaluation_cluster/": CLUSTER,
    "/eks_bearer_token/": CLUSTER,
    "/queues/": QUEUE_BY_HTTP,
    "/update_started_at/": "the running PATCH sets it",
    "/public_leaderboard_all_entries/": HOST_PAGES,
    "/submission_count_by_status/": HOST_PAGES,
    "/remaining_submissions/": HOST_PAGES,
    "/leaderboard_data/": HOST_PAGES,
    "/challenge_phase/1/submissions": HOST_PAGES,
    "challenge_phase_leaderboard.json 11": "phases come from the unpaginated list",
    "challenge_phase_leaderboard.json 26": "it counts what was made outside of the recordings",
    "cancel_and_meta.json 11": HOST_PAGES,
    "update_submission_PUT.json 65": NO_REQUEST,
    "update_submission_PUT.json 66": NO_REQUEST,
    "debug_mode_and_extra.json 3": NO_REQUEST,
}
# Recordings of figures, not of single requests, have their test below.
IN_SEQUENCE = sorted(p.name for p in FOLDER.glob("*.json") if p.name != "throttle.json")

CODENAMES = ("leaderboard-10-SENSORS", "leaderboard-10-MAP", "leaderboard-20-SENSORS", "leaderboard-20-MAP")
QUEUE = "http://sqs.test/123456789012/carla-leaderboard-{}-dev-queue{}"
SEEDS = ["submitted", "running", "failed", "cancelled", "resuming", "queued", "finished", "submitting", "archived"]
SEEDS.append("partially_evaluated")
TIMES = {"started_at", "completed_at", "submitted_at", "rerun_resumed_at", "submission__submitted_at"}
FILES = {"input_file", "stdout_file", "stderr_file", "environment_log_file", "submission_result_file"}
OF_THAT_INSTALLATION = {"created_at", "start_date", "end_date", "description", "environment_image"}
FIRST_PK = {"sqs_resume_rerun.json": 90, "debug_mode_and_extra.json": 129}


def user(pk: int, name: str, **more: Any) -> User:
    return User(
        pk=pk, name=name, token=f"{name}-jwt", expiring_token=f"{name}-40hex", access_token=f"{name}-acc", **more
    )


def world(file: str) -> Config:
    names = {1: "admin", 2: "host", 3: "host2", 4: "participant", 5: "participant2", 6: "unverified", 7: "outsider"}
    users = [user(pk, name, staff=name == "admin", verified=name != "unverified") for pk, name in names.items()]
    phases = [Phase(pk=n, challenge=1, codename=name, partial=n == 4) for n, name in enumerate(CODENAMES, 1)]
    phases += [Phase(pk=n, challenge=2, codename=f"fifo-{n}") for n in (5, 6)]
    phases += [Phase(pk=9, challenge=3, codename="other-9")]
    return Config(
        users=tuple(users),
        challenges=(
            Challenge(pk=1, hosts=("host",), queue_url=QUEUE.format(1, "")),
            Challenge(pk=2, hosts=("host",), queue_url=QUEUE.format(2, ".fifo")),
            Challenge(pk=3, hosts=("host2",), remote_evaluation=False),
        ),
        phases=tuple(phases),
        splits=tuple(Split(pk=n, phase=n, labels=tuple(LABELS_V2)) for n in (1, 2, 3, 4)),
        teams=(
            Team(pk=1, name="Team Rocket", members=("participant", "unverified")),
            Team(pk=2, name="Team 2", members=("participant2",)),
        ),
        requests_per_minute=10_000,
        first_submission=FIRST_PK.get(file, 1000),
    )


class Replay:
    """One file, its server's state, and what it put on the queue."""

    def __init__(self, file: str, url: str, state: State, sent: list[QueueMessage]) -> None:
        self.file, self.url, self.state, self.sent = file, url, state, sent
        self.images: dict[int, object] = {}
        self.methods: dict[int, str] = {}
        for pk, status in enumerate(SEEDS, 1):
            self.methods[pk] = f"seed-{status}"
            self.put(pk).status = SubmissionStatus(status)
        self.put(11, phase=9).status = SubmissionStatus.FAILED

    def learn(self, content: list[dict[str, Any]]) -> None:
        """What the recordings say about submissions that were made before them."""
        for recording in content:
            request, wanted = request_of(recording)
            body = wanted["body"]
            for shown in body if isinstance(body, list) else [body]:
                if isinstance(shown, dict) and "method_name" in shown:
                    self.methods.setdefault(shown["id"], shown["method_name"])
                for entry in shown.get("results", ()) if isinstance(shown, dict) else ():
                    if "submission__id" in entry:
                        self.methods.setdefault(entry["submission__id"], entry["submission__method_name"])
            for message in recording.get("sqs_messages", ()):
                image = json.loads(message["Body"]).get("submitted_image_uri")
                self.images |= dict.fromkeys(named_submissions(request), image)

    def put(self, pk: int, phase: int = 1) -> Submission:
        found = self.state.phase(phase)
        assert found is not None
        team, creator = self.state.config.teams[0], self.state.config.users[3]
        row = self.state.add_submission(team, creator, found, self.images.get(pk), pk)
        row.texts["method_name"] = self.methods.get(pk, "")
        return row

    def differences(self, number: int, recording: dict[str, Any]) -> list[str]:
        """Prepare, send, compare; one line for each difference."""
        request, wanted = request_of(recording)
        self.prepare(number, recording, request)
        self.sent.clear()
        answer = self.send(number, recording["name"], request)
        found = [*self.in_answer(number, wanted, answer), *self.in_state(recording, request), *self.in_queue(recording)]
        return [f"{self.file} {number} ({recording['name']}): {line}" for line in found]

    def prepare(self, number: int, recording: dict[str, Any], request: dict[str, Any]) -> None:
        body = recording["response"]["body"] if "response" in recording else recording["body"]
        for pk in named_submissions(request):
            if pk not in self.state.submissions and pk < 900_000:
                phase = body.get("challenge_phase", 0) if isinstance(body, dict) else 0
                if "partially" in self.file:
                    phase = 4
                self.put(pk, phase or 1)
        self.prepare_specially(f"{self.file} {number}", recording)

    def prepare_specially(self, recording: str, content: dict[str, Any]) -> None:
        state = self.state
        if recording == "challenge_phase_leaderboard.json 14":
            self.put(99).status = SubmissionStatus.FINISHED
            scores = dict(zip(LABELS_V2, content["response"]["body"]["results"][0]["result"], strict=True))
            state.entries.append(LeaderboardEntry(21, 99, 1, scores))
        elif recording == "update_partially_evaluated.json 0":
            state.entries.append(LeaderboardEntry(13, 1, 3, {}))
        elif recording == "cancel_and_meta.json 2":
            row = state.submissions[60]
            row.stdout_file = row.stderr_file = row.submission_result_file = "somewhere"
            row.completed_at = now()
        elif recording == "debug_mode_and_extra.json 6":
            state.storage_answers = False
        elif recording == "debug_mode_and_extra.json 8":
            state.submissions[133].status = SubmissionStatus.FAILED
        elif recording == "debug_mode_and_extra.json 9":
            state.submissions[134].started_at = now()
        elif recording in ("sqs_resume_rerun.json 6", "sqs_resume_rerun.json 10"):
            state.submissions[90 if recording.endswith(" 6") else 91].status = SubmissionStatus.FAILED
            state.submissions[90].completed_at = now()
        elif recording in ("sqs_resume_rerun.json 15", "sqs_resume_rerun.json 18"):
            row = state.submissions[94 if recording.endswith("15") else 98]
            row.status, row.completed_at = SubmissionStatus.FINISHED, now()

    def send(self, number: int, name: str, request: dict[str, Any]) -> requests.Response:
        headers = {k: v for k, v in request["headers"].items() if k != "Authorization"}
        if request["as"] != "-":
            headers["Authorization"] = authorization(name, request)
        return requests.request(
            request["method"],
            self.url + request["path"],
            params=QUERIES.get(f"{self.file} {number}"),
            data=request["body"].encode(),
            headers=headers,
            allow_redirects=False,
            timeout=10,
        )

    def in_answer(self, number: int, wanted: dict[str, Any], answer: requests.Response) -> list[str]:
        content = answer.json() if answer.headers["Content-Type"] == "application/json" else answer.text
        found = {"status": answer.status_code, "content_type": answer.headers["Content-Type"], "body": content}
        if f"{self.file} {number}" in RECORDED_WITH_DEBUG_PAGES:
            return compared("status", wanted["status"], answer.status_code)
        lines = [line for key in found for line in compared(key, wanted[key], found[key])]
        for header, value in (wanted.get("headers") or {}).items():
            lines += compared(header, value, answer.headers.get(header))
        return lines

    def in_state(self, recording: dict[str, Any], request: dict[str, Any]) -> list[str]:
        lines = []
        pks = named_submissions(request)
        if recording.get("after") and recording["name"] != "string ids":  # there it shows another submission
            row = self.state.submissions[pks[0]]
            for key, value in recording["after"].items():
                lines += compared(f"after.{key}", value, self.after(row, key))
        if "leaderboard_rows_in_db_after" in recording:
            shown = [
                {"leaderboard_data_id": e.pk, "submission": e.submission, "phase_split": e.split, "is_disabled": False}
                | {"result": e.result}
                for e in self.state.entries
                if e.submission == pks[0]
            ]
            lines += compared("leaderboard rows", recording["leaderboard_rows_in_db_after"], shown)
        if "new_submission" in recording:
            new = self.state.submissions[recording["new_submission"]["id"]]
            lines += compared(
                "new",
                recording["new_submission"],
                shown_submission(self.state, new, self.state.config.users[1], self.url),
            )
        if "status_after" in recording:
            lines += compared("status", recording["status_after"], self.state.submissions[pks[0]].status.value)
        return lines

    def after(self, row: Submission, key: str) -> object:
        if key == "execution_time":
            return execution_time(row)
        value = getattr(row, key)
        if key in FILES and value is not None:
            return self.state.media[value].decode()
        return value

    def in_queue(self, recording: dict[str, Any]) -> list[str]:
        if "sqs_messages" not in recording:
            return []
        lines = compared("messages", [m["Body"] for m in recording["sqs_messages"]], [m.body for m in self.sent])
        for wanted, message in zip(recording["sqs_messages"], self.sent, strict=False):
            wanted_id = wanted["Attributes"].get("MessageDeduplicationId")
            lines += compared("group", wanted["Attributes"].get("MessageGroupId"), message.group)
            lines += compared("deduplication", before_uuid(wanted_id), before_uuid(message.deduplication))
        return lines


# The recordings' paths lack the query; their names say it.
QUERIES = {
    "challenge_phase_leaderboard.json 16": {"order_by": "Route completion"},
    "challenge_phase_leaderboard.json 18": {"page_size": "1"},
    "challenge_phase_leaderboard.json 19": {"page": "99"},
    "challenge_phase_leaderboard.json 22": {"status": "resuming"},
    "challenge_phase_leaderboard.json 23": {"status": "partially_evaluated"},
    "challenge_phase_leaderboard.json 24": {"status": "archived"},
}
# The server ran with Django's debug pages here, which production does not show.
RECORDED_WITH_DEBUG_PAGES = {"debug_mode_and_extra.json 6", "debug_mode_and_extra.json 8"}
UPLOAD = (
    '--b\r\nContent-Disposition: form-data; name="status"\r\n\r\nsubmitting\r\n'
    '--b\r\nContent-Disposition: form-data; name="input_file"; filename="s.json"\r\n\r\n'
    '{"submitted_image_uri": "r/i:1"}\r\n--b--\r\n'
)


def request_of(recording: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The request and the wanted answer; those of debug_mode_and_extra.json have to be put together."""
    if "request" in recording:
        return recording["request"], recording["response"]
    path, method = recording["path"], recording["method"]
    by_host = any(part in path for part in ("re-run", "resume", "/jobs/submission/"))
    request = {"method": method, "path": path, "as": "host" if by_host else "participant", "headers": {}, "body": ""}
    if path.endswith("/submission/"):
        request |= {"headers": {"Content-Type": "multipart/form-data; boundary=b"}, "body": UPLOAD}
    elif "update_submission_meta" in path:
        request |= {"headers": {"Content-Type": "application/json"}, "body": '{"status": "cancelled"}'}
    return request, recording


def named_submissions(request: dict[str, Any]) -> list[int]:
    in_path = re.findall(r"/submissions?/(\d+)|/send_submission_message/(\d+)", request["path"])
    in_body = re.findall(
        r'"submission": "?(\d+)|(?:^|&)submission=(\d+)|name="submission"\r\n\r\n(\d+)', request["body"]
    )
    return [int(number) for groups in (*in_path, *in_body) for number in groups if number]


def authorization(name: str, request: dict[str, Any]) -> str:
    if request["as"] != "raw header":
        return f"Bearer {request['as']}-jwt"
    return str(
        request["headers"]["Authorization"]
        .replace("<jwt>", "host-acc" if "access" in name else "host-jwt")
        .replace("<token>", "host-40hex")
    )


def before_uuid(value: str | None) -> str | None:
    return None if value is None else value.partition("-")[0]


def compared(where: str, wanted: Any, found: Any) -> list[str]:
    key = where.rpartition(".")[2]
    if key in OF_THAT_INSTALLATION:
        return []
    if key in TIMES or (key in FILES and not where.startswith("after.")):
        wanted, found = wanted is not None, found is not None
    if key == "execution_time":
        wanted, found = type(wanted), type(found)
    if isinstance(wanted, dict) and isinstance(found, dict):
        lines = (
            []
            if list(wanted) == list(found) or set(wanted) == set(found)
            else [f"{where}: keys {set(wanted) ^ set(found)}"]
        )
        return lines + [line for k in wanted if k in found for line in compared(f"{where}.{k}", wanted[k], found[k])]
    if isinstance(wanted, list) and isinstance(found, list):
        if wanted and isinstance(wanted[-1], str) and wanted[-1].endswith(" more"):
            wanted, found = wanted[:1], found[:1]  # cut short by the recorder, in no order
        if len(wanted) == len(found):
            return [
                x for n, pair in enumerate(zip(wanted, found, strict=True)) for x in compared(f"{where}[{n}]", *pair)
            ]
    return [] if wanted == found else [f"{where}: wanted {wanted!r}, found {found!r}"]


def recordings(file: str) -> list[dict[str, Any]]:
    content: list[dict[str, Any]] = json.loads((FOLDER / file).read_text())
    return content


def in_scope(file: str) -> list[tuple[int, dict[str, Any]]]:
    """The file's recordings that belong to what we use, with their numbers."""

    def belongs(number: int, recording: dict[str, Any]) -> bool:
        path = recording.get("request", recording).get("path", "")
        return f"{file} {number}" not in OUT_OF_SCOPE and not any(
            part in path for part in OUT_OF_SCOPE if part.startswith("/")
        )

    return [(number, item) for number, item in enumerate(recordings(file)) if belongs(number, item)]


@pytest.mark.parametrize("file", IN_SEQUENCE)
def test_answers_as_recorded(file: str) -> None:
    sent: list[QueueMessage] = []
    app = create_app(world(file), publish=sent.append)

    with serving(app) as url:
        replay = Replay(file, url, state_of(app), sent)
        replay.learn([recording for _, recording in in_scope(file)])
        differences = [line for number, item in in_scope(file) for line in replay.differences(number, item)]

    assert not differences, "\n".join(differences)


def test_most_recordings_are_replayed() -> None:
    every = sum(len(recordings(file)) for file in IN_SEQUENCE)

    replayed = sum(len(in_scope(file)) for file in IN_SEQUENCE)

    assert (replayed, every) == (195, 241)


def test_the_throttle_is_as_recorded() -> None:
    measured = {item["name"]: item for item in recordings("throttle.json")}
    app = create_app(world("throttle").model_copy(update={"requests_per_minute": 60}), publish=[].append)

    with serving(app) as url:
        Replay("throttle", url, state_of(app), [])
        get = "/api/jobs/submission/1"
        first = [asked(url, get, "Bearer host-jwt") for _ in range(62)]
        other_endpoint = asked(url, "/api/challenges/1/phases/", "Bearer host-jwt")
        other_scheme = asked(url, get, "Token host-40hex")
        other_user = asked(url, get, "Bearer participant-jwt")
        anonymous = [asked(url, "/api/jobs/challenge_phase_split/3/leaderboard/") for _ in range(62)]
        refused = [asked(url, get) for _ in range(62)]

    assert [r.status_code for r in first].index(429) + 1 == measured["authenticated, submission GET"][
        "first_429_at_request"
    ]
    assert (
        first[-1].json()["detail"]
        == f"Request was throttled. Expected available in {first[-1].headers['Retry-After']} seconds."
    )
    assert 50 <= int(first[-1].headers["Retry-After"]) <= 60
    assert (other_endpoint.status_code, other_scheme.status_code, other_user.status_code) == (429, 429, 200)
    assert [r.status_code for r in anonymous].index(429) + 1 == measured["anonymous leaderboard"][
        "first_429_at_request"
    ]
    assert {r.status_code for r in refused} == {401}


def asked(url: str, path: str, authorization: str | None = None) -> requests.Response:
    headers = {} if authorization is None else {"Authorization": authorization}
    return requests.get(url + path, headers=headers, timeout=PATIENCE_SECONDS)
