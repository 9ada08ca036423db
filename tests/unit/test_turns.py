"""Who gets the next GPU slot."""

from collections.abc import Sequence

from local_jobs.turns import Ticket, in_turn


def tickets(team: str, submissions: Sequence[int], shards: int = 4, since: float = 0.0) -> list[Ticket]:
    """One submission a second, from `since` on."""
    return [
        Ticket(since + number, f"submission-{pk}", f"submission-{pk}-shard-{shard}", team)
        for number, pk in enumerate(submissions)
        for shard in range(shards)
    ]


def names(order: Sequence[Ticket], most: int) -> list[str]:
    return [ticket.name for ticket in order[:most]]


def test_a_team_that_sent_a_hundred_does_not_keep_another_waiting() -> None:
    many, one = tickets("many", range(100)), tickets("one", [500], since=1000.0)

    order = in_turn([*many, *one], held={"many": 8}, last_turn={"many": 8})

    assert names(order, 4) == [f"submission-500-shard-{shard}" for shard in range(4)]
    assert names(order[4:], 2) == ["submission-0-shard-0", "submission-0-shard-1"]
    assert len(order) == 404


def test_of_teams_that_hold_as_many_the_one_whose_turn_is_longer_ago_comes_first() -> None:
    waiting = [*tickets("a", [1], since=0.0), *tickets("b", [2], since=5.0), *tickets("c", [3], since=9.0)]

    order = in_turn(waiting, held={}, last_turn={"a": 7, "b": 3})

    assert [ticket.team for ticket in order] == ["c", "b", "a"] * 4


def test_a_teams_submissions_are_driven_one_after_the_other() -> None:
    order = in_turn(reversed(tickets("a", [9, 4], shards=2)), held={}, last_turn={})

    expected = ["submission-9-shard-0", "submission-9-shard-1", "submission-4-shard-0", "submission-4-shard-1"]
    assert names(order, 4) == expected
