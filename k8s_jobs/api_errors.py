"""What Kubernetes and its client say, in the words of evaluation.errors. No text here carries a token.

RequestRefused
├── ObjectMissing     404
├── ObjectExists      409
└── VersionExpired    410: the resource version is too old to go on from; list again
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager

import aiohttp
from kubernetes_asyncio.client import ApiException

from evaluation.errors import EvaluationError, InvalidConfiguration, RequestRefused, ServiceUnavailable

_TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
_LONGEST_TEXT = 500  # characters of a server's message
_RIGHTS = "Give the orchestrator's account the rights of deployments/eks (Jobs, Pods, logs, ConfigMaps)."


class ObjectMissing(RequestRefused):
    """There is nothing of that name."""


class ObjectExists(RequestRefused):
    """There is something of that name already."""


class VersionExpired(RequestRefused):
    """A watch cannot go on from its resource version."""


def error_of(status: int, body: str, what: str, retry_after: float | None = None) -> EvaluationError:
    """The error behind an HTTP status, or behind the code of a watch's ERROR event. `body`: a Status object's JSON."""
    message, reason = _read_status(body)
    cause = f"{status} {reason}: {message}" if message else f"{status} {reason}".rstrip()
    if status in _TRANSIENT or status >= 500:
        return ServiceUnavailable(f"{what}: the cluster cannot answer now", cause, retry_after=retry_after)
    if status == 401:
        remedy = "Check the cluster's credentials, and on EKS the access entry of their role."
        return InvalidConfiguration(f"{what}: the cluster does not accept our credentials", cause, remedy)
    if status == 403 and "exceeded quota" in message:  # others end, and then there is room again
        return ServiceUnavailable(f"{what}: the namespace's quota is used up", cause)
    if status == 403:
        return InvalidConfiguration(f"{what}: the cluster forbids it", cause, _RIGHTS)
    kinds = {404: ObjectMissing, 409: ObjectExists, 410: VersionExpired}
    return kinds.get(status, RequestRefused)(f"{what}: the cluster refuses", cause)


def _read_status(body: str) -> tuple[str, str]:
    """Message and reason of a Status object; other text counts as the message."""
    try:
        status = json.loads(body)
        message, reason = str(status.get("message") or ""), str(status.get("reason") or "")
    except (ValueError, AttributeError):
        message, reason = " ".join(body.split()), ""
    return message[:_LONGEST_TEXT], reason


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Raise the errors of sockets and of the client as ours; `what` says what was being done."""
    try:
        yield
    except ApiException as error:
        raise error_of(error.status or 0, str(error.body or error.reason or ""), what) from error
    except TimeoutError as error:
        raise ServiceUnavailable(f"{what}: the cluster does not answer in time") from error
    except aiohttp.ClientConnectorCertificateError as error:
        remedy = "Check the certificate authority in the cluster's secret or kubeconfig."
        raise InvalidConfiguration(f"{what}: the cluster's certificate is not valid", str(error), remedy) from error
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
        raise InvalidConfiguration(f"{what}: the cluster's address is not valid", str(error)) from error
    except (aiohttp.ClientError, OSError) as error:
        raise ServiceUnavailable(f"{what}: the cluster cannot be reached", str(error)) from error
