"""The command line: `leaderboard`. Commands live in modules that are imported when they are called."""

import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from evaluation.errors import EvaluationError

WRONG_USAGE = 2
INTERRUPTED = 130  # what a shell shows for Ctrl-C

app = App(
    name="leaderboard",
    help="Evaluates submissions to the CARLA Autonomous Driving Leaderboard.",
    version_flags=[],
    suppress_keyboard_interrupt=False,
)
COMMANDS = {
    "demo": ("embedded_commands:demo", "The main job on this machine: one submission, from the queue to its row."),
    "up": ("embedded_commands:up", "Start the embedded stack and keep it until Ctrl-C."),
    "submit": ("embedded_commands:submit", "Send a submission to the running stack."),
    "status": ("embedded_commands:status", "Show all submissions of the running stack, or one of them."),
    "cancel": ("embedded_commands:cancel", "Take a submission back, as its team does at EvalAI."),
    "resume": ("embedded_commands:resume", "Let a failed submission go on, as a host does at EvalAI."),
    "merge": ("merge_command:merge", "Merge the shards' result files into one."),
    "setup": ("site_commands:setup", "Fill a Prefect server: work pool, request budget, blocks from the secrets."),
    "bridge": ("site_commands:bridge", "Carry the queue's messages to Prefect until it is stopped."),
}
for _name, (_place, _help) in COMMANDS.items():
    app.command(f"deployments.{_place}", name=_name, help=_help)


def main(words: Sequence[str] | None = None) -> None:
    """Run one command. Errors of ours end in one sentence and code 1, wrong usage in one and code 2, Ctrl-C in 130."""
    try:
        code = app(words, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        print("leaderboard:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(WRONG_USAGE)
    except EvaluationError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
