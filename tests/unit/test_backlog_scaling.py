"""The simulation of benchmarks/backlog_scaling.py: what it claims holds for any jobs, not for one seed."""

from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.backlog_scaling import POLICIES, Outcome, Policy, World, both, draw, simulate, table, visible_only

WORLD = World(jobs=60, most=10, mean_job=6 * 60)


def outcome(policy: Policy, seed: int) -> Outcome:
    return simulate(replace(WORLD, seed=seed), policy)


@pytest.mark.parametrize("seed", range(5))
def test_every_job_ends_once_and_the_fleet_goes_back_to_its_least(seed: int) -> None:
    for policy in POLICIES[:4]:
        seen = outcome(policy, seed)
        assert len(seen.waits) == WORLD.jobs, policy.name
        assert seen.history[-1][1:] == (0, WORLD.fewest), policy.name
        assert max(workers for _, _, workers in seen.history) <= WORLD.most


@pytest.mark.parametrize("seed", range(5))
def test_scale_in_kills_nothing_that_is_protected(seed: int) -> None:
    for policy in POLICIES:
        seen = outcome(policy, seed)
        if policy.protected:
            assert (seen.killed, seen.lost_seconds) == (0, 0), policy.name


@pytest.mark.parametrize("seed", range(5))
def test_unprotected_fleets_that_count_visible_messages_only_do_work_again(seed: int) -> None:
    seen = outcome(Policy("", visible_only, protected=False, bridged=False), seed)
    assert seen.killed > 0
    assert seen.ends > outcome(Policy("", both, protected=True), seed).ends


def test_behind_the_bridge_a_fleet_that_counts_visible_messages_only_never_grows() -> None:
    seen = outcome(Policy("", visible_only, protected=True), 1)
    assert {workers for _, _, workers in seen.history} == {WORLD.fewest}


def test_the_same_seed_gives_the_same_table_and_picture(tmp_path: Path) -> None:
    drawn = []
    for name in ("one.svg", "two.svg"):
        outcomes = [outcome(policy, 3) for policy in POLICIES]
        draw(WORLD, outcomes, tmp_path / name)
        drawn.append((table(WORLD, outcomes), (tmp_path / name).read_bytes()))

    assert drawn[0] == drawn[1]
    assert "visible + in flight" in drawn[0][1].decode()
