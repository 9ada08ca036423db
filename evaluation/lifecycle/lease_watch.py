"""Whether anybody still renews a claim, by one observer's clock and by nothing else.

Clocks of two machines differ, so no `lease-until` is compared with another machine's time. The observer reads the row
again and again, and adds up for how long it saw no renewal. Time in which it could not read does not count: in an
outage of the ledger the holder cannot renew either, and afterwards it has its whole lease to do so.
"""

from collections.abc import Hashable, Mapping

READS_PER_LEASE = 6


class LeaseWatch:
    """Watches some claims at once. `at` is the observer's own monotonic clock, in seconds."""

    def __init__(self, lease_seconds: float, first: Mapping[int, Hashable], at: float) -> None:
        """`first`: what was last read of each submission's claim; any later value differs if it was renewed."""
        self._lease = lease_seconds
        self._signs = dict(first)
        self._at = at
        self._silent = dict.fromkeys(first, 0.0)
        self.renewed: frozenset[int] = frozenset()

    @property
    def pause(self) -> float:
        """Seconds between two reads."""
        return self._lease / READS_PER_LEASE

    @property
    def undecided(self) -> frozenset[int]:
        return frozenset(self._silent) - self.renewed - self.expired

    @property
    def expired(self) -> frozenset[int]:
        """Not renewed for a whole lease in which the observer could read."""
        return frozenset(pk for pk, seconds in self._silent.items() if seconds >= self._lease) - self.renewed

    def read(self, signs: Mapping[int, Hashable], at: float) -> None:
        """The claims as they are now; a submission that is missing has no claim any more."""
        # An observer that was itself stopped for a while did not observe: a longer gap counts as two pauses.
        seconds, self._at = min(at - self._at, 2 * self.pause), at
        self.renewed |= {pk for pk, first in self._signs.items() if pk not in signs or signs[pk] != first}
        for pk in self._silent:
            self._silent[pk] += seconds

    def failed(self, at: float) -> None:
        """The claims could not be read: every measure begins again."""
        self._at = at
        self._silent = dict.fromkeys(self._silent, 0.0)
