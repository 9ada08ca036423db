"""Where a result comes from: an in-toto statement in a DSSE envelope, provenance.json in the submission's folder.

Formats: https://in-toto.io/Statement/v1, https://slsa.dev/provenance/v1, https://github.com/secure-systems-lab/dsse.
Pure: signing and checking signatures is blocks.provenance_key's.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evaluation.errors import InvalidCheckpoint

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:leaderboard-flows:evaluation:v1"


@dataclass(frozen=True)
class Origin:
    """Who evaluated what, when and where. Times are ISO 8601 UTC."""

    submission: Mapping[str, object]  # ids, phase, attempt
    inputs: Mapping[str, str]  # what was used by name: images, the route file -> digest, "" where it is unknown
    settings: Mapping[str, object]  # what decides how it is scored and where it runs
    run: str  # the flow run's id
    builder: str  # the program and its version
    finished_at: str


@dataclass(frozen=True)
class Signature:
    key: str  # the public key's id
    value: bytes


@dataclass(frozen=True)
class Envelope:
    """What is signed is `signed_bytes(statement)`, the file's bytes as they are."""

    statement: bytes
    signatures: Sequence[Signature] = ()

    def render(self) -> bytes:
        signatures = [{"keyid": each.key, "sig": base64.b64encode(each.value).decode()} for each in self.signatures]
        payload = base64.b64encode(self.statement).decode()
        return json.dumps(
            {"payload": payload, "payloadType": PAYLOAD_TYPE, "signatures": signatures}, indent=1
        ).encode()

    @property
    def files(self) -> dict[str, str]:
        """The files that the statement names, decisions among them: names in the submission's folder and SHA-256."""
        content = json.loads(self.statement)
        named = [*content["subject"], *content["predicate"]["runDetails"].get("byproducts", ())]
        return {each["name"]: each["digest"]["sha256"] for each in named}


def statement(files: Mapping[str, bytes], origin: Origin) -> bytes:
    """The in-toto statement about these files."""
    subjects = [{"name": name, "digest": {"sha256": sha256(body)}} for name, body in sorted(files.items())]
    dependencies = [
        {"uri": name, **({"digest": {"sha256": digest.removeprefix("sha256:")}} if digest else {})}
        for name, digest in sorted(origin.inputs.items())
    ]
    content = {
        "_type": STATEMENT_TYPE,
        "subject": subjects,
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": dict(origin.submission),
                "internalParameters": dict(origin.settings),
                "resolvedDependencies": dependencies,
            },
            "runDetails": {
                "builder": {"id": origin.builder},
                "metadata": {"invocationId": origin.run, "finishedOn": origin.finished_at},
            },
        },
    }
    return json.dumps(content, sort_keys=True).encode()


@dataclass(frozen=True)
class Decision:
    """What an operator made of a held result. `file` is the decided outcome, `at` ISO 8601 UTC."""

    file: str  # its name in the submission's folder
    digest: str  # its SHA-256
    ending: str
    by: str
    because: str
    at: str


def with_decision(statement: bytes, decision: Decision) -> bytes:
    """The statement with one more of SLSA's byproducts: who decided what, when and why."""
    content = json.loads(statement)
    described = {
        "name": decision.file,
        "digest": {"sha256": decision.digest},
        "annotations": {"outcome": decision.ending, "by": decision.by, "because": decision.because, "at": decision.at},
    }
    details = content["predicate"]["runDetails"]
    details["byproducts"] = [*details.get("byproducts", ()), described]
    return json.dumps(content, sort_keys=True).encode()


def signed_bytes(statement: bytes) -> bytes:
    """DSSE's pre-authentication encoding."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(statement), statement)


def parse_envelope(data: bytes, source: str) -> Envelope:
    """Read what `Envelope.render` wrote; raises InvalidCheckpoint, naming the source."""
    try:
        content: dict[str, Any] = json.loads(data)
        if content["payloadType"] != PAYLOAD_TYPE:
            raise ValueError(f"payloadType is {content['payloadType']!r:.60}")
        signatures = [
            Signature(str(each["keyid"]), base64.b64decode(each["sig"], validate=True))
            for each in content["signatures"]
        ]
        envelope = Envelope(base64.b64decode(content["payload"], validate=True), tuple(signatures))
        _ = envelope.files
    except (ValueError, KeyError, TypeError, AttributeError, binascii.Error, RecursionError) as error:
        raise InvalidCheckpoint(f"{source} is no provenance", repr(error)[:200]) from error
    return envelope


def sha256(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()
