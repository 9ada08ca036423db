"""Scale-in protection of the ECS task that this process runs in.

ECS gives each task an address for it: docs.aws.amazon.com/AmazonECS/latest/developerguide/task-scale-in-protection.html
"""

import math
import os
from collections.abc import Mapping

import httpx

from evaluation.errors import RequestRefused, ServiceUnavailable

AGENT = "ECS_AGENT_URI"
_TIMEOUT = 10  # seconds


def protect_task(seconds: float, environment: Mapping[str, str] = os.environ) -> bool:
    """Keep ECS from stopping this task for so many seconds, in whole minutes; False where this is no ECS task.

    It is a lease: a task that works renews it, and it ends by itself. So runs that share a task never expose each
    other, and a dead one protects nothing for long. Raises RequestRefused or ServiceUnavailable.
    """
    agent = environment.get(AGENT)
    if not agent:
        return False
    minutes = min(max(math.ceil(seconds / 60), 1), 2880)  # ECS's own bounds
    body = {"ProtectionEnabled": True, "ExpiresInMinutes": minutes}
    try:
        answer = httpx.put(f"{agent}/task-protection/v1/state", json=body, timeout=_TIMEOUT, trust_env=False)
        content = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise ServiceUnavailable("ECS's agent does not answer", f"{type(error).__name__} {error}".strip()) from error
    if answer.is_success and isinstance(content, dict) and content.get("protection", {}).get("ProtectionEnabled"):
        return True
    cause = f"it answers {answer.status_code} {answer.text[:300]}"
    if answer.status_code >= 500 or answer.status_code == 429:
        raise ServiceUnavailable("ECS's agent does not protect the task", cause)
    raise RequestRefused(
        "ECS's agent does not protect the task", cause, "Check the task role: ecs:UpdateTaskProtection."
    )
