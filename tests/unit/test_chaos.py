"""What `make chaos` draws from its seed, and how it judges the final state."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from tests.chaos.plan import BEHAVIOURS, INCIDENTS_END, Kind, Plan, draw
from tests.chaos.verdict import ENDINGS, INSTALLATION, Driven, Evidence, FlowRun, Hit, Row, Verdict, Write, judge

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
SECONDS = 500.0


def drawn(seed: int, submissions: int = 40) -> Plan:
    return draw(seed, submissions, SECONDS, ["leaderboard-10-MAP", "leaderboard-20-SENSORS"], ["A", "B"])


def at(seconds: float) -> datetime:
    return NOON + timedelta(seconds=seconds)


def write(seconds: float, status: str, by: str = INSTALLATION, digest: str = "1", submission: int = 1) -> Write:
    return Write(at(seconds), submission, status, by, digest)


def run(id_: str, seconds: float, state: str = "COMPLETED", submission: int | None = 1) -> FlowRun:
    return FlowRun(id_, submission, state, state.title(), at(seconds))


def driven(seconds: float, what: str, route: int = 0, pid: int = 7, shard: int = 0) -> Driven:
    return Driven(at(seconds).timestamp(), what, 1, 1, shard, route, 0, pid)


GOOD_ROW = Row(submission=1, status="finished", attempt=1, ended=True, routes_done=20, routes_total=20)
BEGUN = (write(0, "submitted", by="participant-1"), write(5, "running"))
GOOD = Evidence(
    images={1: "demo/agent:steady"},
    writes=[*BEGUN, write(30, "finished")],
    rows=[GOOD_ROW],
    runs=[run("first", 3)],
    driven=[driven(10, "started"), driven(11, "recorded")],
    hits=[],
    left=[],
)


def problems(verdict: Verdict) -> Sequence[str]:
    return [*verdict.lost, *verdict.doubled, *verdict.orphans, *verdict.unexpected]


def test_a_seed_gives_one_plan_and_another_seed_another_one() -> None:
    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)


@pytest.mark.parametrize("seed", range(20))
def test_every_behaviour_and_every_kind_of_incident_is_in_a_plan_and_the_end_is_left_for_recovery(seed: int) -> None:
    plan = drawn(seed)

    assert len(plan.arrivals) == 40
    assert {arrival.image.rpartition(":")[2] for arrival in plan.arrivals} == set(BEHAVIOURS)
    kinds = Counter(incident.kind for incident in plan.incidents)
    assert set(kinds) == set(Kind)
    assert kinds[Kind.FLOW_RUN] == 8
    kills = [incident.at for incident in plan.incidents if incident.kind is not Kind.RESUME]
    assert max(kills) <= INCIDENTS_END * SECONDS


def test_a_small_plan_has_one_of_each_incident() -> None:
    assert Counter(incident.kind for incident in drawn(1, 4).incidents)[Kind.MACHINE] == 1
    assert len(drawn(1, 4).arrivals) == 4


def test_the_verdict_knows_what_every_behaviour_may_end_in() -> None:
    assert set(ENDINGS) == set(BEHAVIOURS)


def test_one_outcome_everywhere_is_good() -> None:
    verdict = judge(GOOD)

    assert problems(verdict) == []
    assert verdict.good
    assert (verdict.submissions, verdict.outcomes, verdict.routes) == (1, {"finished": 1}, 1)


@pytest.mark.parametrize(
    ("broken", "problem"),
    [
        (replace(GOOD, writes=BEGUN), "submission 1 is running at EvalAI"),
        (replace(GOOD, rows=[]), "submission 1 has no row in the ledger"),
        (replace(GOOD, rows=[replace(GOOD_ROW, ended=False)]), "submission 1 is open in the ledger (finished)"),
        (
            replace(GOOD, rows=[replace(GOOD_ROW, status="failed")], images={1: "demo/agent:always-crash"}),
            "submission 1 is finished at EvalAI and failed in the ledger",
        ),
        (replace(GOOD, runs=[]), "submission 1 has no flow run that ended"),
        (
            replace(GOOD, writes=[*GOOD.writes, write(31, "resuming", by="host")]),
            "submission 1 is resuming at EvalAI",
        ),
    ],
)
def test_a_submission_without_its_outcome_is_lost(broken: Evidence, problem: str) -> None:
    assert problem in judge(broken).lost
    assert not judge(broken).good


@pytest.mark.parametrize(
    ("writes", "problem"),
    [
        ([write(30, "finished"), write(40, "failed", digest="2")], "2 different outcomes: failed, finished"),
        ([write(30, "finished"), write(40, "finished", digest="2")], "2 different outcomes: finished, finished"),
        ([write(20, "cancelled", by="participant-1"), write(30, "finished")], "set to finished after its team"),
        ([write(20, "cancelled", by="participant-1"), write(30, "running")], "set to running after its team"),
    ],
)
def test_a_second_outcome_of_one_attempt_is_doubled(writes: list[Write], problem: str) -> None:
    (found,) = judge(replace(GOOD, writes=[*BEGUN, *writes])).doubled
    assert problem in found


def test_a_report_that_is_sent_again_as_it_was_is_no_second_outcome() -> None:
    assert judge(replace(GOOD, writes=[*GOOD.writes, write(40, "finished")])).good


def test_a_resume_begins_an_attempt_with_an_outcome_of_its_own() -> None:
    writes = [*BEGUN, write(30, "failed"), write(40, "resuming", by="host"), write(60, "finished", digest="2")]
    twice = replace(GOOD, writes=writes, rows=[replace(GOOD_ROW, attempt=2)])

    assert judge(twice).good


def test_more_claims_than_attempts_are_doubled() -> None:
    (found,) = judge(replace(GOOD, rows=[replace(GOOD_ROW, attempt=2)])).doubled
    assert found == "submission 1 was claimed 2 times for 1 attempts"


def test_a_team_may_take_back_what_is_finished() -> None:
    assert judge(replace(GOOD, writes=[*GOOD.writes, write(40, "cancelled", by="participant-1")])).good


def test_two_agents_on_one_shard_at_once_are_doubled_and_one_after_the_other_are_not() -> None:
    first = [driven(10, "started", pid=7), driven(14, "recorded", pid=7)]
    later = [driven(15, "started", pid=8), driven(16, "recorded", pid=8)]
    meanwhile = [driven(13, "started", pid=8), driven(16, "recorded", pid=8)]

    assert judge(replace(GOOD, driven=[*first, *meanwhile])).doubled == [
        "shard 0 of submission 1 was driven by two agents at once"
    ]
    after = judge(replace(GOOD, driven=[*first, *later]))
    assert (after.doubled, after.routes_again, after.recorded_again) == ([], 1, 1)


def test_what_is_left_behind_is_an_orphan() -> None:
    verdict = judge(replace(GOOD, left=["process 4"], runs=[run("first", 3), run("second", 9, "RUNNING")]))

    assert verdict.orphans == ["process 4", "flow run second of submission 1 is Running for ever"]


def test_an_outcome_that_the_agent_does_not_explain_is_unexpected() -> None:
    row = replace(GOOD_ROW, status="failed", routes_done=3)
    failed = replace(GOOD, rows=[row], writes=[*BEGUN, write(30, "failed")])
    partly = replace(GOOD, rows=[replace(GOOD_ROW, routes_done=19)])

    assert judge(failed).unexpected == ["submission 1 (steady) ended as failed, not as finished"]
    assert judge(partly).unexpected == ["submission 1 is finished with 19 of 20 routes"]


def test_a_recovery_lasts_until_what_was_killed_goes_on() -> None:
    hits = [
        Hit(at(12), Kind.FLOW_RUN, "run first", run="first"),
        Hit(at(12), Kind.AGENT, "shard", shard=(1, 2)),
        Hit(at(13), Kind.SERVER, "server", back_at=at(17)),
    ]
    evidence = replace(GOOD, hits=hits, runs=[run("first", 3, "CRASHED"), run("second", 22)])

    assert judge(evidence).recoveries == {Kind.FLOW_RUN: 10, Kind.AGENT: 18, Kind.SERVER: 4}
