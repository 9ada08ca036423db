"""The keeper of a simulator-agent pair (the container `logcopy`): starts, stops, judges and copies to S3.

It keeps nothing in memory that it cannot read back from the shared directory, so it may die and start again at any
time. `python -m k8s_jobs.pod.logcopy [--prepare]` ends with a code of evaluation.pair.Verdict, or 1 to be started
again; with `--prepare` it does the init container's work first, which saves a local pod one interpreter.
"""

import json
import logging
import os
import signal
import sys
import time
from dataclasses import replace
from threading import Event
from types import FrameType

from evaluation.errors import EvaluationError, InvalidCheckpoint, TransientError
from evaluation.pair import Counters, PairProgress, Verdict, parse_counters, parse_progress, render_counters
from evaluation.pair_decisions import Ending, Step, StopReason, decide
from evaluation.routes import RouteRun
from evaluation.shards import ShardState
from k8s_jobs.pod.files import PairFiles, age, read_whole
from k8s_jobs.pod.messages import log_to
from k8s_jobs.pod.prepare import exit_code, prepare
from k8s_jobs.pod.results import Results
from k8s_jobs.pod.settings import PairSettings, read_settings
from k8s_jobs.pod.shipping import following
from k8s_jobs.pod.storage import Storage
from k8s_jobs.pod.upload import Upload, now

log = logging.getLogger(__name__)

ANSWER_SECONDS = 60.0  # a party that has not ended so long after it was told to is lost


class Stopped(BaseException):
    """The pod is being ended from outside."""


class Keeper:
    """Runs the pair to its verdict."""

    def __init__(self, settings: PairSettings, storage: Storage, stop: Event) -> None:
        self._settings = settings
        self._files = PairFiles(settings.pair_dir)
        self._stop = stop
        self._results = Results(settings, self._files)
        self._upload = Upload(settings, storage, self._files, self._results, self._counters_before_this_pod().starts)
        self._copied_at = 0.0

    def run(self) -> Verdict:
        """Follow the starts until there is a verdict; raises Stopped."""
        start = self._files.latest_start()
        if not start:
            start = self._begin(1, self._counters_before_this_pod(), "the simulator is warming up")
        while True:
            step = self._decided(start) or self._decide(start)
            log.info("Start %d has ended: %s", start, step.detail)
            step = self._applied(step)
            if step.verdict is not None:
                return self._finish(step, step.verdict)
            start = self._begin(start + 1, step.counters, step.detail)

    def _applied(self, step: Step) -> Step:
        """The step, carried out; where the agent's folder prevents that, the shard ends, at the agent's charge."""
        try:
            self._results.apply(step)
        except InvalidCheckpoint as error:
            verdict = Verdict.AGENT_CRASHED if step.verdict is None else step.verdict
            return replace(step, verdict=verdict, detail=f"{step.detail}; {error.summary}")
        return step

    def _counters_before_this_pod(self) -> Counters:
        if self._files.latest_start():
            first, _ = self._begun(1)
            return replace(first, starts=first.starts - 1)
        earlier = parse_progress(read_whole(self._files.progress) or b"")
        return earlier.counters if earlier else Counters()

    def _begin(self, start: int, counters: Counters, detail: str) -> int:
        counters = replace(counters, starts=counters.starts + 1)
        self._files.tell(f"start{start}", json.dumps({**render_counters(counters), "detail": detail}))
        self._show(start)
        return start

    def _decide(self, start: int) -> Step:
        ending = self._follow(start)
        self._results.look()
        step = decide(self._begun(start)[0], self._settings.budgets, ending, self._results.shown)
        self._files.tell(f"next{start}", _render_step(step))
        return step

    def _decided(self, start: int) -> Step | None:
        content = self._files.told(f"next{start}")
        return _parse_step(content) if content else None

    def _begun(self, start: int) -> tuple[Counters, str]:
        values = json.loads(self._files.told(f"start{start}") or "{}")
        return parse_counters(values), str(values["detail"])

    def _follow(self, start: int) -> Ending:
        """Copy and watch until both parties have ended, or one does not answer."""
        files = self._files
        while True:
            simulator, agent = files.exit(files.simulator, start), files.exit(files.agent, start)
            stop = files.told(f"stop{start}")
            lost = age(files.told_at(f"stop{start}")) > ANSWER_SECONDS
            if (simulator and agent) or lost:
                reason = StopReason(stop) if stop else None
                return Ending(simulator, agent, reason, driving=files.ready_at(start) is not None)
            if stop is None and (why := self._reason_to_stop(start)):
                log.info("Stopping start %d: %s", start, why)
                files.tell(f"stop{start}", why)
            self._copy_if_due(start)
            self._pause()

    def _reason_to_stop(self, start: int) -> StopReason | None:
        # When one half ends, the other may be going down of itself, and its own words count: give it two polls.
        if age(self._files.exited_at(start)) > 2 * self._settings.poll_seconds:
            return StopReason.PARTNER
        if age(self._files.silent_since(self._settings.checkpoint, start)) > self._settings.hang_seconds:
            return StopReason.HANG
        return None

    def _copy_if_due(self, start: int) -> None:
        if time.monotonic() - self._copied_at < self._settings.copy_seconds:
            return
        self._results.look()
        self._show(start)
        self._upload.copy()
        self._copied_at = time.monotonic()

    def _pause(self) -> None:
        if self._stop.wait(self._settings.poll_seconds):
            raise Stopped

    def _show(self, start: int) -> None:
        counters, detail = self._begun(start)
        if self._files.ready_at(start) is not None:
            state = ShardState.DRIVING
        else:
            state = ShardState.STARTING if counters.starts == 1 else ShardState.RETRYING
        self._upload.show(self._progress(state, counters, detail, self._results.driving))

    def _progress(
        self,
        state: ShardState,
        counters: Counters,
        detail: str,
        driving: RouteRun | None = None,
        verdict: Verdict | None = None,
    ) -> PairProgress:
        if state is ShardState.DRIVING:
            detail = f"driving route {driving.route}" if driving else "every route has its record"
            detail += f" (start {counters.starts})" if counters.starts > 1 else ""
            detail += f"; its checkpoint is refused: {self._results.refused}" if self._results.refused else ""
        return PairProgress(
            attempt=self._settings.attempt,
            state=state,
            routes_done=self._results.shown.driven,
            routes_total=len(self._settings.expected),
            route=driving.route if driving and state is ShardState.DRIVING else None,
            counters=counters,
            verdict=verdict,
            detail=detail,
            updated_at=now(),
        )

    def _finish(self, step: Step, verdict: Verdict) -> Verdict:
        """Store everything, then tell the verdict: a finished shard is one whose last checkpoint lies in S3."""
        state = ShardState.FINISHED if verdict is Verdict.FINISHED else ShardState.FAILED
        # The last line: Kubernetes and the local backend show it where a pod's exit code says too little.
        log.info("Verdict %s: %s", verdict.name.lower().replace("_", " "), step.detail)
        self._upload.show(self._progress(state, step.counters, step.detail, verdict=verdict))
        while True:
            try:
                self._upload.copy_now(everything=True)
                break
            except TransientError as error:
                log.warning("Not copied, trying again: %s", error)
            if self._stop.wait(self._settings.copy_seconds):
                raise Stopped
        self._files.tell("verdict", str(int(verdict)))
        return verdict

    def leave(self) -> Verdict:
        """The pod is being ended: stop the pair and copy what there is; a later pod or attempt goes on from it."""
        self._files.tell("verdict", str(int(Verdict.CANCELLED)))
        self._results.look()
        self._upload.copy_now(everything=True)
        return Verdict.CANCELLED


def _render_step(step: Step) -> str:
    return json.dumps(
        {
            "counters": render_counters(step.counters),
            "detail": step.detail,
            "keep": step.keep,
            "verdict": step.verdict,
            "quarantine": [step.quarantine.route, step.quarantine.repetition] if step.quarantine else None,
        }
    )


def _parse_step(content: str) -> Step:
    values = json.loads(content)
    return Step(
        counters=parse_counters(values["counters"]),
        detail=values["detail"],
        keep=values["keep"],
        verdict=None if values["verdict"] is None else Verdict(values["verdict"]),
        quarantine=RouteRun(*values["quarantine"]) if values["quarantine"] else None,
    )


def keep(settings: PairSettings, stop: Event, prepare_first: bool) -> int:
    """Run the pair; the exit code. Parties that still wait are told a verdict whenever there is one."""
    files = PairFiles(settings.pair_dir)
    with following(settings, files):
        try:
            storage = Storage(settings.bucket)
            if prepare_first:
                log_to(files.logs["init"])
                prepare(settings, storage)
            log_to(files.logs["logcopy"])
            return _run(Keeper(settings, storage, stop))
        except EvaluationError as error:
            log.error("%s", error)
            code = exit_code(error)
            if code != 1:
                files.tell("verdict", str(int(code)))
            return code


def _run(keeper: Keeper) -> Verdict:
    try:
        return keeper.run()
    except Stopped:
        log.info("Told to end")
        return keeper.leave()


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
        return Verdict.MISCONFIGURED
    return keep(settings, stop, prepare_first="--prepare" in sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
