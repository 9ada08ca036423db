"""What the commands end with: one set of exit codes, whatever the command (docs/command-line.md, "Exit codes")."""

from enum import IntEnum


class ExitCode(IntEnum):
    """A command may end with a subset of these; its `--help` says with which, and why."""

    OK = 0
    FAILED = 1
    WRONG_USAGE = 2
    ATTENTION = 3
    TIME_IS_UP = 124  # as with timeout(1)
    INTERRUPTED = 130  # as a shell shows Ctrl-C


MEANINGS = {
    ExitCode.OK: "done; of a submission: it has finished with all routes",
    ExitCode.FAILED: "an error, in one sentence on stderr; of a submission: it has no score",
    ExitCode.WRONG_USAGE: "a word of the command line, or a file that it names, is wrong: nothing was done",
    ExitCode.ATTENTION: "done, and a person has to look: a held result, a discrepancy, missing routes",
    ExitCode.TIME_IS_UP: "`--wait-seconds` are over, as with timeout(1); the submission goes on",
    ExitCode.INTERRUPTED: "Ctrl-C, SIGTERM or a closed terminal; a submission goes on",
}
