"""An installation's four secrets in Secrets Manager (docs/aws.md, "The secrets"), read and checked.

No message here repeats a value: a misplaced token must not end up in a log.
"""

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from botocore.exceptions import ClientError
from pydantic import SecretStr

from aws_api.errors import aws_errors, error_code
from blocks.document_names import names_a_block
from evaluation.errors import InvalidConfiguration
from evaluation.submission.model import parse_phase

if TYPE_CHECKING:
    from types_boto3_secretsmanager import SecretsManagerClient

LOCAL = "local"  # the endpoint of a cluster that is this machine's processes: it has no certificate
TABLE_KEYS = ("dynamodb_submissions_table", "dynamodb_submissinons_table")  # as meant, and as deployed

_UNREADABLE = {
    "ResourceNotFoundException": "does not exist in this account and region",
    "AccessDeniedException": "may not be read with these credentials",
}
_PHASE_ID = re.compile(r"0*[1-9][0-9]{0,18}")

Check = Callable[[str], bool]


@dataclass(frozen=True)
class SecretNames:
    """What the secrets are called; a cluster's is the prefix and the cluster's name."""

    evalai: str = "evalai"
    tracks: str = "evalai-tracks"
    cluster_prefix: str = ""

    def prefixed(self, prefix: str) -> "SecretNames":
        """The same names of another stage, e.g. with "staging-" before each."""
        return SecretNames(prefix + self.evalai, prefix + self.tracks, prefix + self.cluster_prefix)


@dataclass(frozen=True)
class EvalAISecret:
    api_server: str
    token: SecretStr
    phases: Mapping[str, str]  # phase id -> codename


@dataclass(frozen=True)
class ClusterSecret:
    """One leaderboard's cluster and AWS resources. `endpoint` is an https address, or "local"."""

    cluster: str  # as the phases' codenames have it: leaderboard-20
    name: str  # the EKS cluster's own name
    endpoint: str
    certificate_authority: str  # PEM in base64, as EKS shows it; "" where the endpoint is local
    simulator_image: str
    leaderboard_image: str
    logcopy_image: str
    s3_bucket: str
    table: str
    log_group: str


@dataclass(frozen=True)
class InstallationSecrets:
    evalai: EvalAISecret
    clusters: Mapping[str, ClusterSecret]  # one for each cluster that a phase names


def read_installation_secrets(client: "SecretsManagerClient", names: SecretNames | None = None) -> InstallationSecrets:
    """Read and check the secrets; a cluster's only if a phase names it.

    Raises InvalidConfiguration with one sentence per problem, naming secret and key, and ServiceUnavailable.
    """
    names = names or SecretNames()
    problems: list[str] = []
    evalai = _Fields(client, names.evalai, problems)
    token = evalai.text("auth_token", "one word", _is_word)
    api_server = evalai.text("api_server", "an http(s) address", _is_address)
    phases = _read_phases(_Fields(client, names.tracks, problems))
    clusters = {
        name: _read_cluster(name, _Fields(client, names.cluster_prefix + name, problems))
        for name in sorted({parse_phase(codename).cluster for codename in phases.values()})
    }
    if problems:
        raise InvalidConfiguration(
            "The secrets cannot be used", "; ".join(problems), "Correct them in AWS Secrets Manager."
        )
    return InstallationSecrets(EvalAISecret(api_server, SecretStr(token), phases), clusters)


def _read_phases(fields: "_Fields") -> dict[str, str]:
    phases: dict[str, str] = {}
    for phase_id in fields.names():
        if not _PHASE_ID.fullmatch(phase_id):
            fields.problem(phase_id, "must be a phase's id, a positive whole number")
        elif codename := fields.text(phase_id, "a codename like leaderboard-20-SENSORS", _is_codename):
            phases[str(int(phase_id))] = codename
    if fields.readable and not fields.names():
        fields.complain("names no phase")
    return phases


def _read_cluster(cluster: str, fields: "_Fields") -> ClusterSecret:
    endpoint = fields.text("endpoint", f"an https address or {LOCAL!r}", lambda v: v == LOCAL or _is_https(v))
    return ClusterSecret(
        cluster=cluster,
        name=fields.text("name", "one word", _is_word),
        endpoint=endpoint,
        certificate_authority=_read_authority(fields, endpoint),
        simulator_image=fields.text("simulator_image", "an image reference", _is_word),
        leaderboard_image=fields.text("leaderboard_image", "an image reference", _is_word),
        logcopy_image=fields.text("logcopy_image", "an image reference", _is_word),
        s3_bucket=fields.text("s3_bucket", "an S3 bucket's name", _matches(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")),
        table=fields.text(fields.first(TABLE_KEYS), "a DynamoDB table's name", _matches(r"[A-Za-z0-9_.-]{3,255}")),
        log_group=fields.text(
            "cloudwatch_log_group", "a CloudWatch log group's name", _matches(r"[A-Za-z0-9._/#-]{1,512}")
        ),
    )


def _read_authority(fields: "_Fields", endpoint: str) -> str:
    if endpoint == LOCAL:
        return ""
    return fields.text("certificate_authority", "a PEM certificate in base64", _is_certificate)


class _Fields:
    """One secret's keys and values; every problem goes to one common list."""

    def __init__(self, client: "SecretsManagerClient", secret: str, problems: list[str]) -> None:
        self._secret = secret
        self._problems = problems
        self._content = self._read(client)

    @property
    def readable(self) -> bool:
        return self._content is not None

    def names(self) -> list[str]:
        return list(self._content or {})

    def first(self, spellings: Iterable[str]) -> str:
        """The spelling that is there; else the first one, for the complaint."""
        known = tuple(spellings)
        return next((key for key in known if (self._content or {}).get(key) is not None), known[0])

    def text(self, key: str, wanted: str, valid: Check) -> str:
        """The value, or "" after noting what is wrong with it."""
        if self._content is None:
            return ""  # noted already
        value = self._content.get(key)
        if value is None:
            self.problem(key, "is missing")
        elif isinstance(value, str) and valid(value):
            return value
        else:
            self.problem(key, f"must be {wanted}")
        return ""

    def problem(self, key: str, what: str) -> None:
        self.complain(f"{_shown(key)} {what}")

    def complain(self, what: str) -> None:
        self._problems.append(f"secret {self._secret}: {what}")

    def _read(self, client: "SecretsManagerClient") -> dict[str, object] | None:
        text = self._fetch(client)
        if text is None:
            return None
        try:
            content = json.loads(text, object_pairs_hook=_without_repetition)
        except (ValueError, RecursionError):  # its text could quote the secret
            content = None
        if not isinstance(content, dict):
            self.complain("is not a JSON object without repeated keys")
            return None
        return content

    def _fetch(self, client: "SecretsManagerClient") -> str | None:
        with aws_errors(f"Reading the secret {self._secret}"):
            try:
                text = client.get_secret_value(SecretId=self._secret).get("SecretString")
            except ClientError as error:
                if error_code(error) not in _UNREADABLE:
                    raise
                self.complain(_UNREADABLE[error_code(error)])
                return None
        if text is None:
            self.complain("holds no text")
        return text


def _without_repetition(pairs: list[tuple[str, object]]) -> dict[str, object]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key is there twice")
    return content


def _shown(key: str) -> str:
    # A key is no secret, but somebody may have swapped key and value.
    return key if re.fullmatch(r"[A-Za-z0-9_]{1,40}", key) else "a key"


def _matches(pattern: str) -> Check:
    return lambda value: re.fullmatch(pattern, value) is not None


def _is_word(value: str) -> bool:
    return re.fullmatch(r"[!-~]+", value) is not None


def _is_address(value: str) -> bool:
    try:
        parts = urlsplit(value)
        return _is_word(value) and parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _is_https(value: str) -> bool:
    return value.startswith("https://") and _is_address(value)


def _is_codename(value: str) -> bool:
    try:
        return names_a_block(parse_phase(value).cluster) and _is_word(value)
    except InvalidConfiguration:
        return False


def _is_certificate(value: str) -> bool:
    try:
        return b"BEGIN CERTIFICATE" in base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return False
