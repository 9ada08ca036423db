"""What the real server does not have: outages on demand, and the history of every status. Only where `control` is on.

    POST /standin/outage   {"kind": "broken", "seconds": 8}
    GET  /standin/history  [{"at": ..., "submission": 1, "status": "running", "by": "host", "digest": "..."}, ...]

Needs a host's token. No fault is injected into these requests, and they count against no limit.
"""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from embedded.evalai_standin.auth import authenticated
from embedded.evalai_standin.faults import Fault
from embedded.evalai_standin.responses import Answer, Refusal, deny, not_found_page
from embedded.evalai_standin.state import State, StatusWrite

PREFIX = "/standin/"
SLOW_SECONDS = 4.0
OUTAGES = {
    "broken": Fault.broken(),
    "lost": Fault.broken(after=True),  # the work is done, its answer is not
    "slow": Fault.slow(SLOW_SECONDS),
    "throttled": Fault.throttled(),
}


class Outage(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["broken", "lost", "slow", "throttled"]
    seconds: float = Field(gt=0, le=3600)


def answer(state: State, method: str, path: str, authorization: str | None, body: bytes) -> Answer:
    """The answer to a request below PREFIX."""
    try:
        user = authenticated(state.config, authorization)
        if user is None or not any(user.name in challenge.hosts for challenge in state.config.challenges):
            raise deny(403, "This is for hosts.")
        return _routed(state, method, path.removeprefix(PREFIX).rstrip("/"), body)
    except Refusal as refusal:
        return refusal.answer
    except ValidationError as error:
        return Answer(400, {"detail": "; ".join(f"{e['loc']}: {e['msg']}" for e in error.errors())})


def _routed(state: State, method: str, name: str, body: bytes) -> Answer:
    match method, name:
        case "POST", "outage":
            outage = Outage.model_validate_json(body)
            state.fail_for(OUTAGES[outage.kind], outage.seconds)
            return Answer(200, outage.model_dump())
        case "GET", "history":
            with state.lock:
                return Answer(200, [_shown(write) for write in state.history])
        case _:
            return not_found_page()


def _shown(write: StatusWrite) -> dict[str, object]:
    return {
        "at": write.at.isoformat(),
        "submission": write.submission,
        "status": write.status.value,
        "by": write.by,
        "digest": write.digest,
    }
