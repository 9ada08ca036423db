"""Whether a complete result may be called finished. Pure.

The evaluators write a result for whatever happened, also where nothing was driven: an agent whose set-up fails on every
route ends with code 0, every route recorded, and the entry status Invalid (2.x: no sensors) or "Finished with agent
errors" (1.0). The official merge publishes that as a score of 0.
"""

from evaluation.errors import Failure, Fault
from evaluation.results.merge import Merged
from evaluation.results.records import SENSORS_INVALID, SETUP_FAILED

_FIX = "Correct the agent and submit again; the agent's log shows its last output."


def rejection(merged: Merged) -> Failure | None:
    """Why a complete merged file is no result; None for one that is finished, incomplete files included.

    A quarantined route (entry status Crashed) is scored 0 and named in the summary: that result is finished. So is one
    with some routes on which the set-up failed, as the official leaderboard has it.
    """
    if not merged.complete:
        return None
    records, entry = merged.document["_checkpoint"]["records"], merged.document["entry_status"]
    failed_setups = [record["route_id"] for record in records if SETUP_FAILED in record["status"]]
    no_sensors = not merged.document["sensors"]
    if len(failed_setups) == len(records) or (failed_setups and no_sensors):
        cause = f"the evaluator reported it on {len(failed_setups)} of {len(records)} routes"
        return Failure("The agent could not be set up", cause, _FIX, Fault.TEAM)
    if entry == "Rejected":
        invalid = [record["route_id"] for record in records if SENSORS_INVALID in record["status"]]
        cause = f"the evaluator reported it on {', '.join(invalid) or 'a shard'}"
        return Failure("The agent's sensors are invalid", cause, _FIX, Fault.TEAM)
    if entry == "Invalid":
        why = "no shard's file names the agent's sensors" if no_sensors else "a record has the status Started"
        return Failure("The merged result is invalid", why, "Resume the submission.", Fault.INFRASTRUCTURE)
    return None
