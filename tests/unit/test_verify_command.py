"""`leaderboard verify`: what an operator reads, decides, and gets as exit code."""

import json
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from cli import verify as command
from evaluation.errors import RequestRefused
from evaluation.lifecycle.outcome import Outcome, OutcomeStatus
from flows.held_results import KeptResult
from tests.fakes import FakeStore
from tests.unit.test_reconciler_decisions import ENDED

HELD = Outcome(
    OutcomeStatus.HELD,
    "Submission 7 is held: there are 2 reasons.",
    metrics={"Driving score": 61.25},
    reasons=("route 3: a reason [bold].", "shard 1: another."),
)


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch) -> list[KeptResult]:
    """The result that the command finds."""
    cluster: Any = SimpleNamespace(artifacts=FakeStore())
    found = [KeptResult(replace(ENDED, status="held"), HELD, cluster)]

    async def services() -> Any:
        return SimpleNamespace(provenance_key=None)

    async def result(_services: Any, submission: int) -> KeptResult:
        assert submission == 7
        return found[0]

    monkeypatch.setattr(command, "installation", lambda _: nullcontext())
    monkeypatch.setattr(command, "load_services_for_person", services)
    monkeypatch.setattr(command, "kept_result", result)
    monkeypatch.setattr(command, "check_provenance", lambda *_: ("Provenance: signed; 9 files are as they were.", True))
    return found


def test_the_reasons_are_shown_as_they_are_and_the_exit_code_says_held(
    kept: list[KeptResult], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.verify(7) == 3

    shown = capsys.readouterr().out
    assert "  - route 3: a reason [bold].\n  - shard 1: another.\n  Driving score: 61.250\n" in shown
    assert shown.endswith("Provenance: signed; 9 files are as they were.\n")


def test_json_has_everything(kept: list[KeptResult], capsys: pytest.CaptureFixture[str]) -> None:
    assert command.verify(7, as_json=True) == 3

    assert json.loads(capsys.readouterr().out) == {
        "submission": 7,
        "held": True,
        "outcome": "held",
        "sentence": HELD.sentence,
        "reasons": list(HELD.reasons),
        "provenance": "Provenance: signed; 9 files are as they were.",
        "provenance_right": True,
    }


@pytest.mark.parametrize("decision", ["release", "reject"])
def test_a_decision_is_carried_out_with_its_reason(
    kept: list[KeptResult],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    decision: str,
) -> None:
    async def decide(result: KeptResult, who: str, because: str) -> Outcome:
        assert result is kept[0]
        return replace(HELD, ending=OutcomeStatus.FINISHED, sentence=f"decided because {because}")

    monkeypatch.setattr(command, decision, decide)

    assert command.verify(7, **{decision: True}, because="it is right") == 0
    assert capsys.readouterr().out.startswith("decided because it is right\n")


def test_a_finished_result_whose_files_have_changed_ends_with_3(
    kept: list[KeptResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept[0] = replace(kept[0], entry=ENDED, outcome=replace(HELD, ending=OutcomeStatus.FINISHED, reasons=()))
    assert command.verify(7) == 0

    monkeypatch.setattr(command, "check_provenance", lambda *_: ("Provenance: changed.", False))
    assert command.verify(7) == 3


def test_nobody_can_release_and_reject_at_once(kept: list[KeptResult]) -> None:
    with pytest.raises(RequestRefused, match="released or rejected, not both"):
        command.verify(7, release=True, reject=True)


@pytest.mark.parametrize("decision", ["release", "reject"])
@pytest.mark.parametrize("because", ["", "  "])
def test_a_decision_needs_its_reason(kept: list[KeptResult], decision: str, because: str) -> None:
    with pytest.raises(RequestRefused, match=f"--{decision} needs a reason: .* Add --because and a sentence"):
        command.verify(7, **{decision: True}, because=because)


def test_a_reason_without_a_decision_decides_nothing(kept: list[KeptResult]) -> None:
    with pytest.raises(RequestRefused, match="Add --because and a sentence to --release or --reject"):
        command.verify(7, because="it is right")
