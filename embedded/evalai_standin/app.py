"""The paths, and the way of a request: fault, route, user, throttle, view."""

import json
import logging
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from embedded.evalai_standin import control, evaluator_views, participant_views, read_views
from embedded.evalai_standin.auth import authenticated
from embedded.evalai_standin.config import Config
from embedded.evalai_standin.faults import wait
from embedded.evalai_standin.queue import Publisher, sqs_publisher
from embedded.evalai_standin.responses import HTML, Answer, Call, Refusal, broken_page, deny, not_found_page
from embedded.evalai_standin.state import State
from evaluation.errors import ServiceUnavailable

_logger = logging.getLogger(__name__)

View = Callable[[State, Call], Answer]


@dataclass(frozen=True)
class _Path:
    pattern: str  # N stands for a number
    allow: str  # the Allow header, in the real server's order
    views: Mapping[str, View]
    public: bool = False

    def match(self, path: str) -> tuple[int, ...] | None:
        found = re.fullmatch(self.pattern.replace("N", r"(\d+)"), path, re.ASCII)
        return None if found is None else tuple(map(int, found.groups()))


_PATHS = (
    _Path(
        "/api/jobs/submission/N",
        "OPTIONS, DELETE, GET",
        {"GET": read_views.get_submission, "DELETE": participant_views.delete_submission},
    ),
    _Path(
        "/api/jobs/challenge/N/update_submission/",
        "PUT, OPTIONS, PATCH",
        {"PUT": evaluator_views.put_report, "PATCH": evaluator_views.patch_report},
    ),
    _Path(
        "/api/jobs/challenges/N/update_partially_evaluated_submission/",
        "PUT, OPTIONS, PATCH",
        {"PUT": evaluator_views.put_partial, "PATCH": evaluator_views.patch_partial},
    ),
    _Path(
        "/api/jobs/challenges/N/submissions/N/update_submission_meta/",
        "OPTIONS, PATCH",
        {"PATCH": participant_views.update_meta},
    ),
    _Path(
        "/api/jobs/challenge/N/challenge_phase/N/submission/",
        "OPTIONS, POST, GET",
        {"POST": participant_views.create_submission, "GET": read_views.list_own_submissions},
    ),
    _Path("/api/jobs/submissions/N/resume/", "OPTIONS, POST", {"POST": participant_views.resume}),
    _Path("/api/jobs/submissions/N/re-run/", "OPTIONS, POST", {"POST": participant_views.re_run}),
    _Path("/api/jobs/phases/N/send_submission_message/N/", "OPTIONS, POST", {"POST": participant_views.send_message}),
    _Path("/api/jobs/challenge/N/submission/", "OPTIONS, GET", {"GET": read_views.list_submissions}),
    _Path(
        "/api/jobs/challenge_phase_split/N/leaderboard/",
        "OPTIONS, GET",
        {"GET": read_views.get_leaderboard},
        public=True,
    ),
    _Path("/api/challenges/challenge/N/", "OPTIONS, GET", {"GET": read_views.get_challenge}, public=True),
    _Path("/api/challenges/N/phases/", "OPTIONS, GET", {"GET": read_views.list_phases}),
    _Path("/api/challenges/N/challenge_phase_split", "OPTIONS, GET", {"GET": read_views.list_splits}, public=True),
    _Path(
        "/api/challenges/challenge/N/challenge_phase/N",
        "PUT, PATCH, OPTIONS, DELETE, GET",
        {"GET": read_views.get_phase},
        public=True,
    ),
)
_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


def create_app(config: Config, publish: Publisher | None = None) -> Starlette:
    """The server as an ASGI app; `publish` gets the queue's messages, through SQS unless given."""

    async def answer(request: Request) -> Response:
        body = await request.body()
        return _response(await run_in_threadpool(_answered, state_of(app), request, body))

    app = Starlette(routes=[Route("/{path:path}", answer, methods=_METHODS)])
    replace_state(app, State(config, publish or sqs_publisher(config)))
    return app


def replace_state(app: Starlette, state: State) -> None:
    """Reset a running server, so that not every test has to start one."""
    app.state.evalai = state


def state_of(app: Starlette) -> State:
    """The state behind an app that `create_app` made."""
    state: State = app.state.evalai
    return state


def _answered(state: State, request: Request, body: bytes) -> Answer:
    if state.config.control and request.url.path.startswith(control.PREFIX):
        return control.answer(state, request.method, request.url.path, request.headers.get("authorization"), body)
    fault = state.next_fault(request.method, request.url.path)
    if fault is None:
        return routed(state, request, body)
    late = routed(state, request, body) if fault.after else None
    wait(fault)  # outside the lock: others are served meanwhile
    return fault.answer or late or routed(state, request, body)


def routed(state: State, request: Request, body: bytes) -> Answer:
    path = request.url.path
    call = Call(
        method=request.method,
        path=path,
        base_url=f"{request.url.scheme}://{request.url.netloc}",
        ids=(),
        query=dict(request.query_params),
        content_type=request.headers.get("content-type", ""),
        body=body,
        user=None,
    )
    if path.startswith("/media/"):
        return read_views.get_media(state, path.removeprefix("/media/"))
    for known in _PATHS:
        ids = known.match(path)
        if ids is not None:
            return _viewed(state, known, replace(call, ids=ids), request)
    if any(known.match(path + "/") is not None for known in _PATHS):
        return Answer(301, "", HTML, {"Location": path + "/"})
    return not_found_page()


def _viewed(state: State, known: _Path, call: Call, request: Request) -> Answer:
    with state.lock:
        try:
            answer = _seen(state, known, call, request)
        except Refusal as refusal:
            answer = refusal.answer
        except ServiceUnavailable as error:  # the queue
            _logger.warning("%s %s: %s", call.method, call.path, error)
            answer = broken_page()
    if answer.content_type == HTML:
        return answer
    extra = {"Allow": known.allow} | ({"WWW-Authenticate": 'Bearer realm="api"'} if _names_no_user(answer) else {})
    return replace(answer, headers=extra | dict(answer.headers))


def _seen(state: State, known: _Path, call: Call, request: Request) -> Answer:
    call = replace(call, user=authenticated(state.config, request.headers.get("authorization")))
    if call.user is None and not known.public:
        raise deny(401, "Authentication credentials were not provided.")
    address = request.client.host if request.client else "unknown"
    state.count_request(f"user {call.user.pk}" if call.user else f"address {address}")
    view = known.views.get(call.method)
    if view is None:
        raise deny(405, f'Method "{call.method}" not allowed.')
    return view(state, call)


def _names_no_user(answer: Answer) -> bool:
    return answer.status == 401 and isinstance(answer.body, dict) and "detail" in answer.body


def _response(answer: Answer) -> Response:
    is_json = answer.content_type == "application/json"
    content = json.dumps(answer.body) if is_json else str(answer.body)
    headers = {"Content-Type": answer.content_type} | dict(answer.headers)
    return Response(content, answer.status, headers)
