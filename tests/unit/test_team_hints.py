"""What a team reads beside its failure."""

from evaluation.errors import Fault, ShardsFailed
from evaluation.lifecycle.outcome import failed
from evaluation.lifecycle.team_hints import TeamRules, hints
from evaluation.pair.protocol import PairExitCode, failure_of
from evaluation.submission.model import LeaderboardVersion, Submission, SubmissionStatus, parse_phase
from evaluation.verification.scoring import scoring_of

RULES = TeamRules("SENSORS", 800, scoring_of(LeaderboardVersion.V2).sensors_of("SENSORS"))
SUBMISSION = Submission(
    7, 1, 2, parse_phase("leaderboard-20-SENSORS"), 3, "Team", SubmissionStatus.RUNNING, "agent:1", None, None
)


def failure(code: PairExitCode, logs: str = "") -> ShardsFailed:
    error = ShardsFailed("1 of 4 shards failed", f"shard 0: {failure_of(code, 'a detail')}", fault=Fault.TEAM)
    error.logs = logs
    return error


def test_a_hang_names_its_limit() -> None:
    [sentence] = hints(failure(PairExitCode.AGENT_HANGS), RULES)
    assert "no progress for 800 s" in sentence


def test_invalid_sensors_are_named_with_what_the_track_allows() -> None:
    log = "\n\x1b[91mThe sensor's configuration used is invalid:\n> Illegal sensor 'depth' used\x1b[0m\n\nTraceback"

    said, allowed = hints(failure(PairExitCode.SENSORS_INVALID, log), RULES)

    assert said == "The evaluator says: \"Illegal sensor 'depth' used\"."
    assert allowed.startswith("The track SENSORS allows at most 8 carla_camera, 2 carla_lidar,")
    assert "carla_opendrive_map" not in allowed
    assert "carla_opendrive_map" in scoring_of(LeaderboardVersion.V2).sensors_of("MAP")


def test_other_failures_get_no_hint() -> None:
    assert (
        list(hints(failure(PairExitCode.AGENT_CRASHED, "The sensor's configuration used is invalid: x"), RULES)) == []
    )


def test_the_hints_stand_after_the_failures_own_sentence() -> None:
    outcome = failed(SUBMISSION, failure(PairExitCode.AGENT_HANGS), None, ["One.", "Two."])
    assert outcome.sentence.startswith("Submission 7 failed. 1 of 4 shards failed:")
    assert outcome.sentence.endswith(" One. Two.")
