"""What is sent of an evaluation: the body of a final or partial report. Source: docs/evalai.md, "Reports"."""

import json
import math
from collections.abc import Mapping, Sequence

from evalai_api.texts import shortened, storable_json
from evaluation.errors import RequestRefused
from evaluation.lifecycle.report import Report
from evaluation.submission.model import SubmissionStatus

# EvalAI took 50 MB; what people read fits in far less, and the whole text is in S3 anyway.
TEXT_LIMIT_BYTES = 200_000
METADATA_LIMIT_BYTES = 300_000


def report_body(report: Report, with_logs: bool = True) -> dict[str, object]:
    """The body of a final or partial report; raises RequestRefused for a result that EvalAI must not get.

    Without logs, as a phase with `disable_logs` has it, `stdout` is empty and `stderr` is the outcome's own sentence,
    its first line.
    """
    stderr = report.stderr if with_logs else report.stderr.partition("\n")[0]
    body: dict[str, object] = {
        # The submission's own phase: EvalAI books the score on whatever phase stands here.
        "challenge_phase": report.submission.phase_pk,
        "submission": report.submission.pk,
        "submission_status": report.status.value.upper(),
        "stdout": shortened(report.stdout, TEXT_LIMIT_BYTES) if with_logs else "",
        "stderr": shortened(stderr, TEXT_LIMIT_BYTES),
        "environment_log": "",
        "metadata": _short_metadata(report.metadata),
    }
    if report.status in (SubmissionStatus.FINISHED, SubmissionStatus.PARTIALLY_EVALUATED):
        body["result"] = result_text(report.result)
    return body


def result_text(result: Sequence[Mapping[str, object]]) -> str:
    """The result as the JSON string that EvalAI wants; raises RequestRefused unless all is plain and finite.

    EvalAI itself takes a bool and then breaks the public leaderboard for everyone, takes an empty result as
    finished, and breaks at the next report when one split comes twice.
    """
    splits = [entry.get("split") for entry in result]
    if not splits or not all(isinstance(split, str) and split for split in splits) or len({*splits}) < len(splits):
        raise _bad_result(f"it names the splits {splits}; wanted is each split once")
    for entry in result:
        accuracies = entry.get("accuracies")
        if not isinstance(accuracies, Mapping) or not accuracies:
            raise _bad_result(f"split {entry.get('split')!r} has no metrics")
        if not isinstance(entry.get("show_to_participant"), bool):
            raise _bad_result(f"split {entry.get('split')!r} does not say show_to_participant")
        for label, value in accuracies.items():
            if not isinstance(label, str) or not _is_plain_number(value):
                raise _bad_result(f"metric {label!r} is {repr(value)[:80]}, not a finite number")
    return json.dumps([dict(entry) for entry in result], default=dict, allow_nan=False)


def _short_metadata(metadata: str) -> str:
    size = len(metadata.encode("utf-8", errors="replace"))
    if size <= METADATA_LIMIT_BYTES:
        return storable_json(metadata)
    # Half a JSON text would be no JSON.
    return json.dumps({"left_out": f"the merged results have {size} bytes; they are in the submission's S3 folder"})


def _is_plain_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _bad_result(cause: str) -> RequestRefused:
    return RequestRefused("The result is not fit to be sent to EvalAI", cause, "Nothing was sent.")
