"""A service that starts before Prefect's server waits for it."""

import pytest

from cli.setup import patiently
from evaluation.errors import InvalidConfiguration, ServiceUnavailable


def test_an_outage_at_the_start_is_waited_out_with_longer_and_longer_pauses() -> None:
    answers: list[str | Exception] = [ServiceUnavailable("Prefect is down")] * 4
    answers.append("the queue")
    pauses: list[float] = []

    def load() -> str:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    assert patiently(load, "no queue yet", longest_pause=5, sleep=pauses.append) == "the queue"
    assert pauses == [1, 2, 4, 5]


def test_a_set_up_that_is_missing_is_said_at_once() -> None:
    def load() -> str:
        raise InvalidConfiguration("The block is missing")

    with pytest.raises(InvalidConfiguration):
        patiently(load, "no queue yet")
