from pathlib import Path

import pytest

from deployments.settings import Settings, load_settings
from evaluation.errors import InvalidConfiguration


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"LEADERBOARD_{name.upper()}", raising=False)


def test_defaults_stay_inside_the_state_folder() -> None:
    settings = load_settings()
    folder = Path(".leaderboard")
    assert (settings.state_file, settings.logs, settings.cache) == (
        folder / "stack.json",
        folder / "logs",
        folder / "cache",
    )


def test_a_variable_sets_its_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEADERBOARD_PREFECT_PORT", "4300")
    monkeypatch.setenv("LEADERBOARD_CACHE_DIR", "elsewhere")
    settings = load_settings()
    assert settings.prefect_port == 4300
    assert settings.cache == Path("elsewhere")


def test_a_wrong_value_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LEADERBOARD_AWS_PORT", "99999")
    with pytest.raises(InvalidConfiguration, match=r"LEADERBOARD_AWS_PORT: .*65535"):
        load_settings()


def test_every_setting_is_described() -> None:
    assert [name for name, field in Settings.model_fields.items() if not field.description] == []
