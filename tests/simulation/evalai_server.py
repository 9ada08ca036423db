"""EvalAI: the stand-in's own views and state, without its web server, as `evalai_api.transport.exchange` reaches it."""

import json
from collections.abc import Callable
from datetime import datetime
from typing import Any
from urllib.parse import urlencode, urlsplit

import httpx
from pydantic import SecretStr
from starlette.requests import Request as StarletteRequest

from embedded.challenge import CHALLENGE, PHASES, Tokens, standin_config
from embedded.evalai_standin import Config, State
from embedded.evalai_standin.app import routed
from embedded.evalai_standin.queue import new_content
from embedded.evalai_standin.responses import Answer
from evalai_api.transport import HttpAnswer, Request, Timeouts
from evaluation.submission.model import SubmissionStatus
from tests.simulation.calls import Calls, Trouble

HOST = "evalai.example"
PHASE = PHASES["leaderboard-20-SENSORS"]
TOKENS = Tokens(
    "installation-token",
    "host-token",
    {"Demo Team": "team-1", "Équipe n° 2 / Straße <b>_--": "team-2", "Team Rocket": "team-3"},
)
TEAM = "Team Rocket"


class EvalAIServer:
    """`look` is called with each request of the installation and its answer, once it has had its effect.

    Its last argument is the status before of the submission that the request is about, None where it is about none.
    """

    def __init__(
        self, calls: Calls, publish: Callable[[str], None], requests_per_minute: int = 60, config: Config | None = None
    ) -> None:
        ours = standin_config(TOKENS, "https://sqs.example/queue", "", "us-west-2", requests_per_minute)
        hub = calls.hub
        config = config or Config.model_validate(ours)
        self.state = State(config, lambda message: publish(message.body), lambda: hub.now)
        self.look: Callable[[Request, Answer, int, SubmissionStatus | None], None] = lambda *_: None
        self.own_429 = 0  # requests beyond the limit, which the budget is there to prevent
        self._calls = calls

    def exchange(
        self, request: Request, token: SecretStr | None, timeouts: Timeouts, limit_bytes: int, trust_env: bool
    ) -> HttpAnswer:
        """Stands for evalai_api.transport.exchange."""
        path = urlsplit(request.url).path
        last = path.rstrip("/").rpartition("/")[2]
        operation = f"{request.method} {'submission' if last.isdigit() else last}"
        try:
            answer = self._calls.blocking("evalai", operation, lambda: self._answered(request, token), timeouts.read)
        except Trouble as trouble:
            if trouble.kind == "silent":
                raise TimeoutError from None
            status, headers = (429, {"Retry-After": "20"}) if trouble.kind == "throttled" else (502, {})
            answer = Answer(status, {"detail": "Request was throttled."}, headers=headers)
        body = json.dumps(answer.body) if answer.content_type == "application/json" else str(answer.body)
        headers = httpx.Headers({"Content-Type": answer.content_type, **answer.headers})
        return HttpAnswer(answer.status, headers, body.encode())

    def _answered(self, request: Request, token: SecretStr | None) -> Answer:
        submission = subject_of(request)
        row = self.state.submissions.get(submission)
        before = row.status if row else None
        answer = self.ask(request, token.get_secret_value() if token else "")
        if answer.status == 429:
            self.own_429 += 1
        self.look(request, answer, submission, before)
        return answer

    def ask(self, request: Request, token: str) -> Answer:
        """At once: for people, who are no part of the faults."""
        parts = urlsplit(request.url)
        headers = [(b"authorization", f"Bearer {token}".encode())] if token else []
        headers.append((b"content-type", b"application/json"))
        scope: dict[str, Any] = {
            "type": "http",
            "method": request.method,
            "scheme": "https",
            "server": (HOST, 443),
            "path": parts.path,
            "query_string": urlencode(dict(request.query or {})).encode() or parts.query.encode(),
            "headers": headers,
        }
        return routed(self.state, StarletteRequest(scope), request.content or b"")

    # What teams and hosts do.

    def submit(self, image: str = "demo/agent:steady") -> int:
        state = self.state
        team = next(team for team in state.config.teams if team.name == TEAM)
        user = next(user for user in state.config.users if user.name in team.members)
        phase = state.phase(PHASE)
        assert phase is not None
        row = state.add_submission(team, user, phase, image)
        state.media[row.input_file] = json.dumps({"submitted_image_uri": image}).encode()
        state.publish(row, new_content(CHALLENGE, PHASE, image, row.pk))
        return row.pk

    def cancel(self, submission: int) -> None:
        path = f"/api/jobs/challenges/{CHALLENGE}/submissions/{submission}/update_submission_meta/"
        body = json.dumps({"status": "cancelled"}).encode()
        self.ask(Request("PATCH", f"https://{HOST}{path}", None, body), TOKENS.participants[TEAM])

    def resume(self, submission: int) -> bool:
        path = f"/api/jobs/submissions/{submission}/resume/"
        return self.ask(Request("POST", f"https://{HOST}{path}"), TOKENS.host).status < 300

    def status(self, submission: int) -> SubmissionStatus:
        return self.state.submissions[submission].status

    def submitted_at(self, submission: int) -> datetime:
        return self.state.submissions[submission].submitted_at


def subject_of(request: Request) -> int:
    """The submission that a request reads or writes; 0 where it is about none."""
    last = urlsplit(request.url).path.rstrip("/").rpartition("/")[2]
    if request.content:
        return int(json.loads(request.content).get("submission") or 0)
    return int(last) if "/jobs/submission/" in request.url and last.isdigit() else 0
