"""Where everything of a submission is in its S3 folder, which is named by its EvalAI id.

<pk>/plan.json                                which shard drives which routes; a resume keeps to it
<pk>/pool.json                                where pairs pull routes: who has claimed which (evaluation.pulling.pool)
<pk>/shards/<i>/checkpoint.json               the last good checkpoint
<pk>/shards/<i>/observations.json             what its supervisor saw, in all attempts (evaluation.pair.observations)
<pk>/shards/<i>/progress.json                 what the pair is doing (evaluation.pair.protocol.PairProgress)
<pk>/shards/<i>/logs/attempt-<a>/<name>.log   every process: simulator, agent, supervisor, init
<pk>/outcomes/attempt-<a>-epoch-<s>.json      the outcome, stored before it is reported
<pk>/outcomes/attempt-<a>-decision-<id>.json  what an operator made of a held outcome
<pk>/provenance.json                          where the result comes from, signed (evaluation.provenance)
<pk>/report.html, report-team.html            the report, for operators and for the team (evaluation.report_page)
<pk>/merged.json, evalai.json, summary.txt    the result, its EvalAI form, the text for people

Beside the folders: route-durations.json, what the last submissions took on their routes (flows.planning), and
times.json, how long they waited and drove (flows.forecasting).
"""


def plan_key(submission: int) -> str:
    return f"{submission}/plan.json"


def shards_prefix(submission: int) -> str:
    """What the keys of everything about its shards begin with."""
    return f"{submission}/shards/"


def pool_key(submission: int) -> str:
    return f"{submission}/pool.json"


def checkpoint_key(submission: int, shard: int) -> str:
    return f"{submission}/shards/{shard}/checkpoint.json"


def observations_key(submission: int, shard: int) -> str:
    return f"{submission}/shards/{shard}/observations.json"


def progress_key(submission: int, shard: int) -> str:
    return f"{submission}/shards/{shard}/progress.json"


def log_key(submission: int, shard: int, attempt: int, process: str) -> str:
    return f"{submission}/shards/{shard}/logs/attempt-{attempt}/{process}.log"


def last_lines_key(submission: int, shard: int, attempt: int, container: str) -> str:
    """What the flow run keeps of a container of a shard that has failed: its supervisor may never have run."""
    return f"{submission}/shards/{shard}/logs/attempt-{attempt}/{container}{LAST_LINES}.log"


def log_streams(submission: int, attempt: int) -> str:
    """What the names of all streams of an attempt begin with, in the cluster's CloudWatch log group."""
    return f"submission-{submission}/attempt-{attempt}/"


def last_lines_stream(submission: int, attempt: int, shard: int, container: str) -> str:
    """Of what the backend had of a failed shard's container: where no supervisor was there, it is all that there is."""
    return log_stream(submission, attempt, shard, f"{container}{LAST_LINES}")


def log_stream(submission: int, attempt: int, shard: int, process: str) -> str:
    return f"{log_streams(submission, attempt)}shard-{shard}/{process}"


def outcome_key(submission: int, attempt: int, epoch: int) -> str:
    return f"{submission}/outcomes/attempt-{attempt}-epoch-{epoch}.json"


def decision_key(submission: int, attempt: int, decision: str) -> str:
    return f"{submission}/outcomes/attempt-{attempt}-decision-{decision}.json"


def result_key(submission: int, name: str) -> str:
    return f"{submission}/{name}"


LAST_LINES = "-last-lines"
MERGED, EVALAI_FORM, SUMMARY = "merged.json", "evalai.json", "summary.txt"
RESULTS = (MERGED, EVALAI_FORM, SUMMARY)
PROVENANCE = "provenance.json"
DURATIONS = "route-durations.json"
TIMES = "times.json"
REPORT, TEAM_REPORT = "report.html", "report-team.html"
