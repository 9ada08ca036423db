"""The block's phases, without any server."""

import pytest
from pydantic import SecretStr

from blocks.evalai import EvalAI
from evaluation.errors import InvalidConfiguration, InvalidMessage
from evaluation.submission.message import SubmissionMessage
from evaluation.submission.model import parse_phase


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


def test_its_client_refuses_messages_of_other_challenges() -> None:
    message = SubmissionMessage(challenge_pk=2, phase_pk=2201, submission_pk=1)

    with pytest.raises(InvalidMessage, match="serves 1"):
        block(challenge_pk=1).client().submission(message, parse_phase("leaderboard-10-SENSORS"))
