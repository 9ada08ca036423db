"""What goes in and out of a view, without any web framework, in the forms of Django REST framework."""

import email
import email.policy
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import parse_qs

from embedded.evalai_standin.config import User

HTML = "text/html; charset=utf-8"
_PAGE = (
    "<!DOCTYPE html>\n<html>\n<head>\n\t<title>EvalAI- Home Page</title>\n</head>\n"
    "<body>\n<h1>Error {}</h1>\n</body>\n</html>\n"
)


@dataclass(frozen=True)
class Answer:
    """`body` is JSON content, or text where `content_type` is not JSON."""

    status: int
    body: object
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)


class Refusal(Exception):
    """Ends a view with an answer."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def refuse(status: int, text: str) -> Refusal:
    """A view of EvalAI says no."""
    return Refusal(Answer(status, {"error": text}))


def deny(status: int, text: str, **headers: str) -> Refusal:
    """The framework below EvalAI says no."""
    return Refusal(Answer(status, {"detail": text}, headers={k.replace("_", "-"): v for k, v in headers.items()}))


def not_found_page() -> Answer:
    return Answer(404, _PAGE.format("404 - Page Not Found"), HTML)


def broken_page() -> Answer:
    return Answer(500, _PAGE.format("500 - Internal Server Error"), HTML)


def broken() -> Refusal:
    """Where the real server fails with a Python exception."""
    return Refusal(broken_page())


def success(text: str) -> Answer:
    return Answer(200, {"success": text})


@dataclass(frozen=True)
class Upload:
    """A file part of a multipart body."""

    name: str
    content: bytes


@dataclass(frozen=True)
class Call:
    """One request. `ids` are the numbers in its path; `user` is None for an anonymous one."""

    method: str
    path: str
    base_url: str
    ids: tuple[int, ...]
    query: Mapping[str, str]
    content_type: str
    body: bytes
    user: User | None

    @property
    def caller(self) -> User:
        """The user of a view that requires authentication."""
        if self.user is None:
            raise deny(401, "Authentication credentials were not provided.")
        return self.user

    def fields(self) -> dict[str, object]:
        """The body's fields; raises Refusal as the framework does. A JSON body that is no object breaks the view."""
        kind = self.content_type.partition(";")[0].strip().lower()
        if kind == "application/json":
            return _json_fields(self.body)
        if kind == "application/x-www-form-urlencoded":
            pairs = parse_qs(self.body.decode(), keep_blank_values=True)
            return {name: values[-1] for name, values in pairs.items()}
        if kind == "multipart/form-data":
            return _multipart_fields(self.content_type, self.body)
        if not self.body:
            return {}
        raise deny(415, f'Unsupported media type "{self.content_type}" in request.')


def _json_fields(body: bytes) -> dict[str, object]:
    if not body:
        return {}
    try:
        content = json.loads(body)
    except ValueError as error:
        raise deny(400, f"JSON parse error - {error}") from error
    if not isinstance(content, dict):
        raise broken()
    return content


def _multipart_fields(content_type: str, body: bytes) -> dict[str, object]:
    # The standard library reads a MIME message: the header in front makes the body one.
    head = f"Content-Type: {content_type}\r\n\r\n".encode()
    message = email.message_from_bytes(head + body, policy=email.policy.HTTP)
    found: dict[str, object] = {}
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        if not isinstance(name, str) or not isinstance(content, bytes):
            continue
        file_name = part.get_filename()
        found[name] = content.decode() if file_name is None else Upload(file_name, content)
    return found


def text_field(fields: Mapping[str, object], name: str) -> str:
    """A text of the body, "" where absent; anything but a string breaks the view, as `.encode` does there."""
    value = fields.get(name, "")
    if not isinstance(value, str):
        raise broken()
    return value


def id_field(fields: Mapping[str, object], name: str) -> int | None:
    """An id as int or digits, None where absent; anything else breaks the view."""
    value = fields.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not re.fullmatch(r"\d+", str(value)):
        raise broken()
    return int(str(value))
