"""What a shard's log says, and that it says nothing for a poll."""

import pytest

from evaluation.lifecycle.shard_progress import ShardProgress
from evaluation.lifecycle.shard_story import REASON_SECONDS, ShardNews, ShardStory, final_sentence
from evaluation.shards import Shard, ShardState


def view(state: ShardState, detail: str = "", done: int = 0, total: int = 5, pool: int = 0) -> ShardProgress:
    return ShardProgress(0, state, done, total, detail, pool=pool)


def waiting(position: int) -> ShardNews:
    return ShardNews(view(ShardState.WAITING, f"position {position} of 9 in the queue for GPUs"))


def test_a_place_in_the_queue_that_changes_is_told_now_and_then() -> None:
    story = ShardStory(Shard(0, 4, (0, 1, 2, 3, 4)))

    lines = [story.lines(waiting(position), now) for position, now in ((4, 0.0), (3, 10.0), (2, REASON_SECONDS))]

    assert lines == [
        ["waiting: position 4 of 9 in the queue for GPUs"],
        [],
        ["waiting: position 2 of 9 in the queue for GPUs"],
    ]


def test_a_state_or_a_pod_that_changes_is_told_at_once_and_a_poll_never() -> None:
    story = ShardStory(Shard(0, 4, (0, 1, 2, 3, 4)))
    story.lines(waiting(1), 0.0)

    driving, other = view(ShardState.DRIVING, "driving route 3"), view(ShardState.DRIVING, "driving route 4")
    lines = [story.lines(ShardNews(each, pod), 1.0) for each, pod in ((driving, "a"), (other, "a"), (other, "b"))]

    assert lines == [["driving (a): route 3"], [], ["driving (b): route 4"]]
    assert story.begin() == "is to drive routes 0-4"


@pytest.mark.parametrize(
    ("last", "scores", "sentence"),
    [
        (view(ShardState.FINISHED, done=5), [50.0, 100.0], "5 of 5 routes driven, driving score 75.0 in the mean."),
        (view(ShardState.FINISHED, done=1, total=1, pool=20), [], "1 route driven."),
        (view(ShardState.FAILED, "The agent hangs."), [], "The agent hangs. 0 of 5 routes driven."),
        (view(ShardState.GONE), [], "Its Job has disappeared."),
    ],
)
def test_the_last_state_says_how_it_ended(last: ShardProgress, scores: list[float], sentence: str) -> None:
    assert final_sentence(last, scores) == sentence
