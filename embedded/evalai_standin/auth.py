"""Who is asking. Source: tests/contract/recordings/auth_and_get_submission.json."""

from embedded.evalai_standin.config import Config, User
from embedded.evalai_standin.responses import Answer, Refusal, deny


def authenticated(config: Config, header: str | None) -> User | None:
    """The user of an Authorization header, None where it names no scheme that EvalAI knows; raises a 401 or 403."""
    scheme, _, token = (header or "").partition(" ")
    if scheme not in ("Bearer", "Token"):  # case matters to EvalAI
        return None
    user = _by_refresh_token(config, token) if scheme == "Bearer" else _by_expiring_token(config, token)
    if not user.verified:
        raise deny(403, "Please verify your email!")
    return user


def _by_refresh_token(config: Config, token: str) -> User:
    for user in config.users:
        if token == user.token:
            return user
        if token in user.refreshed_tokens:
            raise _invalid("Token is blacklisted")
        if user.access_token is not None and token == user.access_token:
            raise _invalid("Token has wrong type")
    raise _invalid("Token is invalid or expired")


def _by_expiring_token(config: Config, token: str) -> User:
    for user in config.users:
        if user.expiring_token is not None and token == user.expiring_token:
            return user
    raise deny(401, "Invalid token")


def _invalid(message: str) -> Refusal:
    return Refusal(
        Answer(
            401,
            {
                "detail": "Given token not valid for any token type",
                "code": "token_not_valid",
                "messages": [{"token_class": "RefreshToken", "token_type": "refresh", "message": message}],
            },
        )
    )
