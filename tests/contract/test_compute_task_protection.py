"""ECS's agent, as its address in ECS_AGENT_URI answers."""

import pytest
from pytest_httpserver import HTTPServer
from werkzeug import Request, Response

from aws_api.ecs_task_protection import protect_task
from evaluation.errors import RequestRefused, ServiceUnavailable
from tests.contract.aws_blocks import UNREACHABLE

PLACE = "/api/8c5e/task-protection/v1/state"


def environment(server: HTTPServer) -> dict[str, str]:
    return {"ECS_AGENT_URI": server.url_for("/api/8c5e")}


@pytest.mark.parametrize(("seconds", "minutes"), [(1, 1), (120, 2), (121, 3), (10**9, 2880)])
def test_protection_is_asked_for_in_whole_minutes(httpserver: HTTPServer, seconds: float, minutes: int) -> None:
    asked: list[object] = []

    def answer(request: Request) -> Response:
        asked.append(request.get_json())
        return Response('{"protection": {"ProtectionEnabled": true}}', content_type="application/json")

    httpserver.expect_request(PLACE, method="PUT").respond_with_handler(answer)

    assert protect_task(seconds, environment(httpserver)) is True
    assert asked == [{"ProtectionEnabled": True, "ExpiresInMinutes": minutes}]


def test_elsewhere_there_is_nothing_to_protect() -> None:
    assert protect_task(60, {}) is False


@pytest.mark.parametrize(
    ("status", "body", "raised", "said"),
    [
        (400, '{"error": {"Code": "AccessDeniedException", "Message": "no"}}', RequestRefused, "AccessDeniedException"),
        (200, '{"failure": {"Reason": "TASK_NOT_VALID"}, "requestID": "r"}', RequestRefused, "TASK_NOT_VALID"),
        (500, '{"error": {"Code": "ServerException"}}', ServiceUnavailable, "answers 500"),
        (200, "<html>", ServiceUnavailable, "does not answer"),
    ],
)
def test_a_refusal_is_told(httpserver: HTTPServer, status: int, body: str, raised: type[Exception], said: str) -> None:
    httpserver.expect_request(PLACE).respond_with_data(body, status, content_type="application/json")

    with pytest.raises(raised, match=said):
        protect_task(60, environment(httpserver))


def test_an_agent_that_is_away_is_an_outage() -> None:
    with pytest.raises(ServiceUnavailable, match="ECS's agent does not answer"):
        protect_task(60, {"ECS_AGENT_URI": UNREACHABLE})
