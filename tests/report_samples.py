"""Made-up submissions for the report's pages: finished, failed, held, and a hostile one."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from evaluation.errors import Fault
from evaluation.lifecycle.outcome import Outcome, OutcomeStatus, finished_sentence
from evaluation.pair.observations import Observations, SeenRecord, SeenRedrive, SeenStart
from evaluation.report_page.source import Pair, ReportSource, Subject
from evaluation.results.checkpoint_writing import render_document
from evaluation.results.evalai_result import accuracies
from evaluation.results.merge import merge
from evaluation.results.records import crashed_record
from evaluation.routes import RouteRun, expand
from evaluation.shards import split_contiguous
from tests.result_files import V2, as_checkpoint, make_document, make_record

BEGIN = datetime(2026, 1, 5, 9, 0, tzinfo=UTC)
MESSAGE = "Agent collided against object with type=vehicle.audi.tt and id=231 at (x=1201.5, y=-44.31, z=0.2)"
DIGEST = "sha256:" + "5" * 64


def minutes(number: float) -> datetime:
    return BEGIN + timedelta(minutes=number)


def start(number: int, begin: float, ready: float | None, end: float | None, **changes: Any) -> SeenStart:
    return SeenStart(
        1, number, minutes(begin), minutes(ready) if ready else None, minutes(end) if end else None, **changes
    )


def drives(runs: tuple[RouteRun, ...], begin: float, each: float = 6, number: int = 1) -> list[SeenRecord]:
    return [
        SeenRecord(run, "Completed", "0" * 64, minutes(begin + each * (position + 1)), 1, number)
        for position, run in enumerate(runs)
    ]


def smooth(pair: int, runs: tuple[RouteRun, ...], waits: float) -> Pair:
    """One start that drove everything."""
    end = waits + 2 + 6 * len(runs)
    ended = start(1, waits, waits + 2, end, interrupted=False, how="every route has its record")
    return Pair(pair, runs, Observations((ended, *drives(runs, waits + 2))))


def restarted(pair: int, runs: tuple[RouteRun, ...]) -> Pair:
    """The agent crashed on the third route, then the simulator did."""
    crash = "the evaluator ended with code 139 on route 12"
    events = (
        start(1, 4, 6, 23, charged_to_agent=True, how=crash),
        *drives(runs[:2], 6),
        start(2, 24, 27, 31, simulator_lost=True, how="the simulator died with code 137"),
        SeenRedrive(runs[2], crash, 1, 2, charged_to_agent=True),
        start(3, 32, 34, 34 + 6 * (len(runs) - 2), interrupted=False, how="every route has its record"),
        SeenRedrive(runs[2], "the simulator died with code 137", 1, 3),
        *drives(runs[2:], 34, number=3),
    )
    return Pair(pair, runs, Observations(events))


def record(run: RouteRun, index: int) -> dict[str, Any]:
    if run.route == 5:
        return crashed_record(run, index, V2)
    if run.route % 4 == 1:
        scores = {"score_route": 83.2, "score_penalty": 0.6, "score_composed": 49.92}
        infractions = {"collisions_vehicle": [MESSAGE], "red_light": ["Agent ran a red light 2251 at (x=1, y=2, z=0)"]}
        return make_record(run, index, status="Failed - Agent got blocked", scores=scores, infractions=infractions)
    return make_record(run, index, meta={"route_length": 1843.2, "duration_game": 211.3, "duration_system": 392.0})


def finished(routes: int = 20, repetitions: int = 1) -> ReportSource:
    """One quarantined route, two restarts."""
    shards = split_contiguous(range(routes), 4)
    runs = expand(range(routes), repetitions)
    document = make_document([record(run, index) for index, run in enumerate(runs)])
    merged = merge([("a.json", as_checkpoint(document))], runs, V2)
    metrics = accuracies(merged.document, V2)
    pairs = [
        restarted(shard.index, expand(shard.routes, repetitions))
        if shard.index == 2
        else smooth(shard.index, expand(shard.routes, repetitions), 3 + shard.index)
        for shard in shards
    ]
    remarks = (
        "Quarantined and scored 0, because the simulator crashed on them again and again: RouteScenario_5_rep0 "
        "(up to 5 points of the driving score).",
        "Pairs were started again 2 times: 1 charged to the agent, 1 to the installation.",
    )
    outcome = Outcome(
        OutcomeStatus.FINISHED,
        finished_sentence(7, metrics, len(runs), len(runs)),
        metrics=metrics,
        routes_done=len(runs),
        routes_total=len(runs),
        merged=render_document(merged.document, V2),
        remarks=remarks,
    )
    return ReportSource(subject(), outcome, pairs, minutes(95), statement(), signed_by="9f" * 32)


def subject() -> Subject:
    return Subject(
        7,
        "leaderboard-20-SENSORS",
        "Rocket Racers",
        V2,
        1,
        image="123456789012.dkr.ecr.us-west-2.amazonaws.com/team-3/agent:v12",
        image_digest=DIGEST,
        claimed_at=BEGIN,
        run="0190a1b2-0000-7000-8000-000000000000",
        folder="s3://leaderboard-20/7/",
        logs="leaderboard-20: submission-7/attempt-1/*",
    )


def statement() -> dict[str, Any]:
    return {
        "subject": [{"name": "merged.json", "digest": {"sha256": "1" * 64}}],
        "predicate": {
            "buildDefinition": {
                "internalParameters": {"cluster": "leaderboard-20", "backend": "kubernetes", "scoring": "2.0"},
                "resolvedDependencies": [{"uri": "s3://private-routes/test.xml", "digest": {"sha256": "2" * 64}}],
            },
            "runDetails": {
                "builder": {"id": "urn:leaderboard-flows:0.1.0"},
                "metadata": {"invocationId": "run", "finishedOn": "2026-01-05T10:34:00+00:00"},
            },
        },
    }


def failed() -> ReportSource:
    """The agent crashed again and again on one of the pairs."""
    source = finished()
    runs = [run for run in source.runs if run.route < 13]
    document = make_document([record(run, index) for index, run in enumerate(runs)], total=20)
    merged = merge([("a.json", as_checkpoint(document))], source.runs, V2)
    sentence = (
        "Submission 7 failed. 1 of 4 shards failed: shard 2: The agent crashed again and again (it ended with code 139 "
        "5 times; see s3://leaderboard-20/7/shards/2/logs/ on ip-10-0-3-7.ec2.internal). Correct the agent and submit "
        "again; the agent's log shows its last output. 13 of 20 routes are driven; a resume continues from there."
    )
    log = (
        'Traceback (most recent call last):\n  File "/workspace/team_code/agent.py", line 88, in run_step\nKeyError: 1'
    )
    outcome = replace(
        source.outcome,
        ending=OutcomeStatus.FAILED,
        sentence=sentence,
        fault=Fault.TEAM,
        metrics={},
        routes_done=13,
        merged=render_document(merged.document, V2),
        logs=f"--- shard 2, the agent's last lines ---\n{log}",
    )
    return replace(source, outcome=outcome, provenance={}, signed_by="")


def held() -> ReportSource:
    source = finished()
    reason = "shard 1: route 5's record is not the one that its supervisor saw."
    sentence = f"Submission 7 is held: there is a reason not to believe its result. {reason}"
    outcome = replace(source.outcome, ending=OutcomeStatus.HELD, sentence=sentence, reasons=(reason,))
    return replace(source, outcome=outcome)


def hostile() -> ReportSource:
    """Everything that an agent or a team can write, as bad as its format allows."""
    evil = "<script>alert(1)</script>\u202e\u0000\ud800\"'><img src=x onerror=alert(1)>"
    source = finished()
    runs = [RouteRun(0)]
    bad = make_record(runs[0], 0, infractions={"red_light": [evil, "A" * 1_000_000, *([evil] * 5000)]})
    outcome = replace(
        source.outcome,
        sentence=evil + "B" * 1_000_000,
        merged=render_document(make_document([bad]), V2),
        remarks=(evil,),
        logs=evil + "C" * 1_000_000,
    )
    about = replace(subject(), team=evil + "D" * 1_000_000, image=evil, image_digest=evil)
    broken = start(1, 1, 2, 3, how=evil + "E" * 1_000_000)
    events = (broken, SeenRedrive(runs[0], evil, 1, 2), start(2, 4, 5, 6), *drives(tuple(runs), 5, 0.5, 2))
    return replace(source, subject=about, outcome=outcome, pairs=[Pair(0, tuple(runs), Observations(events))])
