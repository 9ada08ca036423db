"""Batch jobs as DescribeJobs describes them, for the tests of what is read from them."""

from typing import Any

from batch_jobs.job_description import BatchJob, read_job

CREATED = 1_795_255_200_000  # 2026-11-21 10:00 UTC, in milliseconds


def batch_job(
    status: str = "RUNNING",
    codes: dict[str, int] | None = None,
    reasons: dict[str, str] | None = None,
    attempts: list[dict[str, Any]] | None = None,
    **changes: Any,
) -> BatchJob:
    """A shard's job; `codes` and `reasons` are the containers'."""
    containers = [
        {
            "name": name,
            "resourceRequirements": [{"type": "VCPU", "value": "4"}, {"type": "GPU", "value": "1"}][
                : 1 + (name == "agent")
            ],
            "logConfiguration": {"logDriver": "awslogs", "options": {"awslogs-group": "leaderboard-20"}},
            **({"exitCode": codes[name]} if codes and name in codes else {}),
            **({"reason": reasons[name]} if reasons and name in reasons else {}),
        }
        for name in ("init", "evaluator", "supervisor", "simulator", "agent")
    ]
    return read_job(
        {
            "jobId": "4c1b",
            "jobArn": "arn:aws:batch:us-west-2:123456789012:job/4c1b",
            "jobName": "submission-7-attempt-1-shard-0",
            "status": status,
            "createdAt": CREATED,
            "ecsProperties": {"taskProperties": [{"containers": containers}]},
            "attempts": attempts or [],
            **changes,
        }
    )
