"""The init container `private-contents`: fetch the routes, and what an earlier pod or attempt has left in S3.

`python -m shard_pod.prepare` ends with a PairExitCode (evaluation.pair.protocol), or with 1 where a retry may succeed.
"""

import json
import logging
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

from evaluation import storage_keys
from evaluation.errors import EvaluationError, InvalidCheckpoint, InvalidConfiguration
from evaluation.pair.protocol import Counters, PairExitCode, PairProgress, parse_progress
from evaluation.routes import parse_route_xml
from evaluation.shards import ShardState
from shard_pod.checkpoint_store import CheckpointStore, resumable, statuses_of
from shard_pod.log_forwarder import forwarding
from shard_pod.logging_setup import log_to
from shard_pod.pair_directory import PairDirectory, size, write_whole
from shard_pod.settings import PairSettings, read_settings
from shard_pod.shard_routes import ShardRoutes, SharedPool
from shard_pod.storage import ShardStorage
from shard_pod.upload import read_log

log = logging.getLogger(__name__)

_FINAL = (PairExitCode.CHECKPOINT_UNUSABLE, PairExitCode.MISCONFIGURED)


def prepare(settings: PairSettings, storage: ShardStorage) -> None:
    """Make the shared directory ready for the first start.

    Raises InvalidConfiguration, InvalidCheckpoint, or an error of the storage.
    """
    files = PairDirectory(settings.pair_dir)
    files.clear()
    _fetch_routes(settings, storage, files)
    _fetch_claims(settings, storage, files)
    _fetch_results(settings, storage, files)


def _fetch_routes(settings: PairSettings, storage: ShardStorage, files: PairDirectory) -> None:
    location = settings.routes_location
    content = _read_location(location, storage)
    missing = {run.route for run in settings.expected} - set(parse_route_xml(content, location))
    if missing:
        raise InvalidConfiguration(f"{location} lacks routes of this shard", ", ".join(map(str, sorted(missing))))
    write_whole(files.all_routes if settings.pulled else settings.routes, content)
    log.info("Routes from %s", location)


def _fetch_claims(settings: PairSettings, storage: ShardStorage, files: PairDirectory) -> None:
    """What an earlier pod or attempt of this shard has claimed stays its own."""
    if not settings.pulled:
        return
    claims = SharedPool(settings, storage, pause=lambda: None).claims()
    ShardRoutes(settings, files).keep(claims)
    log.info("Routes claimed before: %s", ", ".join(map(str, claims)) or "none")


def _read_location(location: str, storage: ShardStorage) -> bytes:
    parts = urlsplit(location)
    if parts.scheme == "s3":
        content = storage.of(parts.netloc).read(parts.path.lstrip("/"))
        if content is None:
            raise InvalidConfiguration(f"There is no route file at {location}")
        return content
    try:
        return Path(location).read_bytes()
    except OSError as error:
        raise InvalidConfiguration(f"The route file {location} cannot be read", str(error)) from error


def _fetch_results(settings: PairSettings, storage: ShardStorage, files: PairDirectory) -> None:
    checkpoint_key = storage_keys.checkpoint_key(settings.submission, settings.shard)
    earlier = storage.read_shard_file(checkpoint_key)
    progress = _earlier_progress(settings, storage)
    files.good_checkpoint.unlink(missing_ok=True)
    settings.checkpoint.unlink(missing_ok=True)
    if progress and progress.attempt == settings.attempt:
        write_whole(files.progress, progress.render().encode())
        log.info("This pod goes on after start %d of attempt %d", progress.counters.starts, progress.attempt)
    else:
        files.progress.unlink(missing_ok=True)
    seen = storage.read_shard_file(storage_keys.observations_key(settings.submission, settings.shard))
    if seen:
        write_whole(files.observations, seen)
    else:
        files.observations.unlink(missing_ok=True)
    if not earlier:
        log.info("No earlier checkpoint")
        return
    runs = ShardRoutes(settings, files).runs
    statuses = statuses_of(settings, runs, earlier, storage.address(checkpoint_key))
    quarantined = progress.counters.quarantined if progress else ()
    document = json.loads(earlier)
    CheckpointStore(settings, files).store(resumable(document, runs, quarantined))
    log.info("Earlier checkpoint: %d of %d routes", len(statuses), len(runs))


def _earlier_progress(settings: PairSettings, storage: ShardStorage) -> PairProgress | None:
    try:
        return parse_progress(
            storage.read_shard_file(storage_keys.progress_key(settings.submission, settings.shard)) or b""
        )
    except InvalidCheckpoint as error:  # not part of the result: without it the budgets are full again
        log.warning("Earlier progress is not used: %s", error)
        return None


def show_failure(settings: PairSettings, storage: ShardStorage, error: EvaluationError) -> None:
    """Leave in S3 why the pair did not even begin: the flow knows only the exit code otherwise.

    What an earlier pod or attempt has used up, and which routes it has quarantined, stays as it was.
    """
    code = exit_code(error)
    if code not in _FINAL:
        return
    try:
        earlier = _earlier_progress(settings, storage)
        counters = earlier.counters if earlier else Counters()
        if earlier and earlier.attempt != settings.attempt:
            counters = Counters(quarantined=counters.quarantined)
        progress = PairProgress(
            attempt=settings.attempt,
            state=ShardState.FAILED,
            routes_done=earlier.routes_done if earlier else 0,
            routes_total=len(settings.expected),
            route=None,
            counters=counters,
            exit_code=PairExitCode(code),
            detail=f"{error.summary}: {error.cause}" if error.cause else error.summary,
            updated_at=datetime.now(UTC),
        )
        key = storage_keys.progress_key(settings.submission, settings.shard)
        storage.write(key, progress.render().encode(), "application/json")
    except EvaluationError as trouble:
        log.warning("Nobody but this log says why: %s", trouble)


def exit_code(error: EvaluationError) -> int:
    """An exit code of the pair where trying again changes nothing, 1 otherwise."""
    match error:
        case InvalidCheckpoint():
            return PairExitCode.CHECKPOINT_UNUSABLE
        case InvalidConfiguration():
            return PairExitCode.MISCONFIGURED
        case _:
            return 1


def main() -> int:
    try:
        settings = read_settings(os.environ)
    except EvaluationError as error:
        sys.stderr.write(f"{error}\n")
        return exit_code(error)
    files = PairDirectory(settings.pair_dir)
    with forwarding(settings, files):
        log_to(files.logs["init"])
        storage = None
        try:
            storage = ShardStorage.of_shard(settings, os.environ)
            prepare(settings, storage)
        except EvaluationError as error:
            log.error("%s", error)
            if storage:
                show_failure(settings, storage, error)
            _keep_logs(settings, files)
            return exit_code(error)
    return PairExitCode.FINISHED


def _keep_logs(settings: PairSettings, files: PairDirectory) -> None:
    """No supervisor follows that would send them to S3."""
    storage = ShardStorage(settings.bucket)
    for process in ("init", "evaluator"):
        path = files.logs[process]
        key = storage_keys.log_key(settings.submission, settings.shard, settings.attempt, process)
        try:
            if found := size(path):
                storage.write_log(key, read_log(path, found))
        except EvaluationError as error:
            log.warning("The log of %s is not kept in S3: %s", process, error)


if __name__ == "__main__":
    sys.exit(main())
