"""The supervisor and `prepare` against a real S3 server; the test plays simulator and agent."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evaluation import storage_keys
from evaluation.errors import InvalidCheckpoint, InvalidConfiguration, ServiceUnavailable
from evaluation.pair.observations import Observations, parse_observations, record_digest
from evaluation.pair.protocol import PairExitCode
from evaluation.results.checkpoint_writing import render_document
from evaluation.routes import RouteRun, expand
from evaluation.shards import Budgets, RoutePlan, ShardState
from evaluation.submission.model import LeaderboardVersion
from shard_pod.prepare import prepare
from shard_pod.settings import read_settings
from tests.contract.pair_bench import (
    BUCKET,
    CRASHED,
    GOOD,
    ROUTES,
    SENSORS,
    SETUP,
    Bench,
    Make,
    benches,
    container,
    contract,
    credentials,
    document,
    statuses_in,
    text,
)
from tests.waiting import PATIENCE_SECONDS, eventually

# What takes long and knows nothing of routes is tested with one plan.
FIXED_ONLY = pytest.mark.parametrize("bench", [RoutePlan.FIXED], indirect=True)


@pytest.fixture(params=RoutePlan)
def bench(tmp_path: Path, aws: dict[str, Any], request: pytest.FixtureRequest) -> Iterator[Make]:
    yield from benches(tmp_path, aws, request.param)


def test_a_finished_pair_has_its_checkpoint_progress_and_logs_in_s3(bench: Make) -> None:
    pair = bench()
    pair.keep()
    pair.started(1)
    pair.files.logs["agent"].write_text("driving\n")
    pair.writes(text(GOOD, GOOD, GOOD))
    pair.ends(1, "stopped", "died 0")

    assert pair.exit_code() is PairExitCode.FINISHED
    assert pair.stored(storage_keys.checkpoint_key) == text(GOOD, GOOD, GOOD).encode()
    assert (pair.progress().state, pair.progress().routes_done) == (ShardState.FINISHED, 3)
    assert pair.storage.read(storage_keys.log_key(7, 0, 1, "agent")) == b"driving\n"
    assert pair.files.published("exit_code") == "0"


def test_partial_results_and_progress_are_copied_while_driving(bench: Make) -> None:
    pair = bench()
    pair.keep()
    pair.started(1)
    pair.writes(text(GOOD))

    eventually(lambda: pair.stored(storage_keys.checkpoint_key) == text(GOOD).encode())
    eventually(lambda: pair.progress().state is ShardState.DRIVING)
    assert (pair.progress().routes_done, pair.progress().route) == (1, 1)


@pytest.mark.parametrize("broken", ["", "{", text(GOOD, GOOD)[:-20], "[]", text(), text(GOOD).replace("_0_", "_1_")])
def test_a_bad_checkpoint_never_replaces_a_good_one_and_is_mended_before_the_restart(bench: Make, broken: str) -> None:
    pair = bench()
    pair.keep()
    pair.started(1)
    pair.writes(text(GOOD))
    eventually(lambda: pair.stored(storage_keys.checkpoint_key) is not None)

    pair.writes(broken)
    pair.ends(1, "stopped", "died 1")
    pair.started(2)

    assert pair.stored(storage_keys.checkpoint_key) == text(GOOD).encode()
    assert pair.settings.checkpoint.read_text() == text(GOOD)


def test_the_agents_file_is_removed_where_nothing_good_was_ever_seen(bench: Make) -> None:
    pair = bench()
    pair.keep()
    pair.started(1)
    pair.writes("{")
    pair.ends(1, "stopped", "died 1")
    pair.started(2)

    assert not pair.settings.checkpoint.exists()


def test_a_resume_starts_after_the_last_record_whatever_the_evaluator_counted(bench: Make) -> None:
    pair = bench()
    pair.keep()
    pair.started(1)
    ahead = document(GOOD, CRASHED, entry="Crashed")
    ahead["_checkpoint"]["progress"] = [3, 3]
    pair.writes(json.dumps(ahead))
    pair.ends(1, "died 139", "died 255")
    eventually((pair.files.supervisor / "start2").exists)
    eventually(lambda: pair.progress().state is ShardState.RETRYING)

    mended = json.loads(pair.settings.checkpoint.read_text())
    assert mended["_checkpoint"]["progress"] == [1, 3]
    assert mended["entry_status"] == "Started"
    assert statuses_in(pair.settings.checkpoint.read_bytes()) == [GOOD]


def test_a_poison_route_gets_its_record_and_the_rest_goes_on(bench: Make) -> None:
    pair = bench()
    pair.keep()
    for n in (1, 2):
        pair.started(n)
        pair.ends(n, "died 139", "died 1")
    pair.started(3)
    assert statuses_in(pair.settings.checkpoint.read_bytes()) == [CRASHED]

    pair.writes(text(CRASHED, GOOD, GOOD))
    pair.ends(3, "stopped", "died 0")

    assert pair.exit_code() is PairExitCode.FINISHED
    assert pair.progress().counters.quarantined == (RouteRun(0),)


@FIXED_ONLY
def test_silence_is_a_hang(bench: Make) -> None:
    pair = bench(hang_seconds=1.5, budgets=Budgets(0, 0, 1))
    pair.keep()
    pair.started(1)
    for _ in range(40):
        pair.files.logs["agent"].write_text("driving\n")
        time.sleep(0.05)
    assert pair.files.published("stop1") is None

    eventually(lambda: pair.files.published("stop1") == "hang")
    pair.ends(1, "stopped", "stopped")

    assert pair.exit_code() is PairExitCode.AGENT_HANGS


def tick(seconds: float, form: str = "2.x") -> str:
    """The line of the evaluator's agent base class at every tick."""
    if form == "1.0":
        return f"======[Agent] Wallclock_time = 2026-11-28 00:00:00 / 3.2 / Sim_time = {seconds} / 0.4x\n"
    return (
        f"=== [Agent] -- Wallclock = 00:00:01.000 -- System time = 3.200 -- Game time = {seconds:.3f} -- Ratio = 0.4x\n"
    )


@FIXED_ONLY
@pytest.mark.parametrize("form", ["1.0", "2.x"])
def test_a_hang_behind_a_thread_that_keeps_printing_is_found_by_game_time(bench: Make, form: str) -> None:
    pair = bench(hang_seconds=2.0, budgets=Budgets(0, 0, 1))
    pair.keep()
    pair.started(1)
    log = pair.files.logs["agent"]
    for number in range(30):  # longer than hang_seconds
        with log.open("a") as file:
            file.write(tick(number / 20, form))
        time.sleep(0.1)
    assert pair.files.published("stop1") is None

    def chat() -> bool:
        with log.open("a") as file:
            file.write(f"[node] heartbeat\n{tick(29 / 20, form)}")  # game time stands still
        return pair.files.published("stop1") == "hang"

    eventually(chat)


@FIXED_ONLY
def test_an_agent_that_only_prints_hangs_as_well(bench: Make) -> None:
    pair = bench(hang_seconds=0.2, budgets=Budgets(0, 0, 1))
    pair.keep()
    pair.started(1)

    def chat() -> bool:
        with pair.files.logs["agent"].open("a") as file:
            file.write("[node] heartbeat\n")
        return pair.files.published("stop1") == "hang"

    eventually(chat)


@FIXED_ONLY
def test_live_results_are_ticks(bench: Make) -> None:
    pair = bench(hang_seconds=1.0)
    pair.keep()
    pair.started(1)
    for number in range(20):
        (pair.files.agent / "live_results.txt").write_text(f"Game duration: {number}")
        time.sleep(0.1)

    assert pair.files.published("stop1") is None


@FIXED_ONLY
def test_a_simulator_that_is_frozen_while_the_agent_waits_is_infrastructures(bench: Make) -> None:
    pair = bench(hang_seconds=0.3, simulator_answer_seconds=0.5, budgets=Budgets(0, 1, 3))
    pair.keep()
    pair.started(1)
    pair.port.freeze()

    eventually(lambda: pair.files.published("stop1") == "silent")
    pair.ends(1, "stopped", "stopped")

    eventually((pair.files.supervisor / "start2").exists)
    counters = json.loads(pair.files.published("start2") or "")["counters"]
    assert (counters["agent_restarts"], counters["infrastructure_restarts"]) == (0, 1)


def test_an_evaluator_that_ends_beside_a_simulator_that_does_not_answer_is_not_charged(bench: Make) -> None:
    pair = bench(simulator_answer_seconds=0.5, budgets=Budgets(0, 1, 3))
    pair.port.freeze()
    pair.keep()
    pair.started(1)
    (pair.files.agent / "exit1").write_text("died 1\n")

    eventually(lambda: pair.files.published("stop1") == "silent")
    (pair.files.simulator / "exit1").write_text("stopped\n")
    pair.started(2)


def test_records_beat_the_exit_code_after_a_failed_set_up(bench: Make) -> None:
    pair = bench()
    pair.keep()
    pair.started(1)
    pair.writes(text(GOOD, GOOD, SETUP))
    pair.ends(1, "stopped", "died 139")

    assert pair.exit_code() is PairExitCode.FINISHED


def test_a_route_on_which_the_evaluator_dies_again_and_again_gets_its_record_and_the_rest_is_driven(
    bench: Make,
) -> None:
    pair = bench(budgets=Budgets(4, 8, 3))
    pair.keep()
    for start in (1, 2, 3):
        pair.started(start)
        pair.writes(text(GOOD))
        pair.ends(start, "stopped", "died 139")
    pair.started(4)
    assert statuses_in(pair.settings.checkpoint.read_bytes()) == [GOOD, "Failed - Agent crashed"]

    pair.writes(text(GOOD, "Failed - Agent crashed", GOOD))
    pair.ends(4, "stopped", "died 0")

    assert pair.exit_code() is PairExitCode.FINISHED
    assert pair.progress().counters.given_up == (RouteRun(1),)


def test_a_finished_shard_that_comes_again_starts_nothing(bench: Make) -> None:
    first = bench()
    first.keep()
    first.started(1)
    first.writes(text(GOOD, GOOD, GOOD, entry="Finished"))
    first.ends(1, "stopped", "died 0")
    assert first.exit_code() is PairExitCode.FINISHED

    for pod, attempt in (("same attempt", 1), ("next attempt", 2)):
        again = bench(pod=pod, attempt=attempt)
        prepare(again.settings, again.storage)
        again.keep()

        assert again.exit_code() is PairExitCode.FINISHED
        assert again.files.published("exit_code") == "0"
        assert not (again.files.supervisor / "start1").exists()
        assert again.stored(storage_keys.checkpoint_key) == text(GOOD, GOOD, GOOD, entry="Finished").encode()
        assert again.progress().state is ShardState.FINISHED


def test_a_list_of_sensors_is_never_replaced_by_an_empty_one(bench: Make) -> None:
    pair = bench()
    pair.keep()
    pair.started(1)
    pair.writes(text(GOOD))
    eventually(lambda: pair.stored(storage_keys.checkpoint_key) is not None)

    pair.writes(render_document({**document(GOOD, SETUP), "sensors": []}, LeaderboardVersion.V2))
    pair.ends(1, "stopped", "died 1")
    pair.started(2)

    eventually(lambda: statuses_in(pair.stored(storage_keys.checkpoint_key)) == [GOOD, SETUP])
    assert json.loads(pair.stored(storage_keys.checkpoint_key) or b"{}")["sensors"] == ["carla_gnss"]
    assert json.loads(pair.settings.checkpoint.read_text())["sensors"] == ["carla_gnss"]


def test_a_simulator_that_goes_down_after_its_agent_is_still_heard(bench: Make) -> None:
    pair = bench(poll_seconds=1.0)  # it waits for two polls
    pair.keep()
    pair.started(1)
    (pair.files.agent / "exit1").write_text("died 1\n")
    time.sleep(0.1)
    (pair.files.simulator / "exit1").write_text("died 139\n")
    pair.started(2)

    assert pair.files.published("stop1") is None
    assert json.loads(pair.files.published("start2") or "")["counters"]["agent_restarts"] == 0


@pytest.mark.parametrize("published", ["nothing", "next"])
def test_a_supervisor_that_is_lost_takes_up_where_it_was_and_charges_once(bench: Make, published: str) -> None:
    pair = bench(budgets=Budgets(1, 3, 1))
    pair.keep()
    pair.started(1)
    pair.writes(text(GOOD))
    eventually(lambda: pair.stored(storage_keys.checkpoint_key) is not None)
    if published == "next":  # it dies after its decision, with the quarantine half done
        pair.ends(1, "died 139", "died 1")
        pair.started(2)
        pair.lose_supervisor()
        (pair.files.supervisor / "start2").unlink()
    else:
        pair.lose_supervisor()
        pair.ends(1, "died 139", "died 1")

    pair.keep()
    pair.started(2)

    assert statuses_in(pair.settings.checkpoint.read_bytes()) == [GOOD, CRASHED]
    begun = json.loads(pair.files.published("start2") or "")["counters"]
    assert (begun["infrastructure_restarts"], begun["simulator_crashes"]) == (1, {"1": 1})


def test_a_pod_that_replaces_another_goes_on_with_its_checkpoint_and_budgets(bench: Make) -> None:
    first = bench("first")
    first.keep()
    first.started(1)
    first.writes(text(GOOD))
    first.ends(1, "stopped", "died 1")
    first.started(2)
    eventually(
        lambda: first.stored(storage_keys.progress_key) is not None and first.progress().counters.agent_restarts == 1
    )
    first.lose_supervisor()

    second = bench("second")
    prepare(second.settings, second.storage)
    second.keep()
    second.started(1)

    assert second.settings.checkpoint.read_text() == text(GOOD)
    begun = json.loads(second.files.published("start1") or "")["counters"]
    assert (begun["agent_restarts"], begun["starts"]) == (1, 3)
    second.lose_supervisor()
    second.files.logs["agent"].write_text("from the second pod")
    second.keep()
    log = storage_keys.log_key(7, 0, 1, "agent-from-start-3")
    eventually(lambda: second.storage.read(log) == b"from the second pod")


def test_a_new_attempt_goes_on_with_the_checkpoint_and_full_budgets(bench: Make) -> None:
    first = bench("first", budgets=Budgets(0, 0, 1))
    first.keep()
    first.started(1)
    first.writes(text(GOOD, SENSORS, entry="Rejected"))
    first.ends(1, "stopped", "died 255")
    assert first.exit_code() is PairExitCode.SENSORS_INVALID
    assert first.progress().routes_done == 1

    second = bench("second", attempt=2)
    prepare(second.settings, second.storage)
    second.keep()
    second.started(1)

    assert second.settings.checkpoint.read_text() == text(GOOD)
    assert json.loads(second.files.published("start1") or "")["counters"]["starts"] == 1


def test_prepare_clears_status_files_and_fetches_the_routes(bench: Make) -> None:
    earlier = bench()
    earlier.storage.write(
        "secret/routes.xml", b'<routes><route id="0"/><route id="1"/><route id="2"/></routes>', "text/xml"
    )
    pair = bench("other", routes=f"s3://{BUCKET}/secret/routes.xml")
    for name in ("supervisor/start1", "supervisor/exit_code", "simulator/ready1", "agent/exit1"):
        (pair.settings.pair_dir / name).touch()

    prepare(pair.settings, pair.storage)

    routes, claims = pair.settings.routes, set[str]()
    if pair.settings.pulled:
        routes, claims = pair.files.all_routes, {"supervisor/claims.json"}
    assert routes.read_text().startswith("<routes>")
    left = {str(path.relative_to(pair.settings.pair_dir)) for path in pair.settings.pair_dir.glob("*/*")}
    assert left == {"agent/agent.log", str(routes.relative_to(pair.settings.pair_dir)), *claims}


@pytest.mark.parametrize("location", ["s3://leaderboard-20-results/none.xml", "/nowhere/routes.xml"])
def test_prepare_refuses_missing_routes(bench: Make, location: str) -> None:
    pair = bench(routes=location)

    with pytest.raises(InvalidConfiguration, match=location):
        prepare(pair.settings, pair.storage)


def test_prepare_refuses_routes_that_the_file_lacks(bench: Make) -> None:
    pair = bench(expected=expand((4, 5), 1))

    with pytest.raises(InvalidConfiguration, match="lacks routes of this shard: 5"):
        prepare(pair.settings, pair.storage)


def test_prepare_refuses_a_checkpoint_of_other_routes(bench: Make) -> None:
    pair = bench(expected=expand((2, 3), 1), claims=(2, 3))
    pair.storage.write(storage_keys.checkpoint_key(7, 0), text(GOOD).encode(), "application/json")

    with pytest.raises(InvalidCheckpoint, match=f"s3://{BUCKET}/7/shards/0/checkpoint.json"):
        prepare(pair.settings, pair.storage)


def test_links_that_an_agent_plants_lead_nowhere(bench: Make, tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("secret")
    pair = bench()
    for planted in (pair.files.logs["agent"], pair.settings.checkpoint.with_name(".checkpoint.json.new")):
        planted.unlink(missing_ok=True)
        planted.symlink_to(secret)
    pair.keep()
    pair.started(1)
    pair.writes(text(GOOD))
    eventually(lambda: pair.stored(storage_keys.checkpoint_key) is not None)
    pair.writes("{")
    pair.ends(1, "stopped", "died 1")
    pair.started(2)

    assert secret.read_text() == "secret"
    assert pair.storage.read(storage_keys.log_key(7, 0, 1, "agent")) is None


def test_a_finished_shard_waits_for_s3_before_it_says_so(bench: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    pair = bench()
    pair.keep()
    pair.started(1)
    with monkeypatch.context() as outage:
        outage.setattr(pair.storage, "write", _no_answer)
        pair.writes(text(GOOD, GOOD, GOOD))
        pair.ends(1, "stopped", "died 0")
        eventually((pair.files.supervisor / "next1").exists)
        time.sleep(0.2)
        assert pair.files.published("exit_code") is None

    assert pair.exit_code() is PairExitCode.FINISHED
    assert pair.stored(storage_keys.checkpoint_key) == text(GOOD, GOOD, GOOD).encode()


def _no_answer(key: str, body: bytes, content_type: str) -> None:
    raise ServiceUnavailable("S3 does not answer")


def test_the_settings_name_the_variable_that_is_missing_or_wrong() -> None:
    with pytest.raises(InvalidConfiguration, match="LEADERBOARD_VERSION is missing"):
        read_settings({})
    with pytest.raises(InvalidConfiguration, match=r"LEADERBOARD_VERSION must be 1\.0 or 2\.0, not '3'"):
        read_settings({"LEADERBOARD_VERSION": "3"})
    with pytest.raises(InvalidConfiguration, match="SUBMISSION must be a number, not 'x'"):
        read_settings({"LEADERBOARD_VERSION": "2.0", "SUBMISSION": "x"})


@pytest.mark.parametrize("module", ["shard_pod.prepare", "shard_pod.supervisor"])
def test_the_containers_end_with_40_and_a_sentence_when_a_variable_is_missing(module: str) -> None:
    ended = container(module, {})
    output, _ = ended.communicate(timeout=PATIENCE_SECONDS)

    assert ended.returncode == PairExitCode.MISCONFIGURED
    assert (
        output.strip() == "The environment variable LEADERBOARD_VERSION is missing or empty. Set it in the shard's Job."
    )


@FIXED_ONLY
def test_prepare_and_the_supervisor_work_as_two_containers(bench: Make, aws: dict[str, Any]) -> None:
    pair = bench()
    environment = {**contract(pair.settings), **credentials(aws)}
    prepared = container("shard_pod.prepare", environment)
    output, _ = prepared.communicate(timeout=PATIENCE_SECONDS)
    supervisor = container("shard_pod.supervisor", environment)
    try:
        pair.started(1)
    finally:
        supervisor.terminate()
        supervisor.communicate(timeout=PATIENCE_SECONDS)

    assert prepared.returncode == 0
    assert "No earlier checkpoint" in output
    assert supervisor.returncode == PairExitCode.CANCELLED
    assert pair.files.published("exit_code") == "30"
    assert pair.storage.read(storage_keys.log_key(7, 0, 1, "supervisor"))


def seen_by(pair: Bench) -> Observations:
    return parse_observations(pair.stored(storage_keys.observations_key) or b"", "observations.json")


def test_what_the_supervisor_saw_lies_beside_the_checkpoint(bench: Make) -> None:
    pair = bench()
    pair.keep()
    pair.started(1)
    pair.writes(text(GOOD))
    eventually(lambda: pair.stored(storage_keys.checkpoint_key) is not None)
    pair.writes(text(GOOD, CRASHED, entry="Crashed"))
    pair.ends(1, "stopped", "died 255")  # the simulator lives: nobody but the evaluator says that it crashed
    pair.started(2)
    pair.writes(text(GOOD, GOOD, GOOD))
    pair.ends(2, "stopped", "died 0")

    assert pair.exit_code() is PairExitCode.FINISHED
    seen = seen_by(pair)
    assert [(start.number, start.ready_at is not None, start.simulator_lost) for start in seen.starts] == [
        (1, True, False),
        (2, True, False),
    ]
    [again] = seen.redrives
    assert (again.run, again.start, again.claimed_crash) == (RouteRun(1), 2, True)
    records = json.loads(pair.stored(storage_keys.checkpoint_key) or b"")["_checkpoint"]["records"]
    assert [seen.records_of(RouteRun(route))[-1].digest for route in ROUTES] == list(map(record_digest, records))


def test_a_simulator_that_got_ready_while_no_supervisor_was_there_may_have_been_so_all_the_time(bench: Make) -> None:
    """Else the routes that were driven meanwhile would seem to have taken longer than their simulator was there."""
    pair = bench()
    pair.keep()
    eventually((pair.files.supervisor / "start1").exists)
    pair.lose_supervisor()
    pair.started(1)
    pair.writes(text(GOOD, GOOD, GOOD))

    pair.keep()
    pair.ends(1, "stopped", "died 0")

    assert pair.exit_code() is PairExitCode.FINISHED
    [start] = seen_by(pair).starts
    assert start.ready_at == start.began_at


def test_a_crash_that_the_supervisor_saw_is_no_claim(bench: Make) -> None:
    pair = bench()
    pair.keep()
    pair.started(1)
    pair.writes(text(GOOD, CRASHED, entry="Crashed"))
    pair.ends(1, "died 139", "died 255")
    pair.started(2)
    pair.writes(text(GOOD, GOOD, GOOD))
    pair.ends(2, "stopped", "died 0")

    assert pair.exit_code() is PairExitCode.FINISHED
    [again] = seen_by(pair).redrives
    assert (again.run, again.claimed_crash, again.charged_to_agent) == (RouteRun(1), False, False)


def test_a_record_that_is_written_anew_is_seen_twice(bench: Make) -> None:
    pair = bench()
    pair.keep()
    pair.started(1)
    pair.writes(text("Failed - Agent got blocked"))
    eventually(lambda: pair.stored(storage_keys.checkpoint_key) is not None)
    pair.writes(text(GOOD, GOOD, GOOD))
    pair.ends(1, "stopped", "died 0")

    assert pair.exit_code() is PairExitCode.FINISHED
    seen = seen_by(pair)
    assert [record.status for record in seen.records_of(RouteRun(0))] == ["Failed - Agent got blocked", GOOD]
    assert seen.redrives == []


def ends_in_a_second_pod(make: Make, first_written: str) -> Bench:
    """The first pod writes this and is ended; the second pod, of the next attempt, finishes."""
    first = make()
    first.keep()
    first.started(1)
    first.writes(first_written)
    eventually(lambda: first.stored(storage_keys.checkpoint_key) is not None)
    first.stop.set()
    assert first.exit_code() == "stopped"

    second = make(pod="second", attempt=2)
    prepare(second.settings, second.storage)
    second.keep()
    second.started(1)
    second.writes(text(GOOD, GOOD, GOOD))
    second.ends(1, "stopped", "died 0")
    assert second.exit_code() is PairExitCode.FINISHED
    return second


def test_the_next_pod_goes_on_with_what_was_seen(bench: Make) -> None:
    seen = seen_by(ends_in_a_second_pod(bench, text(GOOD)))
    assert [(start.attempt, start.number) for start in seen.starts] == [(1, 1), (2, 1)]
    assert [(each.run, each.cause) for each in seen.redrives] == [(RouteRun(1), "its pod was lost")]


@FIXED_ONLY
def test_an_evaluator_that_is_stopped_with_its_simulator_has_claimed_no_crash(bench: Make) -> None:
    pair = bench(hang_seconds=0.3)
    pair.keep()
    pair.started(1)
    pair.files.logs["agent"].write_text("driving\n")
    eventually((pair.files.supervisor / "stop1").exists)
    pair.writes(text(GOOD, CRASHED, entry="Crashed"))  # the simulator was stopped first
    pair.ends(1, "stopped", "died 255")
    pair.started(2)
    pair.writes(text(GOOD, GOOD, GOOD))
    pair.ends(2, "stopped", "died 0")

    assert pair.exit_code() is PairExitCode.FINISHED
    assert [(each.run, each.claimed_crash) for each in seen_by(pair).redrives] == [(RouteRun(1), False)]


def test_a_crash_that_is_reported_while_the_pod_is_ended_is_no_claim(bench: Make) -> None:
    seen = seen_by(ends_in_a_second_pod(bench, text(GOOD, CRASHED, entry="Crashed")))
    assert [(each.run, each.claimed_crash) for each in seen.redrives] == [(RouteRun(1), False)]


@pytest.mark.parametrize("module", ["shard_pod.prepare", "shard_pod.supervisor"])
def test_why_a_pair_did_not_even_begin_reaches_the_flow(bench: Make, aws: dict[str, Any], module: str) -> None:
    earlier = bench()
    earlier.keep()
    earlier.started(1)
    eventually(lambda: earlier.stored(storage_keys.progress_key) is not None)
    earlier.lose_supervisor()
    pair = bench(pod="pod2", routes="/nowhere/routes.xml")

    ended = container(module, {**contract(pair.settings), **credentials(aws)}, "--prepare")
    ended.communicate(timeout=PATIENCE_SECONDS)

    assert ended.returncode == PairExitCode.MISCONFIGURED
    progress = pair.progress()
    assert (progress.state, progress.exit_code) == (ShardState.FAILED, PairExitCode.MISCONFIGURED)
    assert progress.detail.startswith("The route file /nowhere/routes.xml cannot be read: ")
    assert progress.counters == earlier.progress().counters
    assert progress.counters.starts == 1
