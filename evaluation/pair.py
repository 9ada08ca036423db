"""The protocol of a simulator-agent pair: three parties on a shared volume, each writing in its own directory only.

    keeper/start<n>        the pair may start for the n-th time; the checkpoint has been checked
    keeper/stop<n>         stop the n-th start now; the content says why (hang, cancel)
    keeper/verdict         the exit code with which simulator, agent and pod end
    simulator/ready<n>     the n-th simulator is warm: the agent may connect
    simulator/exit<n>      the n-th simulator has ended: `died <code>` by itself, or `stopped`
    agent/exit<n>          the n-th evaluator has ended: `died <code>` by itself (0 included), or `stopped`
    agent/checkpoint.json  what the evaluator writes

The simulator and agent scripts know only these files. Budgets, hangs, resumes and quarantine are decided by the keeper
(the logcopy container), which the agent cannot write to. Source: contracts/step-function.md, "The pair's protocol".
"""

from enum import IntEnum


class Verdict(IntEnum):
    """How a pair ends, as the exit code of its processes. Shells and Kubernetes see these numbers."""

    FINISHED = 0
    AGENT_CRASHED = 10  # its budget of restarts is used up
    SENSORS_INVALID = 11  # permanent
    AGENT_SETUP_FAILED = 12  # permanent
    AGENT_HANGS = 13  # its budget of restarts is used up
    SIMULATOR_CRASHED = 20  # the infrastructure budget is used up
    SIMULATOR_NOT_READY = 21
    CHECKPOINT_UNUSABLE = 22
    CANCELLED = 30
    MISCONFIGURED = 40  # an environment variable or a file of ours is missing
