"""An installation's four secrets in Secrets Manager (docs/aws.md, "The secrets"), read and checked.

No message here repeats a value: a misplaced token must not end up in a log.
"""

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeVar
from urllib.parse import urlsplit

from botocore.exceptions import ClientError
from pydantic import (
    AliasChoices,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    RootModel,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from aws_api.errors import aws_errors, error_code
from blocks.document_names import names_a_block
from blocks.provenance_key import is_seed
from evaluation.errors import InvalidConfiguration
from evaluation.submission.model import parse_phase

if TYPE_CHECKING:
    from types_boto3_secretsmanager import SecretsManagerClient

LOCAL = "local"  # the endpoint of a cluster that is this machine's processes: it has no certificate
_UNREADABLE = {
    "ResourceNotFoundException": "does not exist in this account and region",
    "AccessDeniedException": "may not be read with these credentials",
}
_CERTIFICATE = "a PEM certificate in base64"

Secret = TypeVar("Secret", bound=BaseModel)


def _must_be(wanted: str, valid: Callable[[str], bool]) -> BeforeValidator:
    """Takes a text that is valid; of anything else the error says only what is wanted."""

    def check(value: object) -> object:
        text = value.get_secret_value() if isinstance(value, SecretStr) else value
        if not (isinstance(text, str) and valid(text)):
            raise PydanticCustomError("wrong", "must be {wanted}", {"wanted": wanted})
        return value

    return BeforeValidator(check)


def _matches(pattern: str) -> Callable[[str], bool]:
    return lambda value: re.fullmatch(pattern, value) is not None


def _is_word(value: str) -> bool:
    return re.fullmatch(r"[!-~]+", value) is not None


def _is_address(value: str) -> bool:
    try:
        parts = urlsplit(value)
        return _is_word(value) and parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


def _is_endpoint(value: str) -> bool:
    return value == LOCAL or (value.startswith("https://") and _is_address(value))


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


def _is_seed_or_nothing(value: str) -> bool:
    return not value or is_seed(value)


Word = Annotated[str, _must_be("one word", _is_word)]
Image = Annotated[str, _must_be("an image reference", _is_word)]
PhaseId = Annotated[str, _must_be("a phase's id, a positive whole number", _matches(r"0*[1-9][0-9]{0,18}"))]
Codename = Annotated[str, _must_be("a codename like leaderboard-20-SENSORS", _is_codename)]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True, hide_input_in_errors=True)


class EvalAIAccess(_Record):
    """The secret `evalai`."""

    api_server: Annotated[str, _must_be("an http(s) address", _is_address)]
    token: Annotated[SecretStr, _must_be("one word", _is_word)] = Field(alias="auth_token")
    provenance_key: Annotated[SecretStr, _must_be("32 bytes in base64, or nothing", _is_seed_or_nothing)] = SecretStr(
        ""
    )


class Phases(RootModel[dict[PhaseId, Codename]]):
    """The secret `evalai-tracks`: phase id -> codename."""

    model_config = ConfigDict(frozen=True, hide_input_in_errors=True)

    @model_validator(mode="after")
    def _not_empty(self) -> "Phases":
        if not self.root:
            raise PydanticCustomError("empty", "names no phase")
        return self


class ClusterSecret(_Record):
    """One leaderboard's cluster and AWS resources: the secret that has the cluster's name."""

    cluster: str  # as the phases' codenames have it: leaderboard-20
    name: Word  # the EKS cluster's own name
    endpoint: Annotated[str, _must_be(f"an https address or {LOCAL!r}", _is_endpoint)]
    certificate_authority: str  # PEM in base64, as EKS shows it; "" where the endpoint is local
    simulator_image: Image
    leaderboard_image: Image
    logcopy_image: Image
    s3_bucket: Annotated[str, _must_be("an S3 bucket's name", _matches(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"))]
    table: Annotated[str, _must_be("a DynamoDB table's name", _matches(r"[A-Za-z0-9_.-]{3,255}"))] = Field(
        # As meant, and as deployed.
        validation_alias=AliasChoices("dynamodb_submissions_table", "dynamodb_submissinons_table")
    )
    log_group: Annotated[str, _must_be("a CloudWatch log group's name", _matches(r"[A-Za-z0-9._/#-]{1,512}"))] = Field(
        alias="cloudwatch_log_group"
    )

    @model_validator(mode="before")
    @classmethod
    def _local_has_no_certificate(cls, content: dict[str, object]) -> dict[str, object]:
        return {**content, "certificate_authority": ""} if content.get("endpoint") == LOCAL else content

    @field_validator("certificate_authority", mode="before")
    @classmethod
    def _certificate(cls, value: object, info: ValidationInfo) -> object:
        if info.data.get("endpoint") != LOCAL and not (isinstance(value, str) and _is_certificate(value)):
            raise PydanticCustomError("wrong", "must be {wanted}", {"wanted": _CERTIFICATE})
        return value


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
    provenance_key: SecretStr | None = None


@dataclass(frozen=True)
class InstallationSecrets:
    evalai: EvalAISecret
    clusters: Mapping[str, ClusterSecret]  # one for each cluster that a phase names


def read_installation_secrets(client: "SecretsManagerClient", names: SecretNames | None = None) -> InstallationSecrets:
    """Read and check the secrets; a cluster's only if a phase names it.

    Raises InvalidConfiguration with one sentence per problem, naming secret and key, and ServiceUnavailable.
    """
    names, reader = names or SecretNames(), _Reader(client)
    access = reader.read(EvalAIAccess, names.evalai)
    tracks = reader.read(Phases, names.tracks)
    phases = {str(int(pk)): codename for pk, codename in tracks.root.items()} if tracks else {}
    wanted = sorted({parse_phase(codename).cluster for codename in phases.values()})
    found = {name: reader.read(ClusterSecret, names.cluster_prefix + name, cluster=name) for name in wanted}
    if reader.problems or access is None:
        raise InvalidConfiguration(
            "The secrets cannot be used", "; ".join(reader.problems), "Correct them in AWS Secrets Manager."
        )
    clusters = {name: secret for name, secret in found.items() if secret}
    key = access.provenance_key if access.provenance_key.get_secret_value() else None
    return InstallationSecrets(EvalAISecret(access.api_server, access.token, phases, key), clusters)


class _Reader:
    """Reads secrets one after the other; every problem goes to one common list."""

    def __init__(self, client: "SecretsManagerClient") -> None:
        self._client = client
        self.problems: list[str] = []

    def read(self, kind: type[Secret], name: str, **known: str) -> Secret | None:
        """The secret, with what is known of it already; None after noting what is wrong with it."""
        content = self._content(name)
        if content is None:
            return None
        try:
            return kind.model_validate({**content, **known})
        except ValidationError as error:
            self.problems += [f"secret {name}: {_problem(each)}" for each in error.errors(include_url=False)]
            return None

    def _content(self, name: str) -> dict[str, object] | None:
        text = self._text(name)
        if text is None:
            return None
        try:
            content = json.loads(text, object_pairs_hook=_without_repetition)
        except (ValueError, RecursionError):  # its text could quote the secret
            content = None
        if not isinstance(content, dict):
            self.problems.append(f"secret {name}: is not a JSON object without repeated keys")
            return None
        return {key: value for key, value in content.items() if value is not None}

    def _text(self, name: str) -> str | None:
        with aws_errors(f"Reading the secret {name}"):
            try:
                text = self._client.get_secret_value(SecretId=name).get("SecretString")
            except ClientError as error:
                if error_code(error) not in _UNREADABLE:
                    raise
                self.problems.append(f"secret {name}: {_UNREADABLE[error_code(error)]}")
                return None
        if text is None:
            self.problems.append(f"secret {name}: holds no text")
        return text


def _without_repetition(pairs: list[tuple[str, object]]) -> dict[str, object]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key is there twice")
    return content


def _problem(error: ErrorDetails) -> str:
    """The key and what is wrong with it, never the value."""
    what = "is missing" if error["type"] == "missing" else error["msg"]
    return f"{_shown(str(error['loc'][0]))} {what}" if error["loc"] else what


def _shown(key: str) -> str:
    # A key is no secret, but somebody may have swapped key and value.
    return key if re.fullmatch(r"[A-Za-z0-9_]{1,40}", key) else "a key"
