"""Which installation a command talks to."""

from pathlib import Path

import pytest
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_KEY, PREFECT_API_URL, temporary_settings

from deployments.installation import installation
from deployments.settings import Settings
from deployments.stack_state import write_state
from embedded.stack_lock import stack_lock
from evaluation.errors import InvalidConfiguration, ServiceUnavailable
from tests.stack_states import stack_state

REAL = "https://prefect.example/api"


def test_a_stack_that_is_up_comes_before_the_address_and_gets_no_key_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.setenv(name, "")  # set for the stack, and back afterwards
    settings, stack = Settings(state_dir=tmp_path), stack_state(tmp_path)
    with stack_lock(settings), temporary_settings({PREFECT_API_URL: REAL, PREFECT_API_KEY: "pnu_key"}):
        write_state(settings, stack)

        with installation(settings) as chosen:
            used = (PREFECT_API_URL.value(), PREFECT_API_KEY.value())

    assert (chosen.stack, str(chosen)) == (stack, "the embedded stack at http://127.0.0.1:4200/api")
    assert used == ("http://127.0.0.1:4200/api", None)


def test_without_a_stack_the_address_counts(tmp_path: Path) -> None:
    with temporary_settings({PREFECT_API_URL: REAL}), installation(Settings(state_dir=tmp_path)) as chosen:
        assert PREFECT_API_URL.value() == REAL

    assert (chosen.stack, str(chosen)) == (None, f"the installation at {REAL}")


def test_with_neither_one_sentence_says_what_to_do(tmp_path: Path) -> None:
    nowhere = temporary_settings(restore_defaults={PREFECT_API_URL})
    refused = pytest.raises(InvalidConfiguration, match="Start a stack with `make up`, or set PREFECT_API_URL")
    with nowhere, refused, installation(Settings(state_dir=tmp_path)):
        pass


def test_a_server_that_does_not_answer_is_named_in_one_sentence(tmp_path: Path) -> None:
    away = "http://127.0.0.1:9/api"
    silent = pytest.raises(ServiceUnavailable, match=f"Asking Prefect's server at {away} failed: ConnectError")
    with temporary_settings({PREFECT_API_URL: away}), silent, installation(Settings(state_dir=tmp_path)):
        get_client(sync_client=True).read_work_pool("leaderboard")


def test_a_stack_that_starts_is_waited_for_by_nobody(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    with stack_lock(settings):
        write_state(settings, stack_state(tmp_path, ready=False))
        with pytest.raises(ServiceUnavailable, match="still starting"), installation(settings):
            pass
