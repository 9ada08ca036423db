"""What `status`, `logs` and `watch` make of the ledger, EvalAI's list and S3."""

import json
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from io import StringIO
from pathlib import Path
from typing import Any, cast

import pytest
from rich.console import Console

from cli import submissions
from cli.logs import LogReader, Wanted, followed
from cli.observers import Challenge, while_it_lasts
from cli.progress_view import board, watch_live
from cli.submission_list import merged
from cli.submission_progress import Observer, Pace, Place, Progress
from deployments.installation import Installation
from deployments.settings import Settings
from deployments.stack_state import write_state
from evaluation import storage_keys
from evaluation.errors import InvalidConfiguration, ServiceUnavailable
from evaluation.lifecycle.ledger_entry import LedgerEntry, read_entry
from evaluation.lifecycle.shard_progress import ShardProgress
from evaluation.pair.protocol import Counters, PairProgress
from evaluation.shards import Plan, Shard, ShardState, render_plan
from evaluation.submission.model import SubmissionStatus
from tests.fakes import FakeLedger, FakeStore
from tests.stack_states import stack_state

ROW = {
    "submission-id": "7", "team-id": "3", "challenge-id": "1", "phase-id": "2", "attempt": 1, "claim-owner": "run",
    "phase": "leaderboard-20-SENSORS", "team-name": "Rockets", "claimed-at": "2026-01-05T09:00:00+00:00",
    "stage": "simulating", "status": "running", "submitted-at": "2026-01-05T08:00:00+00:00",
}  # fmt: skip
ENDED = ROW | {"end-time": "2026-01-05T10:00:00+00:00", "routes-done": 20, "routes-total": 20}
FINISHED = ENDED | {"status": "finished", "Driving score": 77.087, "remarks": "Pairs were started again once."}


@dataclass(frozen=True)
class Listed:
    pk: int
    status: SubmissionStatus
    phase_pk: int = 2
    team_pk: int = 3
    team_name: str = "Rockets"
    input_file: str = ""
    submitted_at: datetime | None = datetime(2026, 1, 5, tzinfo=UTC)
    rerun_resumed_at: datetime | None = None
    withdrawn: bool = False


def entry(row: dict[str, Any], **changes: Any) -> LedgerEntry:
    found = read_entry({**row, **changes})
    assert found is not None
    return found


def test_the_list_has_scores_remarks_and_reasons_newest_first() -> None:
    failed = ENDED | {"submission-id": "9", "status": "failed", "reason": "The agent hangs.", "Driving score": 50.0}
    entries = [entry(FINISHED), entry(failed), entry(ROW | {"submission-id": "8"})]
    listed = [Listed(10, SubmissionStatus.SUBMITTED), Listed(7, SubmissionStatus.FINISHED)]

    lines = merged(entries, listed, {2: "leaderboard-20-SENSORS"})

    assert [(line.submission, line.status, line.score, line.text) for line in lines] == [
        (10, "submitted", None, ""),
        (9, "failed", None, "The agent hangs."),
        (8, "simulating", None, ""),
        (7, "finished", 77.087, "Pairs were started again once."),
    ]


def test_what_evalai_says_otherwise_is_said() -> None:
    [line] = merged([entry(FINISHED)], [Listed(7, SubmissionStatus.FINISHED, withdrawn=True)], {})
    assert line.text == "EvalAI says cancelled. Pairs were started again once."
    [resumed] = merged([entry(ENDED, status="failed")], [Listed(7, SubmissionStatus.RESUMING)], {})
    assert resumed.status == "resuming"


def test_while_evalai_is_away_one_submission_is_shown_from_the_ledger(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def away(_pk: int) -> Listed:
        raise ServiceUnavailable("EvalAI did not answer in time")

    places = {"leaderboard-20": Place(FakeLedger({7: dict(FINISHED)}), FakeStore())}
    monkeypatch.setattr(submissions, "installation", lambda _settings: nullcontext())
    monkeypatch.setattr(
        submissions, "load_challenge", lambda: Challenge(cast(Any, None), cast(Any, None), dict(places))
    )
    monkeypatch.setattr(submissions, "observer_of", lambda *_: Observer(away, places, {}))

    submissions.status(7, as_json=True)

    shown = capsys.readouterr()
    assert json.loads(shown.out)["score"] == 77.087
    assert shown.err.startswith("EvalAI does not answer, this is what the ledger says. EvalAI did not answer in time")
    with pytest.raises(ServiceUnavailable, match="did not answer in time"):
        submissions.status(8)


def an_observer(ledger: FakeLedger, store: FakeStore, asked: list[int]) -> Observer:
    def ask(pk: int) -> Listed:
        asked.append(pk)
        return Listed(pk, SubmissionStatus.RUNNING if len(asked) == 1 else SubmissionStatus.FINISHED)

    places = {"leaderboard-20": Place(ledger, store)}
    return Observer(ask, places, {2: "leaderboard-20-SENSORS"}, Pace(0, 0))


def test_a_watcher_reads_ledger_and_folder_until_both_say_that_it_has_ended() -> None:
    ledger, asked = FakeLedger({7: dict(FINISHED)}), list[int]()

    seen = list(an_observer(ledger, FakeStore(), asked).follow(7))

    assert [each.evalai for each in seen] == [SubmissionStatus.RUNNING, SubmissionStatus.FINISHED]
    assert (seen[-1].score, seen[-1].remarks, seen[-1].over) == (77.087, "Pairs were started again once.", True)


def test_a_program_gets_a_json_line_for_each_change_and_the_end_last() -> None:
    running = Progress(7, "leaderboard-20-SENSORS", 3, SubmissionStatus.RUNNING, {"attempt": "1"}, SHARDS[:1])
    ended = replace(running, evalai=SubmissionStatus.FINISHED, row={name: str(FINISHED[name]) for name in FINISHED})
    output = StringIO()

    last = watch_live(Console(file=output), [running, running, ended], as_json=True)

    lines = [json.loads(line) for line in output.getvalue().splitlines()]
    assert [(line["status"], line["driving_score"]) for line in lines] == [("running", None), ("finished", 77.087)]
    assert last is ended


SHARDS = (
    ShardProgress(0, ShardState.DRIVING, 2, 5, "drives route 3"),
    ShardProgress(1, ShardState.FAILED, 1, 5, "The agent crashed again and again: it ended with code 139. Correct it."),
)


@pytest.mark.parametrize("width", [80, 100, 200])
def test_the_board_keeps_states_and_details_whole_in_any_width(width: int) -> None:
    seen = Progress(7, "leaderboard-20-SENSORS", 3, SubmissionStatus.RUNNING, {"attempt": "1"}, SHARDS, "Rockets")
    console = Console(width=width)

    lines = [line.plain for line in board(console, seen, ["0:00:07", ""])]

    assert max(map(len, lines)) <= width
    assert lines[0] == "Submission 7, leaderboard-20-SENSORS, Rockets: running, 3 of 10 routes"
    joined = " ".join(" ".join(lines).split())
    for words in ("failed", "driving", "2/5", "0:00:07", "The agent crashed again and again", "139. Correct it."):
        assert words in joined


def test_a_stack_that_was_replaced_is_said(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    target = Installation("http://127.0.0.1:4200/api", stack_state(tmp_path))

    def refused() -> Iterator[Progress]:
        raise InvalidConfiguration("EvalAI does not accept the token")
        yield

    write_state(settings, stack_state(tmp_path, "another"))
    with pytest.raises(ServiceUnavailable, match="The stack was stopped: another one has taken its place"):
        next(while_it_lasts(refused(), target, settings))
    write_state(settings, stack_state(tmp_path))
    with pytest.raises(InvalidConfiguration, match="token"):
        next(while_it_lasts(refused(), target, settings))


def key(shard: int, process: str, attempt: int = 1) -> str:
    return storage_keys.log_key(7, shard, attempt, process)


def test_logs_show_the_last_lines_then_what_is_new_without_control_characters() -> None:
    store = FakeStore({key(0, "agent"): b"one\ntwo\nthr\x1b[2Jee\n", key(0, "agent", 2): b"later", "7/x": b""})
    reader = LogReader(store, Wanted(7, 1), 2)

    assert list(reader.news()) == ["shard 0 agent | two", "shard 0 agent | thr�[2Jee"]
    assert list(reader.news()) == []
    store.objects |= {key(0, "agent"): b"one\ntwo\nthr\x1b[2Jee\nfour\n", key(3, "simulator"): b"begins\n"}
    assert list(reader.news()) == ["shard 0 agent | four", "shard 3 simulator | begins"]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        (Wanted(7, 1, shard=3), ["shard 3 agent | three"]),
        (Wanted(7, 1, process="sim"), ["shard 0 simulator | sim"]),
        (Wanted(7, 2), ["shard 0 agent | second"]),
    ],
)
def test_logs_of_one_shard_process_or_attempt(wanted: Wanted, found: list[str]) -> None:
    objects = {key(0, "agent"): b"zero", key(3, "agent"): b"three", key(0, "simulator"): b"sim"}
    objects[storage_keys.last_lines_key(7, 3, 1, "agent")] = b"a second copy"
    assert list(LogReader(FakeStore(objects | {key(0, "agent", 2): b"second"}), wanted, 9).news()) == found


def test_following_ends_with_the_evaluation_and_after_its_last_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.logs.POLL_SECONDS", 0)
    store, answers = FakeStore({key(0, "agent"): b"a\n"}), iter((True, False))

    def goes_on() -> bool:
        going = next(answers)
        if not going:
            store.objects[key(0, "agent")] = b"a\nlast\n"
        return going

    assert list(followed(LogReader(store, Wanted(7, 1), 5), goes_on)) == ["shard 0 agent | a", "shard 0 agent | last"]


def test_after_a_resume_the_shards_are_not_shown_as_the_attempt_before_left_them() -> None:
    store, ledger = FakeStore(), FakeLedger({7: {**FINISHED, "attempt": 2, "usage": {"1": {"driving": 4}}}})
    plan = Plan((Shard(0, 1, (0, 1)),), 1)
    store.write("7/plan.json", render_plan(plan).encode(), "application/json")
    left = PairProgress(1, ShardState.FAILED, 2, 2, None, Counters(), None, "the agent crashed", datetime.now(UTC))
    store.write(storage_keys.progress_key(7, 0), left.render().encode(), "application/json")

    seen = an_observer(ledger, store, []).snapshot(7)

    assert [(each.state, each.routes_done) for each in seen.shards] == [(ShardState.WAITING, 0)]
    assert (seen.row["attempt"], seen.row["usage"]) == ("2", {"1": {"driving": 4}})
