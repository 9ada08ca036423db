"""The state of a stack that was never started."""

import os
from pathlib import Path

from deployments.stack_state import StackState


def stack_state(folder: Path, stack_id: str = "s", ready: bool = True) -> StackState:
    return StackState(
        id=stack_id,
        pid=os.getpid(),
        ready=ready,
        folder=folder,
        prefect_url="http://127.0.0.1:4200",
        aws_url="http://127.0.0.1:4201",
        evalai_url="http://127.0.0.1:4202",
        region="us-west-2",
        queue_url="q",
        dead_letter_url="d",
        work_pool="leaderboard",
        challenge_pk=1,
        phases={"leaderboard-10-MAP": 4},
        host_token="h",
        participant_tokens={"Team": "t"},
    )
