"""The supervisor of a simulator-agent pair (the container `supervisor`): starts, stops, decides, and copies to S3.

It keeps nothing in memory that it cannot read back from the shared directory, so it may die and start again at any
time. `python -m shard_pod.supervisor [--prepare]` ends with a PairExitCode (evaluation.pair.protocol), or 1 to be
started again; with `--prepare` it does the init container's work first, which saves a local pod one interpreter.
"""

import logging
import os
import signal
import sys
import time
from dataclasses import dataclass, replace
from threading import Event
from types import FrameType

from pydantic import TypeAdapter

from evaluation.errors import EvaluationError, Fault, InvalidCheckpoint, TransientError
from evaluation.pair.decisions import ALL_SO_FAR, Decision, EndedStart, StopReason, complete, decide, parse_decision
from evaluation.pair.protocol import Counters, PairExitCode, failure_of, parse_progress
from evaluation.shards import ShardState
from shard_pod.checkpoint_store import CheckpointStore
from shard_pod.log_forwarder import forwarding
from shard_pod.logging_setup import log_to
from shard_pod.pair_directory import PairDirectory, read_whole
from shard_pod.pair_progress import pair_progress
from shard_pod.prepare import exit_code, prepare, show_failure
from shard_pod.settings import PairSettings, read_settings
from shard_pod.shard_routes import ShardRoutes, SharedPool
from shard_pod.start_watch import StartWatch, Stopwatch
from shard_pod.storage import ShardStorage
from shard_pod.upload import Upload

log = logging.getLogger(__name__)

ANSWER_SECONDS = 60.0  # a party that has not ended so long after its stop<n> does not answer


class Stopped(BaseException):
    """The pod is being ended from outside."""


@dataclass(frozen=True)
class BegunStart:
    """The content of start<n>: what was used before it, and why there is this start."""

    counters: Counters
    detail: str


_BEGUN = TypeAdapter(BegunStart)


class PairSupervisor:
    """Runs the pair to its exit code."""

    def __init__(self, settings: PairSettings, storage: ShardStorage, stop: Event) -> None:
        self._settings = settings
        self._files = PairDirectory(settings.pair_dir)
        self._stop = stop
        self._routes = ShardRoutes(settings, self._files)
        self._results = CheckpointStore(settings, self._files, self._routes)
        self._pool = SharedPool(settings, storage, self._pause_for_storage) if settings.pulled else None
        self._upload = Upload(settings, storage, self._files, self._results, self._counters_before_this_pod().starts)
        self._copied_at = 0.0
        self._began = 0  # the last start that this process began; an earlier one's times it has not seen

    def run(self) -> PairExitCode:
        """Follow the starts until there is an exit code; raises Stopped."""
        if told := self._files.published("exit_code"):  # the other parties go by it already
            return PairExitCode(int(told))
        start = self._files.latest_start()
        if not start and (ended := self._complete_before_this_pod()):
            log.info("Nothing is started: %s", ended.detail)
            return self._finish(ended, ended.exit_code or PairExitCode.FINISHED)
        if not start:
            start = self._begin(1, self._counters_before_this_pod(), "the simulator is warming up")
        while True:
            step = self._decided(start) or self._decide(start)
            log.info("Start %d has ended: %s", start, step.detail)
            driven = step.exit_code is None and step.settled == len(self._routes.runs)
            step = self._next_routes(step) if driven else self._applied(step)
            if step.exit_code is not None:
                return self._finish(step, step.exit_code)
            start = self._begin(start + 1, step.counters, step.detail)

    def _applied(self, step: Decision) -> Decision:
        """The step, carried out; where the agent's folder prevents that, the shard ends, at the agent's charge."""
        try:
            self._results.apply(step)
        except InvalidCheckpoint as error:
            exit_code = PairExitCode.AGENT_CRASHED if step.exit_code is None else step.exit_code
            return replace(step, exit_code=exit_code, detail=f"{step.detail}; {error.summary}")
        return step

    def _next_routes(self, last: Decision) -> Decision:
        """What follows when all routes so far have their records, carried out: the pool's next ones, or the end."""
        if self._pool and self._pool.take(self._routes, self._results.observations.seen):
            return self._applied(last)
        if not last.give_up:
            end = complete(last.counters, self._results.summary)
            return self._applied(replace(last, exit_code=end.exit_code, detail=end.detail))
        last = self._applied(last)  # the end depends on its record
        if last.exit_code is not None:
            return last
        return replace(last, exit_code=complete(last.counters, self._results.summary).exit_code)

    def _counters_before_this_pod(self) -> Counters:
        if self._files.latest_start():
            first = self._begun(1).counters
            return replace(first, starts=first.starts - 1)
        earlier = parse_progress(read_whole(self._files.progress) or b"")
        return earlier.counters if earlier else Counters()

    def _complete_before_this_pod(self) -> Decision | None:
        """The end of a shard that has come again with all its routes recorded, and more are not to be had.

        Nothing is started for it.
        """
        counters = self._counters_before_this_pod()
        summary = self._results.summary  # `prepare` has taken away what is to be driven again
        if not summary.complete:
            return None
        step = self._next_routes(Decision(counters, ALL_SO_FAR, len(summary.statuses)))
        return step if step.exit_code is not None else None

    def _begin(self, start: int, counters: Counters, detail: str) -> int:
        counters = replace(counters, starts=counters.starts + 1)
        unrecorded = self._routes.runs[len(self._results.statuses) :]
        self._routes.put_in_place(start)
        self._results.observations.start_begins(self._settings.attempt, counters.starts, unrecorded)
        self._began = start
        self._files.publish(f"start{start}", _BEGUN.dump_json(BegunStart(counters, detail)).decode())
        self._show(start)
        return start

    def _decide(self, start: int) -> Decision:
        ending = self._follow(start)
        self._results.refresh()
        counters = self._begun(start).counters
        step = decide(counters, self._settings.budgets, ending, self._results.summary)
        self._results.observations.start_ended(ending, counters, step)
        self._files.publish(f"next{start}", step.render())
        return step

    def _decided(self, start: int) -> Decision | None:
        content = self._files.published(f"next{start}")
        return parse_decision(content) if content else None

    def _begun(self, start: int) -> BegunStart:
        return _BEGUN.validate_json(self._files.published(f"start{start}") or "{}")

    def _follow(self, start: int) -> EndedStart:
        """Copy and watch until both parties have ended, or one does not answer."""
        files = self._files
        watch = StartWatch(start, self._settings, files, self._stop)
        stopped = Stopwatch()
        while True:
            if files.ready_port(start) is not None:
                self._results.observations.simulator_is_ready(watched=start == self._began)
            simulator, agent = files.simulator_exit(start), files.agent_exit(start)
            stop = files.published(f"stop{start}")
            if (simulator and agent) or stopped.seconds_since(stop is not None) > ANSWER_SECONDS:
                reason = StopReason(stop) if stop else None
                driving = files.ready_port(start) is not None
                return EndedStart(simulator, agent, reason, driving, files.agent_was_there)
            if stop is None and (why := watch.reason_to_stop(simulator, agent, self._results.summary)):
                log.info("Stopping start %d: %s", start, why)
                self._results.refresh()  # what lies there now was written before the stop
                self._results.observations.start_is_stopped()
                files.publish(f"stop{start}", why)
            self._copy_if_due(start)
            self._pause()

    def _copy_if_due(self, start: int) -> None:
        if time.monotonic() - self._copied_at < self._settings.copy_seconds:
            return
        self._results.refresh()
        self._show(start)
        self._upload.copy()
        self._copied_at = time.monotonic()

    def _pause_for_storage(self) -> None:
        if self._stop.wait(self._settings.copy_seconds):
            raise Stopped

    def _pause(self) -> None:
        if self._stop.wait(self._settings.poll_seconds):
            raise Stopped

    def _show(self, start: int) -> None:
        begun = self._begun(start)
        if self._files.ready_port(start) is not None:
            state = ShardState.DRIVING
        else:
            again = begun.counters.starts > 1 and begun.detail != ALL_SO_FAR
            state = ShardState.RETRYING if again else ShardState.STARTING
        self._upload.show(pair_progress(self._settings, self._results, state, begun.counters, begun.detail))

    def _settle(self, step: Decision, exit_code: PairExitCode) -> Decision:
        """Tell the pool that the shard has failed: others drive its routes, unless it ends the submission.

        Routes at its end that it has quarantined go back too: perhaps only this machine's simulator dies on them.
        """
        if self._pool is None or exit_code is PairExitCode.FINISHED:
            return step
        if failure_of(exit_code).fault is Fault.TEAM:
            self._pool.close(f"shard {self._settings.shard}: {step.detail}")
            return step
        keep = self._results.summary.settled() // self._settings.repetitions
        try:
            self._results.cut(keep * self._settings.repetitions)
        except InvalidCheckpoint as error:  # then a resume drives them
            log.warning("Its routes are not given back: %s", error)
            return step
        self._copy_until_done(everything=False)
        self._pool.give_back(self._routes, keep)
        quarantined = tuple(run for run in step.counters.quarantined if run in self._routes.runs)
        return replace(step, counters=replace(step.counters, quarantined=quarantined))

    def _copy_until_done(self, everything: bool) -> None:
        while True:
            try:
                return self._upload.copy_now(everything)
            except TransientError as error:
                log.warning("Not copied, trying again: %s", error)
            self._pause_for_storage()

    def _finish(self, step: Decision, exit_code: PairExitCode) -> PairExitCode:
        """Store everything, then publish the exit code: a finished shard is one whose last checkpoint is in S3."""
        step = self._settle(step, exit_code)
        state = ShardState.FINISHED if exit_code is PairExitCode.FINISHED else ShardState.FAILED
        log.info("Exit code %s: %s", exit_code.name.lower().replace("_", " "), step.detail)
        self._upload.show(pair_progress(self._settings, self._results, state, step.counters, step.detail, exit_code))
        self._copy_until_done(everything=True)
        self._files.publish("exit_code", str(int(exit_code)))
        return exit_code

    def leave(self) -> PairExitCode:
        """The pod is being ended: stop the pair and copy what there is; a later pod or attempt goes on from it."""
        self._files.publish("exit_code", str(int(PairExitCode.CANCELLED)))
        self._results.refresh()
        self._upload.copy_now(everything=True)
        return PairExitCode.CANCELLED


def supervise(settings: PairSettings, stop: Event, prepare_first: bool) -> int:
    """Run the pair; returns the exit code. Waiting parties get it by the file exit_code."""
    files = PairDirectory(settings.pair_dir)
    with forwarding(settings, files):
        storage = None
        try:
            storage = ShardStorage.of_shard(settings, os.environ)
            if prepare_first:
                log_to(files.logs["init"])
                prepare(settings, storage)
            log_to(files.logs["supervisor"])
            return _run(PairSupervisor(settings, storage, stop))
        except EvaluationError as error:
            log.error("%s", error)
            code = exit_code(error)
            if code != 1:
                if storage:
                    show_failure(settings, storage, error)
                files.publish("exit_code", str(int(code)))
            return code


def _run(supervisor: PairSupervisor) -> PairExitCode:
    try:
        return supervisor.run()
    except Stopped:
        log.info("Ended by a signal")
        return supervisor.leave()


def main() -> int:
    stop = Event()

    def on_signal(_signal: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, on_signal)
    signal.signal(signal.SIGINT, on_signal)
    try:
        settings = read_settings(os.environ)
    except EvaluationError as error:
        sys.stderr.write(f"{error}\n")
        return PairExitCode.MISCONFIGURED
    return supervise(settings, stop, prepare_first="--prepare" in sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
