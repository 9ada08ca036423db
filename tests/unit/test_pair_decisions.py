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
    parse_decision,
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


def test_invalid_sensors_are_permanent_whatever_else_ended() -> None:
    step = after(SENSORS, agent=Exit(255), simulator=Exit(139))

    assert (step.exit_code, step.keep) == (PairExitCode.SENSORS_INVALID, 1)


@pytest.mark.parametrize("code", [0, 1, 139])
def test_a_set_up_that_fails_on_one_route_is_a_record_as_any_other(code: int) -> None:
    assert after("Completed", "Completed", SETUP, agent=Exit(code)).exit_code is PairExitCode.FINISHED
    assert after(SETUP, "Completed", "Completed", agent=Exit(code)).exit_code is PairExitCode.FINISHED


@pytest.mark.parametrize("code", [0, 255])
def test_a_set_up_that_fails_on_every_route_of_the_shard_has_not_finished(code: int) -> None:
    step = after(SETUP, SETUP, SETUP, agent=Exit(code))

    assert step.exit_code is PairExitCode.AGENT_SETUP_FAILED
    assert step.detail == f"the evaluator reported on every route: {SETUP}"


def test_a_failed_set_up_does_not_hide_the_simulators_death_on_the_next_route() -> None:
    step = after("Completed", SETUP, simulator=Exit(139), agent=Exit(255))

    assert (step.exit_code, step.keep) == (None, 2)
    assert step.counters == Counters(starts=1, infrastructure_restarts=1, simulator_crashes={7: 1})


def test_an_evaluator_that_ends_at_a_failed_set_up_names_the_set_up_when_its_budget_is_used_up() -> None:
    step = after(SETUP, agent=Exit(255), counters=Counters(starts=3, agent_restarts=2))

    assert step.exit_code is PairExitCode.AGENT_SETUP_FAILED


def test_a_simulator_that_does_not_answer_is_charged_as_its_death() -> None:
    silent = after("Completed", agent=Exit(1), stop=StopReason.SILENT)
    frozen = after("Completed", agent=STOPPED, stop=StopReason.SILENT)
    last = after("Completed", stop=StopReason.SILENT, counters=Counters(infrastructure_restarts=4))

    assert silent.counters == frozen.counters == Counters(1, 0, 1, {6: 1})
    assert silent.detail.startswith("the simulator did not answer on route 6: restart 1 of 4")
    assert last.exit_code is PairExitCode.SIMULATOR_CRASHED


def dies_on(*statuses: str, tries: int, allowed: int = 4, agent: Exit = Exit(139)) -> list[Decision]:  # noqa: B008
    """What follows each of so many deaths of the evaluator that leave the same records; the given up ones are added."""
    budgets, steps, counters, recorded = Budgets(allowed, 8, 3), [], FIRST, list(statuses)
    for _ in range(tries):
        steps.append(decide(counters, budgets, EndedStart(STOPPED, agent), CheckpointSummary(ROUTES, tuple(recorded))))
        counters = steps[-1].counters
        recorded += [steps[-1].status] if steps[-1].give_up else []
    return steps


def test_a_route_on_which_the_evaluator_dies_again_and_again_counts_as_an_agents_crash() -> None:
    first, second, third = dies_on("Completed", tries=3)

    assert (first.give_up, second.give_up) == (None, None)
    assert (third.exit_code, third.keep) == (None, 1)
    assert (third.give_up, third.status) == (RouteRun(6), "Failed - Agent crashed")
    assert third.counters == Counters(1, agent_restarts=2, evaluator_deaths={6: 3}, given_up=(RouteRun(6),))
    assert third.detail == (
        "route 6 counts 0 as an agent's crash, after 3 tries: "
        "the evaluator ended with code 139 before all routes were driven"
    )


def test_the_other_routes_go_on_within_the_agents_budget() -> None:
    steps = dies_on("Completed", tries=6)

    assert [step.counters.agent_restarts for step in steps] == [1, 2, 2, 3, 4, 4]
    assert steps[-1].exit_code is PairExitCode.FINISHED
    assert steps[-1].give_up == RouteRun(7)


def test_an_agent_that_never_gets_through_a_route_uses_its_budget_up() -> None:
    steps = dies_on(tries=7)

    assert steps[-1].exit_code is PairExitCode.AGENT_CRASHED
    assert not any(step.exit_code for step in steps[:-1])


@pytest.mark.parametrize("statuses", [(), (SETUP,)])
def test_a_shard_of_which_nothing_was_driven_has_not_finished(statuses: tuple[str, ...]) -> None:
    steps = dies_on(*statuses, tries=3 * (3 - len(statuses)), allowed=100)

    assert steps[-1].exit_code is (PairExitCode.AGENT_SETUP_FAILED if statuses else PairExitCode.AGENT_CRASHED)
    assert steps[-1].give_up is None


def test_hangs_on_one_route_are_counted_with_its_crashes() -> None:
    counters = Counters(3, agent_restarts=2, evaluator_deaths={6: 2})

    step = after("Completed", stop=StopReason.HANG, counters=counters)

    assert (step.give_up, step.exit_code) == (RouteRun(6), None)


def test_the_agent_cannot_say_that_a_ready_simulator_was_not() -> None:
    step = after("Completed", agent=Exit(unready=True), driving=True)

    assert step.counters.agent_restarts == 1


def test_an_exit_file_that_is_none_is_named_and_the_agents() -> None:
    step = after("Completed", agent=Exit(1, note="its exit file is not a file that can be read"))

    assert step.counters.agent_restarts == 1
    assert "code 1 (its exit file is not a file that can be read)" in step.detail


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

    assert (step.exit_code, step.keep, step.give_up) == (None, 1, RouteRun(6))
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

    assert (step.exit_code, step.give_up) == (PairExitCode.FINISHED, RouteRun(7))


def test_a_machine_on_which_every_simulator_dies_fails_instead_of_scoring_zeros() -> None:
    counters, statuses, exit_code = Counters(), ["Completed"], None
    while exit_code is None:
        step = after(*statuses, simulator=Exit(139), counters=counters)
        statuses += [step.status] if step.give_up else []
        counters, exit_code = step.counters, step.exit_code

    assert exit_code is PairExitCode.SIMULATOR_CRASHED
    assert len(statuses) < len(ROUTES)


def test_a_simulator_that_does_not_get_ready_uses_the_infrastructure_budget() -> None:
    first = after(agent=Exit(unready=True), driving=False)
    last = after(agent=Exit(unready=True), driving=False, counters=Counters(infrastructure_restarts=4))

    assert (first.exit_code, first.counters.agent_restarts) == (None, 0)
    assert last.exit_code is PairExitCode.SIMULATOR_NOT_READY


def test_a_simulator_container_that_does_not_answer_is_lost() -> None:
    assert after("Completed", simulator=None).exit_code is PairExitCode.PAIR_LOST


@pytest.mark.parametrize(("there", "exit_code"), [(True, PairExitCode.AGENT_CRASHED), (False, PairExitCode.PAIR_LOST)])
def test_an_agent_container_that_does_not_answer_beside_a_simulator_that_does_is_the_agents(
    there: bool, exit_code: PairExitCode
) -> None:
    ending = EndedStart(STOPPED, None, StopReason.HANG, agent_was_there=there)

    assert decide(FIRST, BUDGETS, ending, CheckpointSummary(ROUTES, ("Completed",))).exit_code is exit_code


def test_a_decision_survives_the_way_through_a_file() -> None:
    counters = Counters(2, 1, 1, {3: 1}, (RouteRun(1),), {6: 3}, (RouteRun(6, 1),))
    step = Decision(counters, "because", 2, PairExitCode.AGENT_HANGS, RouteRun(6, 1), "Failed - Agent crashed")

    assert parse_decision(step.render()) == step
    assert parse_decision(Decision(Counters(), "", 0).render()) == Decision(Counters(), "", 0)


@pytest.mark.parametrize(
    ("statuses", "settled"),
    [
        ((), 0),
        (("Completed", SETUP), 1),
        (("Completed", SIMULATION_CRASHED), 1),
        ((SETUP, SETUP), 0),
        (("Completed", "Completed", SETUP), 3),
        (("Completed", "Completed", SENSORS), 2),
        (("Completed", "Completed", SIMULATION_CRASHED), 2),
        ((SETUP, SETUP, SETUP), 0),
    ],
)
def test_a_new_attempt_drives_again_what_stopped_the_last_and_nothing_of_a_finished_shard(
    statuses: tuple[str, ...], settled: int
) -> None:
    assert CheckpointSummary(ROUTES, statuses).settled() == settled


def test_a_repetition_that_was_quarantined_does_not_shield_the_next_one() -> None:
    shown = CheckpointSummary(expand((5,), 3), ("Completed", SIMULATION_CRASHED))
    counters = Counters(simulator_crashes={5: 3}, quarantined=(RouteRun(5, 1),))

    step = decide(counters, BUDGETS, EndedStart(Exit(139), STOPPED), shown)

    assert (step.give_up, step.exit_code) == (RouteRun(5, 2), PairExitCode.FINISHED)


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
