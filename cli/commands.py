"""Every command: where its function is, its first sentence, who needs it. Nothing of them is imported here."""

from collections.abc import Mapping
from typing import NamedTuple

from cyclopts import Group

SUBMISSIONS = Group.create_ordered("Submissions: for teams' hosts and operators")
OPERATORS = Group.create_ordered("An installation: for operators")
DEVELOPERS = Group.create_ordered("On this machine: for newcomers and developers")


class Command(NamedTuple):
    """`place`: module and function in this package. `example` follows the program's name."""

    place: str
    help: str
    example: str = ""


Commands = Mapping[str, Command]
COMMANDS_OF: Mapping[Group, Commands] = {
    SUBMISSIONS: {
        "status": Command(
            "submissions:status",
            "Show the latest submissions with their scores, or one of them.",
            "status --all --json",
        ),
        "watch": Command("submissions:watch", "Follow a submission until its end.", "watch 7 --wait-seconds 3600"),
        "result": Command("submissions:result", "Show a submission's metrics, or why it has none.", "result 7 --json"),
        "report": Command(
            "report:report",
            "Write a submission's report as an HTML file, for operators or for its team.",
            "report 7 --team --output report.html",
        ),
        "logs": Command(
            "logs:logs",
            "Show what simulator, agent and supervisor of a submission wrote.",
            "logs 7 --shard 2 --process agent --follow",
        ),
        "explain": Command(
            "reconcile:explain", "Show the stage of a submission, why it is there, and what comes next.", "explain 7"
        ),
        "standings": Command(
            "standings:standings",
            "Show the best submission of each team, ranked as EvalAI ranks them.",
            "standings leaderboard-20-SENSORS --html standings.html",
        ),
        "cancel": Command("submissions:cancel", "Cancel a submission at EvalAI.", "cancel 7"),
        "resume": Command(
            "submissions:resume", "Resume a failed submission, as a challenge host does at EvalAI.", "resume 7 --wait"
        ),
        "verify": Command(
            "verify:verify",
            "Show why a result is held; release or reject it.",
            "verify 7 --release --because 'the host has driven it again'",
        ),
    },
    OPERATORS: {
        "doctor": Command(
            "doctor:doctor", "Check an installation; show what is wrong and what to do.", "doctor --json"
        ),
        "cost": Command(
            "cost:cost", "Show how many GPU hours were used, for what, and what they cost.", "cost --by month"
        ),
        "metrics": Command("metrics:metrics", "Serve the installation's metrics to Prometheus.", "metrics --port 9464"),
        "reconcile": Command(
            "reconcile:reconcile",
            "Compare EvalAI, ledger, Prefect and clusters; repair what is safe.",
            "reconcile --dry-run",
        ),
        "setup": Command(
            "setup:setup",
            "Fill a Prefect server: work pool, request budget, blocks from the secrets.",
            "setup --clusters clusters.yaml --notify slack-webhook/operators",
        ),
        "bridge": Command(
            "setup:bridge", "Publish the queue's messages as Prefect events until it is stopped.", "bridge"
        ),
    },
    DEVELOPERS: {
        "demo": Command(
            "embedded_stack:demo",
            "Evaluate one submission on this machine, from queue to leaderboard row.",
            "demo",
        ),
        "up": Command("embedded_stack:up", "Start the embedded stack and keep it until Ctrl-C.", "up"),
        "submit": Command(
            "embedded_stack:submit",
            "Send a submission to the running stack.",
            "submit --phase leaderboard-10-MAP --image demo/agent:steady --wait",
        ),
        "env": Command(
            "stack_environment:env",
            "Print the shell variables with which any program reaches the running stack.",
            "env",
        ),
        "merge": Command(
            "merge:merge",
            "Merge the shards' result files into one.",
            "merge shard-*.json --routes 0-19 --output merged.json",
        ),
        "completion": Command(
            "completion:completion",
            "Print what completes commands in a shell, or install it.",
            "completion bash --install",
        ),
    },
}
COMMANDS: Commands = {name: place for commands in COMMANDS_OF.values() for name, place in commands.items()}
GROUPS: Mapping[str, tuple[str, Commands]] = {
    "queue": (
        "The dead-letter queue: messages that could not be evaluated, and their way back.",
        {
            "dead": Command("queue:dead", "Show the dead letters: which submission, why, since when."),
            "redrive": Command("queue:redrive", "Send dead letters back to the queue: one of them, or all."),
            "discard": Command("queue:discard", "Print dead letters that are no longer needed, then delete them."),
        },
    ),
    "compute": (
        "Any Python function as scalable asynchronous compute (docs/compute-client.md).",
        {
            "setup": Command("compute:setup", "Save the blocks of a queue of jobs, and make the workers' pool."),
            "bridge": Command("compute:bridge", "Publish the queue's messages as Prefect events until it is stopped."),
            "backlog": Command("compute:backlog", "Measure how much work waits for each worker; publish it."),
            "resend": Command("compute:resend", "Send the messages of jobs that have none."),
            "dead": Command("compute_dead_letters:dead", "Show the queue's dead letters: which job, why, since when."),
            "redrive": Command(
                "compute_dead_letters:redrive", "Send dead letters back to the queue: one of them, or all."
            ),
            "post": Command("compute:post", "Post a job, and wait for its result if asked to."),
            "result": Command("compute:result", "Show how a job stands, and its result or error."),
        },
    ),
    "batch": (
        "Python functions as AWS Batch jobs (docs/batch.md).",
        {"setup": Command("batch:setup", "Save the block with which flows run functions on AWS Batch.")},
    ),
}
