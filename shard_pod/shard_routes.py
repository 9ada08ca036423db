"""The routes of this shard: those of its plan, or those that it has claimed from the submission's pool so far.

Where routes are pulled, the evaluator's route file holds the shard's claims in their order and is written anew when
there are more. A start is then the resume of a longer set, which the evaluator knows how to do.
"""

import logging
from collections.abc import Callable

from pydantic import TypeAdapter

from evaluation import storage_keys
from evaluation.errors import InvalidConfiguration, TransientError
from evaluation.pair.observations import Observations
from evaluation.pulling.choice import START_SECONDS
from evaluation.pulling.durations import shown_seconds, start_seconds
from evaluation.pulling.pool import RoutePool, parse_pool
from evaluation.routes import RouteRun, expand, routes_file
from shard_pod.pair_directory import PairDirectory, read_whole, write_whole
from shard_pod.settings import PairSettings
from shard_pod.storage import ShardStorage

log = logging.getLogger(__name__)

_CLAIMS = TypeAdapter(tuple[int, ...])


class ShardRoutes:
    """What the shard is to drive, as its own directory says: it survives the supervisor, and the pool the pod."""

    def __init__(self, settings: PairSettings, files: PairDirectory) -> None:
        self._settings = settings
        self._files = files
        self._claims = _CLAIMS.validate_json(read_whole(files.claims) or b"[]") if settings.pulled else ()

    @property
    def claims(self) -> tuple[int, ...]:
        """The routes that were pulled, in the order of driving."""
        return self._claims

    @property
    def runs(self) -> tuple[RouteRun, ...]:
        """Every repetition of each route, in the order of driving."""
        return expand(self._claims, self._settings.repetitions) if self._settings.pulled else self._settings.expected

    @property
    def open(self) -> bool:
        """Whether more may come."""
        return self._settings.pulled

    def keep(self, claims: tuple[int, ...]) -> None:
        """These are the shard's claims from now on."""
        write_whole(self._files.claims, _CLAIMS.dump_json(claims))
        self._claims = claims

    def put_in_place(self, start: int) -> None:
        """Give the evaluator of this start its route file and its subset, where they are not the Job's own."""
        if not self._settings.pulled:
            return
        every = read_whole(self._files.all_routes) or b""
        write_whole(self._settings.routes, routes_file(every, self._claims, self._settings.routes_location))
        self._files.publish(f"subset{start}", ",".join(map(str, self._claims)))


class SharedPool:
    """The submission's pool in S3, changed by conditional writes.

    `pause` waits before a write that an outage has prevented is made again, and may raise to end that. Every method
    raises what the storage raises but TransientError, and InvalidConfiguration where there is no pool.
    """

    def __init__(self, settings: PairSettings, storage: ShardStorage, pause: Callable[[], None]) -> None:
        self._settings = settings
        self._storage = storage
        self._key = storage_keys.pool_key(settings.submission)
        self._pause = pause

    def read(self) -> tuple[RoutePool, str]:
        """The pool and its ETag; raises TransientError too."""
        found = self._storage.read_version(self._key)
        source = self._storage.address(self._key)
        if found is None:
            raise InvalidConfiguration(f"There is no pool of routes at {source}", remedy="Resume the submission.")
        pool = parse_pool(found[0], source)
        if not self._settings.shard < len(pool.claims):
            raise InvalidConfiguration(f"{source} knows {len(pool.claims)} shards, not shard {self._settings.shard}")
        return pool, found[1]

    def claims(self) -> tuple[int, ...]:
        """This shard's claims; raises TransientError too."""
        return self.read()[0].claims[self._settings.shard]

    def take(self, routes: ShardRoutes, seen: Observations) -> bool:
        """Claim the next routes for the shard, or find those that were claimed for it already; False if none are left.

        `routes` must all have their records.
        """
        settings, known = self._settings, routes.claims
        shown, seconds = shown_seconds(seen), start_seconds(seen, START_SECONDS)
        pool = self._change(lambda pool: pool.take(settings.shard, known, settings.attempt, shown, seconds))
        claims = pool.claims[settings.shard]
        if claims == known:
            return False
        if claims[: len(known)] != known:
            problem = "Another pod of this shard has given back routes that this one drives"
            raise InvalidConfiguration(problem, self._storage.address(self._key), "Resume the submission.")
        routes.keep(claims)
        log.info("Routes from the pool: %s; %d are left in it", claims[len(known) :], len(pool.free))
        return True

    def give_back(self, routes: ShardRoutes, keep: int) -> None:
        """Give the claims after the first `keep` back, as far as another pair may drive them."""
        pool = self._change(lambda pool: pool.give_back(self._settings.shard, keep))
        routes.keep(pool.claims[self._settings.shard])

    def close(self, because: str) -> None:
        """Let no pair claim more in this attempt."""
        self._change(lambda pool: pool.close(self._settings.attempt, because))

    def _change(self, change: Callable[[RoutePool], RoutePool]) -> RoutePool:
        """The pool as it is after the change, which must be one that can be made again to what it has made."""
        while True:
            try:
                pool, version = self.read()
                changed = change(pool)
                if changed == pool or self._storage.write_version(self._key, changed.render(), version):
                    return changed
            except TransientError as error:
                log.warning("The pool of routes cannot be changed now: %s", error)
                self._pause()
