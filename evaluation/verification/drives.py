"""What a shard's checkpoint claims, with what its supervisor saw: which records, in which order, in which time."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from evaluation.pair.decisions import EVALUATOR_DEATHS_PER_ROUTE
from evaluation.pair.observations import Observations, SeenRecord, SeenRedrive, SeenStart, record_digest
from evaluation.results.checkpoint import Checkpoint
from evaluation.routes import RouteRun, format_runs
from evaluation.verification.reasons import Kind, Reason

_SLACK = timedelta(seconds=60)  # between an event and the supervisor's next look
_CLOCK_RATE = 1.02  # two clocks may run so differently


@dataclass(frozen=True)
class DriveLimits:
    """`real_time`: durations are those of this world's clock; the stand-ins of a laptop make theirs up."""

    real_time: bool = True
    unconfirmed_crashes: int = 0  # redrives of a submission after crashes that the supervisor did not see
    most_at_agents_charge: int = EVALUATOR_DEATHS_PER_ROUTE  # drives of one route, over all attempts


@dataclass(frozen=True)
class Drives:
    """How often one route was driven, and why again."""

    run: RouteRun
    count: int
    causes: tuple[str, ...] = ()


def drives_again(seen: Observations) -> list[Drives]:
    """The routes that were driven more than once."""
    causes: dict[RouteRun, list[str]] = defaultdict(list)
    for redrive in seen.redrives:
        causes[redrive.run].append(redrive.cause)
    return [Drives(run, 1 + len(each), tuple(each)) for run, each in sorted(causes.items())]


def drives_text(drives: Sequence[Drives]) -> list[str]:
    """How many routes were driven more than once, then a line for those with the same story; empty where none was."""
    if not drives:
        return []
    together: dict[tuple[int, tuple[str, ...]], list[RouteRun]] = defaultdict(list)
    for each in drives:
        together[each.count, each.causes].append(each.run)
    lines = [f"Routes driven more than once: {len(drives)}"]
    for (count, causes), runs in together.items():
        names, drive = (str(runs[0]), "drives") if len(runs) == 1 else (f"routes {format_runs(runs)}", "drives each")
        lines.append(f"{names}: {count} {drive} ({'; '.join(causes)})")
    return lines


def check_drives(
    shard: str, checkpoint: Checkpoint, seen: Observations | None, limits: DriveLimits
) -> Iterator[Reason]:
    """`shard` names it for people. None: there is no file of its supervisor."""
    if seen is None:
        if checkpoint.runs:
            yield Reason(Kind.DRIVES, f"{shard}: no file says what its supervisor saw of it (observations.json).")
        return
    problems = [*_records(checkpoint, seen), *_changes(seen), *_charged(seen, limits)]
    yield from (Reason(Kind.DRIVES, f"{each}.") for each in problems)
    if seen.full:
        yield Reason(Kind.DRIVES, f"{shard}: more happened to it than its supervisor notes.")
    if limits.real_time:
        yield from (Reason(Kind.TIMES, f"{shard}: {each}.") for each in _clock(checkpoint, seen))


def check_claimed_crashes(all_seen: Sequence[Observations], limits: DriveLimits) -> Iterator[Reason]:
    """Routes driven again because the evaluator reported a crash of a simulator that lived, over the submission."""
    claimed = [redrive for seen in all_seen for redrive in seen.redrives if redrive.claimed_crash]
    if len(claimed) <= limits.unconfirmed_crashes:
        return
    for redrive in claimed:
        sentence = "was driven again after the evaluator had reported a crash of the simulator, which was alive"
        yield Reason(Kind.DRIVES, f"{redrive.run}: it {sentence} (start {redrive.start}, attempt {redrive.attempt}).")


def _records(checkpoint: Checkpoint, seen: Observations) -> Iterator[str]:
    """Each record is the one that was seen last, and they came in their order."""
    order: list[int] = []
    for run, record in zip(checkpoint.runs, checkpoint.records, strict=True):
        sightings = seen.records_of(run)
        if not sightings:
            yield f"{run}: its record was never seen while its shard was driven"
        elif sightings[-1].digest != record_digest(record):
            yield f"{run}: its record is not the one that its supervisor saw"
        else:
            order.append(seen.events.index(sightings[-1]))
    if order != sorted(order):
        yield f"{checkpoint.runs[0]} and those after it: their records came in another order than that of the routes"


def _changes(seen: Observations) -> Iterator[str]:
    """A record may be replaced only after its route was driven again."""
    last: dict[RouteRun, SeenRecord] = {}
    for event in seen.events:
        if isinstance(event, SeenRedrive):
            last.pop(event.run, None)
        elif isinstance(event, SeenRecord):
            if event.run in last and not event.by_supervisor:
                yield f"{event.run}: its record was changed after it had been written, and it was not driven again"
            last[event.run] = event


def _charged(seen: Observations, limits: DriveLimits) -> Iterator[str]:
    charged = Counter(redrive.run for redrive in seen.redrives if redrive.charged_to_agent)
    for run, count in sorted(charged.items()):
        if count + 1 > limits.most_at_agents_charge:
            often = f"{count + 1} times, over all attempts, because its evaluator ended or hung"
            yield f"{run}: it was driven {often}; at most {limits.most_at_agents_charge} are allowed"


def _clock(checkpoint: Checkpoint, seen: Observations) -> Iterator[str]:
    """The routes of one start cannot have taken longer than its simulator was there."""
    by_start: dict[tuple[int, int], list[tuple[SeenRecord, float]]] = defaultdict(list)
    for run, record in zip(checkpoint.runs, checkpoint.records, strict=True):
        sightings = seen.records_of(run)
        if sightings and record["meta"]["duration_system"] > 0:
            last = sightings[-1]
            by_start[last.attempt, last.start].append((last, record["meta"]["duration_system"]))
    starts = {(start.attempt, start.number): start for start in seen.starts}
    for key, driven in sorted(by_start.items()):
        yield from _in_start(starts.get(key), driven)


def _in_start(start: SeenStart | None, driven: Sequence[tuple[SeenRecord, float]]) -> Iterator[str]:
    claimed = sum(seconds for _, seconds in driven)
    names = f"{driven[0][0].run} to {driven[-1][0].run}" if len(driven) > 1 else str(driven[0][0].run)
    if start is None or start.ready_at is None:
        yield f"{names}: {claimed:.0f} s of system time are claimed in a start whose simulator never became ready"
        return
    until = max(record.at for record, _ in driven)
    there = until - start.ready_at + _SLACK
    if claimed > there.total_seconds() * _CLOCK_RATE:
        seconds = (until - start.ready_at).total_seconds()
        was_there = f"the simulator had been there for {seconds:.0f} s"
        yield f"{names}: {claimed:.0f} s of system time are claimed, but {was_there}"
