"""`leaderboard merge`: the shards' result files become one, outside of any flow."""

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import CycloptsError, Parameter

from cli.exit_codes import ExitCode
from evaluation.errors import InvalidCheckpoint, InvalidConfiguration, NeedsOperator, SubmissionFailed
from evaluation.results.checkpoint import Checkpoint
from evaluation.results.checkpoint_json import MAX_BYTES
from evaluation.results.checkpoint_reading import parse_checkpoint
from evaluation.results.checkpoint_writing import render_document
from evaluation.results.merge import Merged
from evaluation.results.merge import merge as merge_checkpoints
from evaluation.routes import RouteRun, expand, format_runs, parse_route_list, parse_route_xml
from evaluation.submission.model import LeaderboardVersion

COMPLETE, BAD_INPUT, INCOMPLETE = ExitCode.OK, ExitCode.WRONG_USAGE, ExitCode.ATTENTION
_READ_AGAIN = "Check the path and its permissions."


def merge(
    *files: Path,
    routes: str,
    output: Path,
    repetitions: int = 1,
    leaderboard_version: Annotated[Literal["auto", "1.0", "2.0"], Parameter(show_choices=True)] = "auto",
) -> int:
    """Merge the shards' result files into one.

    Ends with 0 if every route is there, 3 if some are missing (the result then says Started), 2 if a file or an
    argument is wrong; then nothing is written.

    Parameters
    ----------
    files
        The shards' checkpoint files.
    routes
        The routes that were sent out: 0-19, or 3,7,9, or a route XML file.
    output
        Where the merged file goes; an existing one is replaced.
    repetitions
        How often each route was to be driven. Files of 1.0 with the same routes (runs of several seeds) are counted as
        repetitions, in the order given; 2.x writes each repetition's number itself.
    leaderboard_version
        The evaluator that wrote the files; by default the route ids show it.
    """
    if not files:
        raise CycloptsError(msg="No result files are given. Name the shards' files.")
    chosen = None if leaderboard_version == "auto" else LeaderboardVersion(leaderboard_version)
    return merge_files(list(files), routes, output, repetitions, chosen)


def merge_files(
    files: list[Path], routes: str, output: Path, repetitions: int = 1, version: LeaderboardVersion | None = None
) -> int:
    """Merge at least one file and write; returns the exit code.

    Prints one line: to stdout what was merged, to stderr what is wrong.
    """
    try:
        expected = _expected(routes, repetitions)
        merged = _merged(_different(files, output), expected, version)
        _write(output, render_document(merged.document, merged.version))
    except (SubmissionFailed, NeedsOperator) as error:
        print(" ".join(str(error).split()), file=sys.stderr)
        return BAD_INPUT
    print(_report(merged, expected, output))
    return COMPLETE if merged.complete else INCOMPLETE


def _expected(routes: str, repetitions: int) -> tuple[RouteRun, ...]:
    if not 1 <= repetitions <= 1000:
        raise InvalidConfiguration("--repetitions must be a number from 1 to 1000", f"it is {repetitions}")
    if re.fullmatch(r"[0-9,\s-]+", routes):
        ids = parse_route_list(routes)
    else:
        summary = f"--routes {routes!r} is neither a list of routes nor a route file"
        ids = parse_route_xml(_read(Path(routes), summary), routes)
    return expand(ids, repetitions)


def _different(files: Sequence[Path], output: Path) -> Sequence[Path]:
    """The files, if each is given once, and none would be overwritten."""
    seen = {_resolved(output): "--output"}
    for file in files:
        place = _resolved(file)
        if place in seen:
            raise InvalidConfiguration(f"{file} is given twice", f"also as {seen[place]}", "Name every file once.")
        seen[place] = str(file)
    return files


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError) as error:  # a loop of links, a NUL byte
        raise InvalidConfiguration(f"{str(path)!r} is not a path", str(error)) from error


def _merged(files: Sequence[Path], expected: Sequence[RouteRun], version: LeaderboardVersion | None) -> Merged:
    contents = [(str(file), _read(file, f"{file} cannot be read")) for file in files]
    parts = [(source, parse_checkpoint(data, source, version)) for source, data in contents]
    found = version or _version([part for _, part in parts])
    if any(part.version is not found for _, part in parts):
        parts = [(source, parse_checkpoint(data, source, found)) for source, data in contents]
    return merge_checkpoints(parts, expected, found)


def _version(checkpoints: Sequence[Checkpoint]) -> LeaderboardVersion:
    """That of the first file with a record, since only a route id shows it for certain."""
    return next((each.version for each in checkpoints if each.runs), checkpoints[0].version)


def _read(file: Path, summary: str) -> bytes:
    """At most one byte more than a checkpoint may have, which is then refused by its size."""
    try:
        with file.open("rb") as stream:
            return stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidCheckpoint(summary, reason, _READ_AGAIN) from error


def _write(output: Path, text: str) -> None:
    """Write beside the target and rename, so that the target is the old file or the new one and never half of it."""
    partial = output.with_name(f".{output.name}.{os.getpid()}.partial")
    try:
        try:
            partial.write_text(text, encoding="utf-8")
            partial.replace(output)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise InvalidConfiguration(f"{output} cannot be written", error.strerror or str(error), _READ_AGAIN) from error


def _report(merged: Merged, expected: Sequence[RouteRun], output: Path) -> str:
    entry = merged.document["entry_status"]
    if merged.complete:
        return f"{output}: all {len(expected)} routes, {entry}"
    missing = format_runs(merged.missing)
    return f"{output}: {merged.routes_done} of {len(expected)} routes, {entry}. Missing: {missing}"
