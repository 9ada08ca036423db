"""The client against the stand-in server, over real HTTP; what it shares with the fake: test_evaluation_server.py."""

import logging
import socket
import time
import traceback
from collections.abc import Callable

import pytest
from pydantic import SecretStr
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from embedded.evalai_standin import (
    Fault,
)
from embedded.evalai_standin.state import Submission
from evalai_api.budget import NoBudget, Urgency
from evalai_api.client import EvalAIClient
from evaluation.errors import (
    EvaluationError,
    InvalidConfiguration,
    InvalidMessage,
    RequestRefused,
    ServiceUnavailable,
    SubmissionCancelled,
    UnknownSubmission,
)
from evaluation.submission.model import SubmissionStatus
from tests.contract.evalai_world import (
    FINISHED_RESULT,
    HOST,
    PARTICIPANT,
    PHASE,
    QUICK,
    STRANGER,
    World,
    evaluated,
    message,
    report,
)


@pytest.fixture
def world(evalai_standin: Callable[[], World]) -> World:
    return evalai_standin()


@pytest.mark.parametrize(
    ("file", "image"),
    [
        (b'{"submitted_image_uri": "registry.test/team:2"}', "registry.test/team:2"),
        (b'{"submitted_image_uri": 3}', None),
        (b'["registry.test/team:2"]', None),
        (b"not JSON", None),
        (b'{"padding": "' + b"x" * 100_000 + b'", "submitted_image_uri": "registry.test/team:2"}', None),
        (None, None),
    ],
)
def test_a_message_without_an_image_gets_it_from_the_file_that_was_handed_in(
    world: World, file: bytes | None, image: str | None
) -> None:
    row = world.add()
    row.input_file = "handed-in.json"
    if file is not None:
        world.state.media[row.input_file] = file

    assert world.client().submission(message(row), PHASE).image == image


def test_the_file_that_was_handed_in_is_fetched_without_the_token_and_again_after_an_outage(
    world: World, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers: list[str | None] = []

    def storage(request: Request) -> Response:
        headers.append(request.headers.get("Authorization"))
        return Response("no", 503) if len(headers) == 1 else Response('{"submitted_image_uri": "registry.test/a:1"}')

    httpserver.expect_request("/signed").respond_with_handler(storage)
    row = world.add()
    client = world.client()
    read_row = client._read_row
    signed = {"input_file": httpserver.url_for("/signed")}
    monkeypatch.setattr(client, "_read_row", lambda pk: read_row(pk).model_copy(update=signed))

    assert client.submission(message(row), PHASE).image == "registry.test/a:1"
    assert headers == [None, None]


@pytest.mark.parametrize(
    "call",
    [
        lambda client, row: client.submission(message(row), PHASE),
        lambda client, row: client.status(row.pk),
        lambda client, row: client.cancel(1, row.pk),
    ],
)
def test_an_unknown_submission_is_called_so(world: World, call: Callable[[EvalAIClient, Submission], object]) -> None:
    row = world.add()
    del world.state.submissions[row.pk]

    with pytest.raises(UnknownSubmission, match=f"Submission {row.pk} does not exist"):
        call(world.client(), row)


def test_a_message_of_another_challenge_is_refused_unasked(world: World) -> None:
    row = world.add()

    with pytest.raises(InvalidMessage, match="challenge 2"):
        world.client().submission(message(row, challenge_pk=2), PHASE)

    assert world.requests == 0


def test_a_lost_answer_does_not_mark_twice(world: World) -> None:
    row = world.add()
    world.state.fail(Fault.broken(after=True), method="PATCH")

    world.client().mark_running(evaluated(row), "job")

    assert (row.status, row.job_name) == (SubmissionStatus.RUNNING, ["job"])


def test_a_cancellation_between_two_attempts_is_seen(world: World) -> None:
    row = world.add(SubmissionStatus.RUNNING)
    world.state.fail(Fault.broken(), method="PUT")

    def cancel_before_the_second_attempt(number: int) -> None:
        if number == 4:  # after its phase, its status, the report
            row.status = SubmissionStatus.CANCELLED

    world.before_request = cancel_before_the_second_attempt

    with pytest.raises(SubmissionCancelled):
        world.client().report(report(row, SubmissionStatus.FINISHED))

    assert (row.status, world.state.entries) == (SubmissionStatus.CANCELLED, [])


def test_the_final_report_lands_on_the_submissions_own_leaderboard(world: World) -> None:
    row = world.add(SubmissionStatus.RUNNING, phase=4)

    world.client().report(report(row, SubmissionStatus.FINISHED, stdout="20 of 20 routes"))

    assert row.status is SubmissionStatus.FINISHED
    assert world.state.media[str(row.stdout_file)] == b"20 of 20 routes"
    assert [(e.submission, e.split, e.result) for e in world.state.entries] == [
        (row.pk, 40, {"Driving score": 61.5, "Route completion": 80})
    ]


@pytest.mark.parametrize("status", [SubmissionStatus.FAILED, SubmissionStatus.CANCELLED])
def test_without_a_result_the_team_still_reads_why(world: World, status: SubmissionStatus) -> None:
    row = world.add(SubmissionStatus.RUNNING)

    world.client().report(report(row, status, stderr="The agent \udc80 could not be set up.\x00"))

    assert (row.status, world.state.entries) == (status, [])
    assert world.state.media[str(row.stdout_file)] == b"out"
    assert (
        world.state.media[str(row.stderr_file)].decode()
        == "The agent \N{REPLACEMENT CHARACTER} could not be set up.\N{REPLACEMENT CHARACTER}"
    )


def test_a_partial_report_shows_results_so_far(world: World) -> None:
    row = world.add(SubmissionStatus.RUNNING)
    first = [FINISHED_RESULT[0] | {"accuracies": {"Driving score": 10.0}}]

    world.client().report_partial(report(row, SubmissionStatus.PARTIALLY_EVALUATED, result=first))
    world.client().report(report(row, SubmissionStatus.FINISHED))

    assert row.status is SubmissionStatus.FINISHED
    assert [e.result for e in world.state.entries] == [{"Driving score": 61.5, "Route completion": 80}]


def test_what_evalai_must_not_get_is_not_sent(world: World) -> None:
    row = world.add(SubmissionStatus.RUNNING)
    bad = [FINISHED_RESULT[0] | {"accuracies": {"Driving score": True}}]

    with pytest.raises(RequestRefused, match="'Driving score' is True"):
        world.client().report(report(row, SubmissionStatus.FINISHED, result=bad))

    assert world.requests == 0


def test_a_label_that_evalai_does_not_know_is_refused_once(world: World) -> None:
    row = world.add(SubmissionStatus.RUNNING)
    bad = [FINISHED_RESULT[0] | {"accuracies": {"Driving Score": 1.0}}]

    with pytest.raises(
        RequestRefused, match=r"Following metrics are missing in theleaderboard data: \['Driving Score'\]"
    ):
        world.client().report(report(row, SubmissionStatus.FINISHED, result=bad))

    assert (world.requests, row.status) == (3, SubmissionStatus.RUNNING)  # its phase, its status, the report


def test_html_500_is_tried_again(world: World) -> None:
    row = world.add(SubmissionStatus.QUEUED)
    world.state.fail(Fault.broken(), times=2)

    assert world.client().status(row.pk) is SubmissionStatus.QUEUED
    assert world.requests == 3


def test_tries_are_bounded(world: World) -> None:
    row = world.add()
    world.state.fail(Fault.broken(), times=10)

    with pytest.raises(ServiceUnavailable, match="answered 500"):
        world.client().status(row.pk)

    assert world.requests == QUICK.attempts


def test_retry_after_is_honoured(world: World) -> None:
    row = world.add()
    world.state.fail(Fault.throttled(retry_after=1))
    begin = time.monotonic()

    world.client().status(row.pk)

    assert time.monotonic() - begin >= 1.0
    assert world.requests == 2


def test_a_429_pauses_the_budget_of_the_whole_installation(world: World) -> None:
    row = world.add()
    world.state.fail(Fault.throttled(retry_after=1))

    world.client().status(row.pk)

    assert world.pauses == [1.0]


def test_each_request_takes_its_slots_by_what_it_is_for(world: World) -> None:
    row = world.add()
    client = world.client()

    client.mark_running(evaluated(row), "job")
    client.report_partial(report(row, SubmissionStatus.PARTIALLY_EVALUATED, stdout="", stderr=""))
    client.report(report(row, SubmissionStatus.FINISHED))
    client.status(row.pk)

    status, partial, final, look = Urgency.STATUS, Urgency.PARTIAL, Urgency.REPORT, Urgency.LOOK
    assert world.taken == [status, status, partial, partial, final, final, final, look]


def test_a_wait_beyond_the_time_limit_is_not_begun(world: World) -> None:
    row = world.add()
    world.state.fail(Fault.throttled(retry_after=57))
    begin = time.monotonic()

    with pytest.raises(ServiceUnavailable, match="Expected available in 57 seconds") as caught:
        world.client().status(row.pk)

    assert caught.value.retry_after == 57
    assert (world.requests, time.monotonic() - begin < 57) == (1, True)


def test_a_slow_answer_is_tried_again_and_then_given_up(world: World, caplog: pytest.LogCaptureFixture) -> None:
    row = world.add()
    client = world.client(read=1.0)
    world.state.fail(Fault.slow(1.5))
    assert client.status(row.pk) is SubmissionStatus.SUBMITTED

    world.state.fail(Fault.slow(1.5), times=3)
    with caplog.at_level(logging.DEBUG), pytest.raises(ServiceUnavailable, match="did not answer in time") as caught:
        client.status(row.pk)
    assert_without_token(caught.value, caplog.text)


def test_a_server_that_is_away_is_unavailable(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    world.url = f"http://127.0.0.1:{port}"

    with pytest.raises(ServiceUnavailable, match="cannot be reached"):
        world.client().status(1)

    assert world.requests == QUICK.attempts


def test_a_bad_token_names_the_secret(world: World) -> None:
    row = world.add()

    with pytest.raises(InvalidConfiguration, match="secret evalai"):
        world.client(STRANGER).status(row.pk)

    assert world.requests == 1


def test_the_token_of_a_participant_cannot_report(world: World) -> None:
    row = world.add(SubmissionStatus.RUNNING)

    with pytest.raises(InvalidConfiguration, match="secret evalai"):
        world.client(PARTICIPANT).report(report(row, SubmissionStatus.FAILED))

    assert row.status is SubmissionStatus.RUNNING


def test_an_address_that_is_not_the_api_is_called_so(world: World, httpserver: HTTPServer) -> None:
    httpserver.expect_request("/api/jobs/submission/1").respond_with_data("", 301, {"Location": "https://elsewhere/"})
    standin = world.url

    for wrong in (f"{standin}/web", httpserver.url_for("")):
        world.url = wrong
        with pytest.raises(InvalidConfiguration, match="api_server"):
            world.client().status(1)


@pytest.mark.parametrize(
    ("status", "body", "content_type"),
    [
        (500, "HTTP_AUTHORIZATION = {}", "text/plain"),
        (400, '{{"error": "bad header {}"}}', "application/json"),
        (401, '{{"detail": "{} is unknown"}}', "application/json"),
        (404, '{{"detail": "nothing for {}"}}', "application/json"),
        (200, "hello {}", "text/html"),
        (200, '{{"id": 1, "status": "{}"}}', "application/json"),
    ],
)
def test_the_token_is_in_no_error_and_no_log(
    httpserver: HTTPServer, caplog: pytest.LogCaptureFixture, status: int, body: str, content_type: str
) -> None:
    def echo(request: Request) -> Response:
        given = request.headers["Authorization"].removeprefix("Bearer ")
        return Response(
            body.format(given if status != 200 or "id" not in body else "odd"), status, content_type=content_type
        )

    httpserver.expect_request("/api/jobs/submission/1").respond_with_handler(echo)
    client = EvalAIClient(httpserver.url_for(""), SecretStr(HOST), budget=NoBudget(), retries=QUICK)

    with caplog.at_level(logging.DEBUG), pytest.raises(EvaluationError) as caught:
        client.status(1)

    assert_without_token(caught.value, caplog.text)


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "http://no such host", "http://[::broken", "ftp://x"])
def test_the_token_is_in_no_error_of_the_connection(address: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG), pytest.raises(EvaluationError) as caught:
        EvalAIClient(address, SecretStr(HOST), budget=NoBudget(), retries=QUICK).status(1)

    assert_without_token(caught.value, caplog.text)


@pytest.mark.parametrize("token", ["", "  ", "two words", "line\nbreak", "ünïcode"])
def test_a_token_that_is_no_header_value_is_refused_unseen(token: str) -> None:
    with pytest.raises(InvalidConfiguration, match="secret evalai") as caught:
        EvalAIClient("http://evalai.test", SecretStr(token), budget=NoBudget())

    assert not token.strip() or token not in str(caught.value)


def assert_without_token(error: BaseException, log: str) -> None:
    text = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert "test_" in text  # the frames' variables are shown
    shown = [text.replace(f"'{HOST}'", ""), log]  # but for pytest's own variables
    links: list[BaseException | None] = [error]
    while links[-1] is not None:
        shown += [repr(links[-1]), repr(vars(links[-1]))]
        assert not hasattr(links[-1], "request")
        links.append(links[-1].__cause__ or links[-1].__context__)
    assert HOST not in "".join(shown)


def test_submissions_are_listed(world: World) -> None:
    rows = [world.add(status) for status in SubmissionStatus]
    rows[0].job_name = ["a", "b"]

    every = world.client().submissions(1)

    assert [(r.pk, r.status) for r in every] == [(row.pk, row.status) for row in rows]
    assert (every[0].job_names, every[0].team_name, every[0].stderr_file) == (("a", "b"), "Team 1", "")


def test_a_participant_submits_and_cancels(world: World) -> None:
    client = world.client(PARTICIPANT)

    with pytest.raises(RequestRefused, match="Challenge Phase does not exist"):
        client.submit(1, 9, "registry.test/team:2")
    pk = client.submit(1, 3, "registry.test/team:2", "our method")
    shown = client.submission_row(pk)
    client.cancel(1, pk)

    assert (shown.status, shown.method_name) == (SubmissionStatus.SUBMITTED, "our method")
    assert world.state.submissions[pk].status is SubmissionStatus.CANCELLED
    assert [m.body for m in world.queue] == [
        '{"challenge_pk": "1", "phase_pk": "3", "is_static_dataset_code_upload_submission": false, '
        f'"submitted_image_uri": "registry.test/team:2", "submission_pk": {pk}}}'
    ]


def test_a_host_resumes(world: World) -> None:
    row = world.add(SubmissionStatus.FAILED)
    client = world.client()

    client.resume(row.pk)
    resumed = client.submission_row(row.pk)
    with pytest.raises(RequestRefused, match="Only failed submissions can be resumed"):
        client.resume(row.pk)

    assert (resumed.status, resumed.rerun_resumed_at) == (SubmissionStatus.RESUMING, row.rerun_resumed_at)
    assert len(world.queue) == 1


def test_a_resume_is_not_repeated(world: World) -> None:
    row = world.add(SubmissionStatus.FAILED)
    world.state.storage_answers = False

    with pytest.raises(ServiceUnavailable):
        world.client().resume(row.pk)

    assert (world.requests, world.queue) == (1, [])
    assert world.client().status(row.pk) is SubmissionStatus.RESUMING


def test_no_proxy_is_used_for_this_machine(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    row = world.add()
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)

    assert world.client().status(row.pk) is SubmissionStatus.SUBMITTED


def test_a_message_with_another_image_than_was_handed_in_is_refused(world: World) -> None:
    row = world.add()
    row.input_file = "handed-in.json"
    world.state.media[row.input_file] = b'{"submitted_image_uri": "registry.test/team:2"}'
    own, other = (message(row, submitted_image_uri=f"registry.test/{image}") for image in ("team:2", "mallory:1"))

    assert world.client().submission(own, PHASE).image == "registry.test/team:2"
    with pytest.raises(InvalidMessage, match=r"its team handed in 'registry.test/team:2', the message says"):
        world.client().submission(other, PHASE)


def test_a_message_is_believed_where_the_file_that_was_handed_in_cannot_be_had(
    world: World, httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = world.add()
    httpserver.expect_request("/gone").respond_with_data("no", status=503)
    read_row = EvalAIClient._read_row
    monkeypatch.setattr(
        EvalAIClient,
        "_read_row",
        lambda self, pk: read_row(self, pk).model_copy(update={"input_file": httpserver.url_for("/gone")}),
    )

    assert (
        world.client().submission(message(row, submitted_image_uri="registry.test/a:1"), PHASE).image
        == "registry.test/a:1"
    )
