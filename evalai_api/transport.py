"""One HTTP exchange with bounds: so long to connect, so long for the whole, so many bytes. Knows nothing of EvalAI.

`asyncio.timeout` around httpx is what bounds the whole: a socket's own timeout starts anew with each byte that comes.
"""

import asyncio
import functools
import json
import ssl
import zlib
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import httpx
from pydantic import SecretStr

CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True)
class Timeouts:
    """Seconds for one request. EvalAI kills its own requests at 60 s, so waiting much longer is of no use."""

    connect: float = 10.0
    read: float = 65.0  # without a single byte
    total: float = 90.0  # from the first byte sent to the last one received


@dataclass(frozen=True)
class Upload:
    """A multipart body: plain fields, and files as (name, content, content type)."""

    fields: Mapping[str, str]
    files: Mapping[str, tuple[str, bytes, str]]


@dataclass(frozen=True)
class Request:
    """`content` is a JSON text in UTF-8; at most one of it and `upload` is given."""

    method: str
    url: str
    query: Mapping[str, str] | None = None
    content: bytes | None = None
    upload: Upload | None = None


@dataclass(frozen=True)
class HttpAnswer:
    """An answer, read to its end."""

    status: int
    headers: httpx.Headers
    body: bytes = field(repr=False)  # a debug page repeats the request's headers

    @cached_property
    def json(self) -> object:
        """The JSON content; raises ValueError where the body is none, too deeply nested JSON included."""
        try:
            return json.loads(self.body)
        except RecursionError as error:
            raise ValueError("the JSON is nested too deeply") from error

    @property
    def is_json(self) -> bool:
        try:
            _ = self.json
        except ValueError:
            return False
        return True


class AnswerTooLarge(Exception):
    """The answer has more bytes than it may have."""


class _Bearer(httpx.Auth):
    # An explicit auth object also keeps httpx from putting an entry of ~/.netrc into the header.
    def __init__(self, token: SecretStr) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        request.headers["Authorization"] = f"Bearer {self._token.get_secret_value()}"
        yield request


def exchange(
    request: Request, token: SecretStr | None, timeouts: Timeouts, limit_bytes: int, trust_env: bool
) -> HttpAnswer:
    """Send the request and read the answer; blocks. Redirects are not followed.

    Must not be called in a thread that runs an event loop. A name server that does not answer is waited for as long as
    the system's resolver does. Raises TimeoutError when the bounds of time are over, AnswerTooLarge, httpx's errors
    for the rest.
    """
    try:
        return asyncio.run(_exchange(request, token, timeouts, limit_bytes, trust_env))
    except httpx.TimeoutException as error:
        raise TimeoutError(type(error).__name__) from None


async def _exchange(
    request: Request, token: SecretStr | None, timeouts: Timeouts, limit_bytes: int, trust_env: bool
) -> HttpAnswer:
    waits = httpx.Timeout(timeouts.read, connect=timeouts.connect)
    verify = _tls() if request.url.startswith("https:") else False  # plain HTTP needs no certificates
    headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
    if request.content is not None:
        headers["Content-Type"] = "application/json"
    async with (
        asyncio.timeout(timeouts.total),
        httpx.AsyncClient(timeout=waits, trust_env=trust_env, verify=verify) as client,
        client.stream(
            request.method,
            request.url,
            params=request.query,
            content=request.content,
            data=dict(request.upload.fields) if request.upload else None,
            files=dict(request.upload.files) if request.upload else None,
            headers=headers,
            auth=_Bearer(token) if token else None,
        ) as response,
    ):
        body = await _read(response, limit_bytes)
        return HttpAnswer(response.status_code, response.headers, body)


async def _read(response: httpx.Response, limit_bytes: int) -> bytes:
    decode = _decoder(response.headers.get("Content-Encoding", ""))
    body = bytearray()
    async for chunk in response.aiter_raw(CHUNK_BYTES):
        body += decode(chunk, limit_bytes + 1 - len(body))
        if len(body) > limit_bytes:
            raise AnswerTooLarge(f"more than {limit_bytes} bytes")
    return bytes(body)


def _decoder(encoding: str) -> Callable[[bytes, int], bytes]:
    """Makes of a chunk at most so many bytes; httpx's own decoders, and several of them in a row, know no bound.

    No encoding is asked for: a gateway may compress all the same. Raises httpx.DecodingError for any but gzip.
    """
    match encoding.strip().lower():
        case "" | "identity":
            return lambda chunk, _: chunk
        case "gzip":
            inflater = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
            return functools.partial(_inflate, inflater)
        case _:
            raise httpx.DecodingError("an encoding that was not asked for")


def _inflate(inflater: "zlib._Decompress", chunk: bytes, most: int) -> bytes:
    try:
        return inflater.decompress(chunk, most)
    except zlib.error as error:
        raise httpx.DecodingError(str(error)) from None


@functools.cache
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context()
