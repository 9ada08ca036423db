"""What follows when a start of a simulator-agent pair has ended."""

import pytest

from evaluation.errors import Fault
from evaluation.pair.decisions import (
    SIMULATION_CRASHED,
    CheckpointSummary,
    Decision,
    EndedStart,
    Exit,
    StopReason,
    decide,
    parse_exit,
)
from evaluation.pair.protocol import Counters, PairExitCode, failure_of, failure_of_exit
from evaluation.routes import RouteRun, expand
from evaluation.shards import Budgets

BUDGETS = Budgets(agent_restarts=2, infrastructure_restarts=4, simulator_crashes_per_route=3)
ROUTES = expand((5, 6, 7), 1)
STOPPED = Exit()
FIRST = Counters(starts=1)
SENSORS, SETUP = "Failed - Agent's sensors were invalid", "Failed - Agent couldn't be set up"


def after(
    *statuses: str,
    simulator: Exit | None = STOPPED,
    agent: Exit | None = STOPPED,
    stop: StopReason | None = StopReason.PARTNER,
    driving: bool = True,
    counters: Counters = FIRST,
) -> Decision:
    return decide(counters, BUDGETS, EndedStart(simulator, agent, stop, driving), CheckpointSummary(ROUTES, statuses))


@pytest.mark.parametrize("code", [0, 1, 139])
def test_a_shard_with_all_its_records_has_finished_however_the_evaluator_ended(code: int) -> None:
    step = after("Completed", "Perfect", "Failed - Agent got blocked", agent=Exit(code))

    assert step.exit_code is PairExitCode.FINISHED


def test_an_evaluator_that_ends_well_with_records_missing_has_crashed() -> None:
    step = after("Completed", agent=Exit(0))

    assert step.exit_code is None
    assert step.counters.agent_restarts == 1
    assert step.detail == "the evaluator ended with code 0 before all routes were driven: restart 1 of 2"


def test_a_crash_is_the_agents_until_its_budget_is_used_up() -> None:
    step = after(agent=Exit(1), counters=Counters(starts=3, agent_restarts=2))

    assert step.exit_code is PairExitCode.AGENT_CRASHED
    assert step.counters.agent_restarts == 2


def test_a_hang_is_the_agents() -> None:
    first = after("Completed", stop=StopReason.HANG)
    last = after("Completed", stop=StopReason.HANG, counters=Counters(starts=3, agent_restarts=2))

    assert (first.exit_code, first.counters.agent_restarts) == (None, 1)
    assert last.exit_code is PairExitCode.AGENT_HANGS


@pytest.mark.parametrize(
    ("status", "exit_code"), [(SENSORS, PairExitCode.SENSORS_INVALID), (SETUP, PairExitCode.AGENT_SETUP_FAILED)]
)
def test_what_a_restart_cannot_change_is_permanent(status: str, exit_code: PairExitCode) -> None:
    step = after(status, agent=Exit(255), simulator=Exit(139))

    assert (step.exit_code, step.keep) == (exit_code, 1)


def test_the_simulators_death_is_never_charged_to_the_agent() -> None:
    step = after("Completed", simulator=Exit(139), agent=Exit(1))

    assert step.exit_code is None
    assert step.counters == Counters(starts=1, infrastructure_restarts=1, simulator_crashes={6: 1})
    assert "not charged to the agent" in step.detail


def test_a_simulator_that_dies_before_it_is_ready_is_blamed_on_no_route() -> None:
    step = after(simulator=Exit(1), driving=False)

    assert step.counters == Counters(starts=1, infrastructure_restarts=1)


def test_a_crash_record_of_the_evaluator_is_dropped_and_its_route_driven_again() -> None:
    step = after("Completed", SIMULATION_CRASHED, agent=Exit(255))

    assert (step.exit_code, step.keep) == (None, 1)
    assert step.counters == Counters(starts=1, infrastructure_restarts=1, simulator_crashes={6: 1})


def test_a_crash_record_on_the_last_route_does_not_finish_the_shard() -> None:
    step = after("Completed", "Completed", SIMULATION_CRASHED, agent=Exit(255))

    assert (step.exit_code, step.keep) == (None, 2)


def test_the_third_crash_on_a_route_quarantines_it() -> None:
    crashed_twice = Counters(starts=3, infrastructure_restarts=2, simulator_crashes={6: 2})

    step = after("Completed", simulator=Exit(139), counters=crashed_twice)

    assert (step.exit_code, step.keep, step.quarantine) == (None, 1, RouteRun(6))
    assert step.counters.quarantined == (RouteRun(6),)
    assert step.counters.infrastructure_restarts == 3


def test_a_quarantined_routes_record_stays() -> None:
    quarantined = Counters(starts=4, simulator_crashes={6: 3}, quarantined=(RouteRun(6),))

    step = after("Completed", SIMULATION_CRASHED, agent=Exit(1), counters=quarantined)

    assert step.keep == 2
    assert step.counters.agent_restarts == 1


def test_quarantining_the_last_route_finishes_the_shard() -> None:
    crashed_twice = Counters(starts=3, simulator_crashes={7: 2})

    step = after("Completed", "Completed", simulator=Exit(139), counters=crashed_twice)

    assert (step.exit_code, step.quarantine) == (PairExitCode.FINISHED, RouteRun(7))


def test_a_machine_on_which_every_simulator_dies_fails_instead_of_scoring_zeros() -> None:
    counters, statuses, exit_code = Counters(), ["Completed"], None
    while exit_code is None:
        step = after(*statuses, simulator=Exit(139), counters=counters)
        statuses += [SIMULATION_CRASHED] if step.quarantine else []
        counters, exit_code = step.counters, step.exit_code

    assert exit_code is PairExitCode.SIMULATOR_CRASHED
    assert len(statuses) < len(ROUTES)


def test_a_simulator_that_does_not_get_ready_uses_the_infrastructure_budget() -> None:
    first = after(agent=Exit(unready=True), driving=False)
    last = after(agent=Exit(unready=True), driving=False, counters=Counters(infrastructure_restarts=4))

    assert (first.exit_code, first.counters.agent_restarts) == (None, 0)
    assert last.exit_code is PairExitCode.SIMULATOR_NOT_READY


@pytest.mark.parametrize(("simulator", "agent"), [(None, STOPPED), (STOPPED, None)])
def test_a_party_that_does_not_answer_is_lost(simulator: Exit | None, agent: Exit | None) -> None:
    assert after("Completed", simulator=simulator, agent=agent).exit_code is PairExitCode.PAIR_LOST


def test_a_repetition_that_was_quarantined_does_not_shield_the_next_one() -> None:
    shown = CheckpointSummary(expand((5,), 3), ("Completed", SIMULATION_CRASHED))
    counters = Counters(simulator_crashes={5: 3}, quarantined=(RouteRun(5, 1),))

    step = decide(counters, BUDGETS, EndedStart(Exit(139), STOPPED), shown)

    assert (step.quarantine, step.exit_code) == (RouteRun(5, 2), PairExitCode.FINISHED)


@pytest.mark.parametrize(
    ("text", "exit_"),
    [
        ("died 0\n", Exit(0)),
        ("died 139", Exit(139)),
        ("stopped\n", Exit()),
        ("unready", Exit(unready=True)),
        ("", Exit(1)),
        ("died of shame", Exit(1)),
        ("died -1", Exit(1)),
    ],
)
def test_exit_files_are_read(text: str, exit_: Exit) -> None:
    assert parse_exit(text) == exit_


@pytest.mark.parametrize(
    "exit_code", [exit_code for exit_code in PairExitCode if exit_code is not PairExitCode.FINISHED]
)
def test_every_failing_exit_code_says_what_why_and_what_to_do(exit_code: PairExitCode) -> None:
    failure = failure_of_exit(int(exit_code), "because of that")

    assert failure == failure_of(exit_code, "because of that")
    assert failure.summary
    assert failure.cause == "because of that"
    assert failure.remedy.endswith(".")
    assert failure.fault is (Fault.TEAM if 10 <= exit_code < 20 else Fault.INFRASTRUCTURE)


@pytest.mark.parametrize("code", [1, 137, 143, 255])
def test_an_exit_code_that_is_no_exit_code_is_the_infrastructures(code: int) -> None:
    failure = failure_of_exit(code)

    assert failure.fault is Fault.INFRASTRUCTURE
    assert str(code) in failure.cause
