"""What a token of EvalAI says of itself: it is a JSON Web Token (RFC 7519). Only EvalAI can say whether it is valid."""

import base64
import binascii
import json
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import SecretStr


@dataclass(frozen=True)
class TokenClaims:
    """`user` is the id of its owner at EvalAI; both are None where the token does not say."""

    user: int | None = None
    expires_at: datetime | None = None


def token_claims(token: SecretStr) -> TokenClaims:
    """The claims of the token, unverified; all None for one that is no JSON Web Token."""
    parts = token.get_secret_value().strip().split(".")
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        user, expiry = claims.get("user_id"), claims.get("exp")
        return TokenClaims(
            int(user) if str(user).isdigit() else None,
            datetime.fromtimestamp(expiry, UTC) if isinstance(expiry, int | float) else None,
        )
    except (IndexError, AttributeError, ValueError, OverflowError, OSError, binascii.Error):
        return TokenClaims()
