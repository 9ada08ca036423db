"""A permit to write: what holds it is waited for, what comes later is not allowed."""

import threading

from evaluation.lifecycle.write_permit import WritePermit
from tests.waiting import PATIENCE_SECONDS


def test_a_permit_allows_until_it_is_revoked() -> None:
    permit = WritePermit()
    with permit.writing() as before:
        pass

    permit.revoke()

    with permit.writing() as after:
        pass
    assert (before, after) == (True, False)


def test_revoking_returns_only_when_nothing_is_being_written() -> None:
    permit, written = WritePermit(), []
    begun, may_end = threading.Event(), threading.Event()

    def write() -> None:
        with permit.writing():
            begun.set()
            may_end.wait(PATIENCE_SECONDS)
            written.append("once")

    writer = threading.Thread(target=write)
    writer.start()
    begun.wait(PATIENCE_SECONDS)
    revoker = threading.Thread(target=permit.revoke)
    revoker.start()
    revoker.join(0.05)
    waited = revoker.is_alive()
    may_end.set()
    revoker.join(PATIENCE_SECONDS)

    assert (waited, written) == (True, ["once"])
    writer.join(PATIENCE_SECONDS)
