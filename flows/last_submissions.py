"""What is kept of the last submissions of a cluster, so that the next ones can be estimated.

One JSON document in the bucket, which several runs may change at the same time. Every method blocks.
"""

from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from pydantic import TypeAdapter, ValidationError

from evaluation.ports import ArtifactStore

MOST_KEPT = 50  # submissions
_TRIES = 5  # several submissions may end at the same time


class OfSubmission(Protocol):
    @property
    def submission(self) -> int: ...


T = TypeVar("T", bound=OfSubmission)


@dataclass(frozen=True)
class LastSubmissions(Generic[T]):
    """One record for each submission, the latest last, at `key`."""

    key: str
    records: TypeAdapter[tuple[T, ...]]

    def read(self, artifacts: ArtifactStore) -> tuple[T, ...]:
        return self._read(artifacts)[0]

    def add(self, artifacts: ArtifactStore, new: T) -> None:
        """Keep the record, in the place of an earlier one of the submission; not where others are always quicker."""
        for _ in range(_TRIES):
            kept, version = self._read(artifacts)
            kept = (*(each for each in kept if each.submission != new.submission), new)[-MOST_KEPT:]
            if artifacts.write_version(self.key, self.records.dump_json(kept), version):
                return

    def _read(self, artifacts: ArtifactStore) -> tuple[tuple[T, ...], str | None]:
        """The records and the object's version."""
        found = artifacts.read_version(self.key)
        if found is None:
            return (), None
        try:
            return self.records.validate_json(found[0]), found[1]
        except ValidationError:  # an estimate only: begun anew
            return (), found[1]
