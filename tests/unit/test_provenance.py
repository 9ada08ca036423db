"""Where a result comes from: the statement, its envelope, and what a signature holds against."""

import base64
import json
from dataclasses import replace

import pytest
from pydantic import SecretStr

from blocks.provenance_key import ProvenanceKey, is_seed
from evaluation.errors import InvalidCheckpoint, InvalidConfiguration
from evaluation.provenance import Envelope, Origin, parse_envelope, signed_bytes, statement
from flows.provenance import check_provenance
from tests.fakes import FakeStore

SEED = base64.b64encode(bytes(range(32))).decode()
FILES = {"merged.json": b"{}", "shards/0/checkpoint.json": b"[]"}
ORIGIN = Origin(
    submission={"submission": 7},
    inputs={"registry.example/team:1": f"sha256:{'a1' * 32}", "routes.xml": "b2" * 32, "demo/simulator:1.0": ""},
    settings={"cluster": "leaderboard-20"},
    run="run-1",
    builder="urn:leaderboard-flows:0.1.0",
    finished_at="2026-11-28T12:00:00+00:00",
)


@pytest.fixture
def key() -> ProvenanceKey:
    return ProvenanceKey(SecretStr(SEED))


def stored(envelope: Envelope) -> FakeStore:
    objects = {f"7/{name}": body for name, body in FILES.items()}
    return FakeStore({**objects, "7/provenance.json": envelope.render()})


def test_the_statement_is_in_totos_with_slsas_predicate() -> None:
    content = json.loads(statement(FILES, ORIGIN))

    assert (content["_type"], content["predicateType"]) == (
        "https://in-toto.io/Statement/v1",
        "https://slsa.dev/provenance/v1",
    )
    assert content["subject"][0] == {
        "name": "merged.json",
        "digest": {"sha256": "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a"},
    }
    definition = content["predicate"]["buildDefinition"]
    assert definition["externalParameters"] == {"submission": 7}
    assert definition["resolvedDependencies"] == [
        {"uri": "demo/simulator:1.0"},
        {"uri": "registry.example/team:1", "digest": {"sha256": "a1" * 32}},
        {"uri": "routes.xml", "digest": {"sha256": "b2" * 32}},
    ]


def test_what_is_signed_is_dsses_encoding() -> None:
    assert signed_bytes(b"{}") == b"DSSEv1 28 application/vnd.in-toto+json 2 {}"


def test_a_signed_folder_that_nobody_changed_is_right(key: ProvenanceKey) -> None:
    text, right = check_provenance(stored(key.signed(statement(FILES, ORIGIN))), 7, key)

    assert (right, text) == (True, f"Provenance: signed by the key {key.id[:16]}; 2 files are as they were.")


def test_a_changed_or_missing_file_is_named(key: ProvenanceKey) -> None:
    store = stored(key.signed(statement(FILES, ORIGIN)))
    store.objects["7/merged.json"] = b'{"score": 100}'
    del store.objects["7/shards/0/checkpoint.json"]

    text, right = check_provenance(store, 7, key)

    assert (right, text.endswith("but changed since: merged.json, shards/0/checkpoint.json.")) == (False, True)


def test_a_statement_that_was_changed_or_signed_by_another_is_found(key: ProvenanceKey) -> None:
    envelope = key.signed(statement(FILES, ORIGIN))
    changed = replace(envelope, statement=statement(FILES, replace(ORIGIN, run="another")))
    others = ProvenanceKey(SecretStr(base64.b64encode(bytes(32)).decode())).signed(statement(FILES, ORIGIN))

    assert not check_provenance(stored(changed), 7, key)[1]
    assert check_provenance(stored(others), 7, key)[0].startswith(
        "Provenance: the signature is not this installation's"
    )


def test_without_a_key_it_is_unsigned_and_says_so(key: ProvenanceKey) -> None:
    store = stored(Envelope(statement(FILES, ORIGIN)))

    assert check_provenance(store, 7, None) == ("Provenance: unsigned; 2 files are as they were.", True)
    assert check_provenance(store, 7, key) == ("Provenance: unsigned; 2 files are as they were.", False)
    assert check_provenance(FakeStore(), 7, key) == ("Provenance: there is no file of it.", False)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"payloadType": "text/plain"}', b"\xff", b'{"payload": "!"}'])
def test_a_file_that_is_no_envelope_is_named(body: bytes) -> None:
    with pytest.raises(InvalidCheckpoint, match=r"s3://b/7/provenance.json is no provenance"):
        parse_envelope(body, "s3://b/7/provenance.json")


@pytest.mark.parametrize("text", ["", "short", base64.b64encode(bytes(31)).decode(), "é" * 44])
def test_what_is_no_key_is_refused_without_being_repeated(text: str) -> None:
    assert not is_seed(text)
    with pytest.raises(InvalidConfiguration) as refusal:
        ProvenanceKey(SecretStr(text))
    assert not text or text not in str(refusal.value)
