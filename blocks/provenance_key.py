"""The key that signs where results come from: Ed25519, from the secret `evalai` (docs/aws.md, "The secrets")."""

import base64
import binascii
import hashlib

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import SecretStr

from evaluation.errors import InvalidConfiguration
from evaluation.provenance import Envelope, Signature, signed_bytes

SEED_BYTES = 32


def is_seed(text: str) -> bool:
    """Whether this is a private key as the secret holds it: its 32 bytes in base64."""
    try:
        return len(base64.b64decode(text, validate=True)) == SEED_BYTES
    except (binascii.Error, ValueError):
        return False


class ProvenanceKey:
    """Signs, and checks what it has signed. Raises InvalidConfiguration for what is no key."""

    def __init__(self, seed: SecretStr) -> None:
        if not is_seed(seed.get_secret_value()):
            what = "The provenance_key of the secret evalai is no Ed25519 key"
            raise InvalidConfiguration(what, "it has to be 32 bytes in base64", "Correct it, then run setup.")
        self._key = Ed25519PrivateKey.from_private_bytes(base64.b64decode(seed.get_secret_value()))
        self.id = hashlib.sha256(self._key.public_key().public_bytes_raw()).hexdigest()

    def signed(self, statement: bytes) -> Envelope:
        return Envelope(statement, (Signature(self.id, self._key.sign(signed_bytes(statement))),))

    def has_signed(self, envelope: Envelope) -> bool:
        """Whether one of the envelope's signatures is this key's and fits."""
        return any(each.key == self.id and self._fits(envelope, each) for each in envelope.signatures)

    def _fits(self, envelope: Envelope, signature: Signature) -> bool:
        try:
            self._key.public_key().verify(signature.value, signed_bytes(envelope.statement))
        except InvalidSignature:
            return False
        return True
