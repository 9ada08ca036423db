"""The block's phases, without any server."""

import asyncio

import pytest
from pydantic import SecretStr
from pytest_httpserver import HTTPServer

from blocks.evalai import EvalAI
from evaluation.errors import InvalidConfiguration, InvalidMessage, RequestRefused
from evaluation.submission.message import SubmissionMessage
from evaluation.submission.model import parse_phase
from flows.services import load_services_for_person


def block(**more: object) -> EvalAI:
    fields: dict[str, object] = {
        "api_server": "https://evalai.test",
        "auth_token": SecretStr("token-5c1e"),
        "phases": {"2201": "leaderboard-10-SENSORS", "2204": "nonsense"},
    }
    return EvalAI.model_validate(fields | more)


def test_a_phase_is_found_by_its_id() -> None:
    assert block().phase(2201) == parse_phase("leaderboard-10-SENSORS")


def test_an_unknown_phase_names_the_secret_and_what_it_knows() -> None:
    with pytest.raises(InvalidConfiguration, match=r"Phase 9 is not in the secret evalai-tracks.*2201, 2204"):
        block().phase(9)


def test_a_codename_that_does_not_split_is_a_wrong_configuration() -> None:
    with pytest.raises(InvalidConfiguration, match="'nonsense' does not split"):
        block().phase(2204)


def test_the_token_is_not_shown() -> None:
    assert "token-5c1e" not in repr(block()) + str(block()) + str(block().model_dump())


def test_a_command_that_a_person_waits_for_takes_no_slot_of_the_installations_budget(
    httpserver: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is no Prefect server, which keeps the budget."""
    httpserver.expect_request("/api/jobs/submission/7").respond_with_json({"id": 7})
    found = block(api_server=httpserver.url_for("/"))

    async def load(*_: object) -> object:
        return found

    monkeypatch.setattr("flows.services.load_block", load)
    services = asyncio.run(load_services_for_person())

    with pytest.raises(RequestRefused, match="challenge_phase is missing"):
        services.evalai.submission_row(7)


def test_its_client_refuses_messages_of_other_challenges() -> None:
    message = SubmissionMessage(challenge_pk=2, phase_pk=2201, submission_pk=1)

    with pytest.raises(InvalidMessage, match="serves 1"):
        block(challenge_pk=1).client().submission(message, parse_phase("leaderboard-10-SENSORS"))
