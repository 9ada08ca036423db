"""Who gets the next GPU slot: the team that holds the fewest. Pure."""

import heapq
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, order=True)
class Ticket:
    """A Job that waits. By order: a team's earlier submission first, then shard by shard."""

    since: float  # when the first shard of its submission's attempt was accepted, in seconds since the epoch
    attempt: str  # the names of its submission's Jobs begin so
    name: str  # the Job's
    team: str


def in_turn(waiting: Iterable[Ticket], held: Mapping[str, int], last_turn: Mapping[str, int]) -> list[Ticket]:
    """The Jobs in the order in which they start, if none is added.

    The next slot is for the team that holds the fewest; among equals for the one whose last turn is the longest ago,
    then for the one that waits the longest. `held`: slots by team; `last_turn`: the number of each team's last turn.
    """
    queues: dict[str, list[Ticket]] = defaultdict(list)
    for ticket in sorted(waiting, reverse=True):
        queues[ticket.team].append(ticket)
    turn = max(last_turn.values(), default=0)
    teams = [(held.get(team, 0), last_turn.get(team, 0), queue[-1], team) for team, queue in queues.items()]
    heapq.heapify(teams)
    order = []
    while teams:
        holds, _, ticket, team = heapq.heappop(teams)
        order.append(ticket)
        queues[team].pop()
        turn += 1
        if queues[team]:
            heapq.heappush(teams, (holds + 1, turn, queues[team][-1], team))
    return order
