"""A service that is started before Prefect's server waits for it."""

import logging
from collections.abc import Iterator

import pytest
import stamina

from cli.setup import patiently
from evaluation.errors import InvalidConfiguration, ServiceUnavailable


@pytest.fixture(autouse=True)
def without_pauses() -> Iterator[None]:
    with stamina.set_testing(True, attempts=5):
        yield


def test_an_outage_at_the_start_is_waited_out(caplog: pytest.LogCaptureFixture) -> None:
    answers: list[str | Exception] = [ServiceUnavailable("Prefect's server does not answer")] * 3 + ["the queue"]

    def load() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    with caplog.at_level(logging.WARNING, "cli.setup"):
        assert patiently(load, "no queue yet") == "the queue"

    lines = [record.getMessage() for record in caplog.records if record.name == "cli.setup"]
    assert lines == ["no queue yet, it is tried again: Prefect's server does not answer."] * 3


def test_a_wrong_configuration_is_not_waited_out() -> None:
    def load() -> str:
        raise InvalidConfiguration("There is no block")

    with pytest.raises(InvalidConfiguration, match="There is no block"):
        patiently(load, "no queue yet")
