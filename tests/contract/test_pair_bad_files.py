"""Bad files in the pair's directory: the last good checkpoint stays, the pair starts again, then the shard fails."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from evaluation import storage_keys
from evaluation.errors import Fault, InvalidCheckpoint
from evaluation.pair.protocol import PairExitCode, failure_of
from evaluation.results.checkpoint_json import MAX_BYTES
from evaluation.shards import Budgets
from shard_pod.prepare import prepare
from tests.bad_files import BAD_FILES
from tests.contract.pair_bench import CRASHED, GOOD, Bench, Make, benches, document, text
from tests.result_files import as_bytes
from tests.waiting import eventually

Put = Callable[[Path], object]


@pytest.fixture
def bench(tmp_path: Path, aws: dict[str, Any]) -> Iterator[Make]:
    yield from benches(tmp_path, aws)


def _sparse(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(200_000_000)


def _folder(path: Path) -> None:
    path.unlink(missing_ok=True)
    (path / "kept").mkdir(parents=True)
    path.with_name(f".{path.name}.new").mkdir(exist_ok=True)


def _pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


def _link(path: Path) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to("/etc/hostname")


NO_FILE = "the file is not a regular file, or may not be read"
KINDS: dict[str, tuple[Put, str]] = {
    **{
        kind: (lambda path, content=content: path.write_bytes(content()), reason)
        for kind, (content, reason) in BAD_FILES.items()
        if kind != "200 MB"
    },
    "200 MB": (_sparse, BAD_FILES["200 MB"][1]),
    "records lost": (lambda path: path.write_text(text()), "the file has 0 records, and had 1 before"),
    "a folder": (_folder, NO_FILE),
    "a pipe": (_pipe, NO_FILE),
    "a link": (_link, NO_FILE),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_file_costs_a_restart_then_the_shard_with_its_reason_and_never_the_good_one(
    bench: Make, kind: str
) -> None:
    put, reason = KINDS[kind]
    pair = bench()  # one restart for the agent
    pair.keep()
    pair.started(1)
    pair.writes(text(GOOD))
    eventually(lambda: pair.stored(storage_keys.checkpoint_key) is not None)

    put(pair.settings.checkpoint)
    eventually(lambda: f"; its checkpoint is refused: {reason}" in pair.detail())
    pair.ends(1, "stopped", "died 0")
    pair.started(2)

    assert pair.settings.checkpoint.read_text() == text(GOOD)
    assert f"and left a bad checkpoint ({reason}" in json.loads(pair.files.published("start2") or "")["detail"]

    put(pair.settings.checkpoint)
    pair.ends(2, "stopped", "died 0")

    assert pair.exit_code() is PairExitCode.AGENT_CRASHED
    assert pair.stored(storage_keys.checkpoint_key) == text(GOOD).encode()
    progress = pair.progress()
    failure = failure_of(PairExitCode.AGENT_CRASHED, progress.detail)
    assert failure.fault is Fault.TEAM
    assert failure.cause.startswith(
        f"the evaluator ended with code 0 before all routes were driven and left a bad checkpoint ({reason}"
    )
    assert failure.cause.endswith("after 1 of 1 restarts")
    assert (progress.routes_done, progress.counters.agent_restarts) == (1, 1)


EXIT_FILES: dict[str, Put] = {"a folder": _folder, "a pipe": _pipe, "a link": _link}


@pytest.mark.parametrize("kind", EXIT_FILES)
def test_an_exit_file_that_the_agent_turns_into_something_else_is_charged_to_the_agent(bench: Make, kind: str) -> None:
    pair = bench(budgets=Budgets(1, 0, 1))
    pair.keep()
    pair.started(1)

    EXIT_FILES[kind](pair.files.agent / "exit1")
    eventually(lambda: pair.files.published("stop1") == "partner")
    (pair.files.simulator / "exit1").write_text("stopped\n")

    pair.started(2)
    assert "its exit file is not a file that can be read" in json.loads(pair.files.published("start2") or "")["detail"]


def test_an_exit_file_that_never_comes_is_charged_to_the_agent(bench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shard_pod.supervisor.ANSWER_SECONDS", 0.3)
    pair = bench(hang_seconds=0.2)
    pair.keep()
    pair.started(1)
    eventually(lambda: pair.files.published("stop1") == "hang")
    (pair.files.simulator / "exit1").write_text("stopped\n")

    exit_code = pair.exit_code()
    assert exit_code is PairExitCode.AGENT_CRASHED
    assert failure_of(exit_code, pair.progress().detail).fault is Fault.TEAM


@pytest.mark.parametrize("moment", [0.0, 4e9])
def test_the_times_of_the_agents_files_are_not_believed(bench: Make, moment: float) -> None:
    pair = bench(hang_seconds=0.5)
    pair.keep()
    pair.started(1)
    for name in ("agent.log", "exit1"):
        (pair.files.agent / name).write_text("died 1\n")
        os.utime(pair.files.agent / name, (moment, moment))

    eventually(lambda: pair.files.published("stop1") == "partner")


def test_a_good_file_after_a_bad_one_is_taken_and_the_reason_goes(bench: Make) -> None:
    pair = bench()
    pair.keep()
    pair.started(1)
    pair.writes("{")
    eventually(lambda: "its checkpoint is refused" in pair.detail())

    pair.writes(text(GOOD, GOOD, GOOD))
    pair.ends(1, "stopped", "died 0")

    assert pair.exit_code() is PairExitCode.FINISHED
    assert pair.progress().detail == "every route has its record"


def test_a_folder_that_cannot_be_written_ends_the_shard_and_keeps_what_was_driven(bench: Make, tmp_path: Path) -> None:
    inner = tmp_path / "pod" / "agent" / "inner"
    pair = bench(checkpoint=inner / "checkpoint.json")
    inner.mkdir()
    pair.keep()
    pair.started(1)
    pair.writes(text(GOOD))
    eventually(lambda: pair.stored(storage_keys.checkpoint_key) is not None)

    pair.settings.checkpoint.unlink()
    inner.rmdir()
    inner.touch()
    pair.ends(1, "stopped", "died 1")

    assert pair.exit_code() is PairExitCode.AGENT_CRASHED
    assert "the evaluator's checkpoint: the file cannot be replaced" in pair.progress().detail
    assert pair.stored(storage_keys.checkpoint_key) == text(GOOD).encode()


def test_a_shard_that_has_finished_is_finished_whatever_becomes_of_the_agents_folder(
    bench: Make, tmp_path: Path
) -> None:
    inner = tmp_path / "pod" / "agent" / "inner"
    pair = bench(checkpoint=inner / "checkpoint.json")
    inner.mkdir()
    pair.keep()
    pair.started(1)
    pair.writes(text(GOOD, GOOD, GOOD))
    eventually(lambda: pair.stored(storage_keys.checkpoint_key) is not None)

    pair.settings.checkpoint.unlink()
    inner.rmdir()
    inner.touch()
    pair.ends(1, "stopped", "died 0")

    assert pair.exit_code() is PairExitCode.FINISHED


@pytest.mark.parametrize("content", [b"{", bytes(MAX_BYTES + 1)], ids=["cut off", "too large"])
def test_on_a_bad_file_in_s3_nothing_is_driven(bench: Make, content: bytes) -> None:
    pair = bench()
    pair.storage.write(storage_keys.checkpoint_key(7, 0), content, "application/json")

    with pytest.raises(InvalidCheckpoint, match=r"^s3://leaderboard-20-results/7/shards/0/checkpoint\.json: the file "):
        prepare(pair.settings, pair.storage)

    assert not pair.settings.checkpoint.exists()


def test_progress_in_s3_that_is_none_leaves_full_budgets(bench: Make) -> None:
    pair = bench()
    pair.storage.write(storage_keys.progress_key(7, 0), bytes(MAX_BYTES + 1), "application/json")

    prepare(pair.settings, pair.storage)

    assert not pair.files.progress.exists()


def test_what_can_be_mended_is(bench: Make) -> None:
    pair = bench()
    pair.keep()
    pair.started(1)
    newer = document(GOOD, CRASHED, entry="Crashed") | {"version": 3}
    newer["_checkpoint"]["progress"] = [0, 3]
    pair.settings.checkpoint.write_bytes(as_bytes(newer))
    pair.ends(1, "died 139", "died 255")
    eventually((pair.files.supervisor / "start2").exists)

    mended = json.loads(pair.settings.checkpoint.read_text())
    assert mended["_checkpoint"]["progress"] == [1, 3]
    assert (mended["entry_status"], mended["version"]) == ("Started", 3)


def test_the_end_of_an_endless_log_still_reaches_s3(bench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = bench()
    monkeypatch.setattr("shard_pod.upload.LOG_BYTES", 100)
    pair.keep()
    pair.started(1)
    pair.files.logs["agent"].write_text("x" * 500)
    eventually(lambda: pair.storage.read(log_key(pair)) is not None)

    with pair.files.logs["agent"].open("a") as log:
        log.write("the last words")
    pair.writes(text(GOOD, GOOD, GOOD))
    pair.ends(1, "stopped", "died 0")

    assert pair.exit_code() is PairExitCode.FINISHED
    assert (pair.storage.read(log_key(pair)) or b"").endswith(b"the last words")


def log_key(pair: Bench) -> str:
    return storage_keys.log_key(pair.settings.submission, pair.settings.shard, pair.settings.attempt, "agent")
