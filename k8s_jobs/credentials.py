"""How to reach a cluster, and as whom: a kubeconfig, an EKS cluster by its secret, or the one we run in."""

import asyncio
import base64
import binascii
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

import boto3
import yaml
from kubernetes_asyncio.client import ApiClient, Configuration
from kubernetes_asyncio.config import ConfigException, load_incluster_config, load_kube_config

from aws_api.errors import aws_errors
from evaluation.errors import InvalidConfiguration, ServiceUnavailable

# EKS takes a token for 15 minutes from its signature; a third of that is left for a request or a watch to use it.
EKS_TOKEN_SECONDS = 600.0
_SERVICE_ACCOUNT_SECONDS = 60.0  # the kubelet replaces the file in time
_PLUGIN_SECONDS = 60.0  # for a kubeconfig's exec plugin, which may ask servers
_SIGNED_FOR_SECONDS = 60  # what `aws eks get-token` signs; EKS counts its 15 minutes from the signature's date
_STS_NAME_HEADER = "x-k8s-aws-id"


class ClusterAccess(Protocol):
    """A value that names one cluster; two equal ones share a connection and a watch.

    Both methods raise InvalidConfiguration where an operator has to correct something, else ServiceUnavailable.
    """

    @property
    def token_seconds(self) -> float:
        """How long a token is used before it is fetched again."""

    async def client(self) -> ApiClient:
        """A client, perhaps without a token; it has to be closed."""

    async def token(self) -> str | None:
        """The value of the Authorization header, fetched now; None where a client certificate says who we are."""


def _open(configuration: Configuration) -> ApiClient:
    # Cluster authorities older than their cluster's present version miss extensions that Python 3.13 insists on
    # (kubernetes-client/python#2394); the chain and the host name are verified as ever.
    configuration.disable_strict_ssl_verification = True
    try:
        return ApiClient(configuration)
    except OSError as error:  # an SSLError is one
        raise InvalidConfiguration("The cluster's certificates cannot be used", str(error)) from error


@dataclass(frozen=True)
class Kubeconfig:
    """A kubeconfig file: kind, minikube, or EKS through its exec plugin. Empty: kubectl's defaults."""

    path: str = ""
    context: str = ""

    @property
    def token_seconds(self) -> float:
        return EKS_TOKEN_SECONDS

    async def client(self) -> ApiClient:
        return _open(await self._load())

    async def token(self) -> str | None:
        return (await self._load()).api_key.get("BearerToken")

    async def _load(self) -> Configuration:
        configuration = Configuration()
        where = self.path or "~/.kube/config"
        try:
            async with asyncio.timeout(_PLUGIN_SECONDS):
                await load_kube_config(self.path or None, self.context or None, configuration, persist_config=False)
        except TimeoutError as error:
            summary = f"The kubeconfig {where} gives no token"
            raise ServiceUnavailable(summary, f"its plugin took longer than {_PLUGIN_SECONDS:g} s") from error
        except (ConfigException, OSError, yaml.YAMLError, ValueError, LookupError, TypeError) as error:
            # The text is left out: it may quote the file, or an exec plugin's output, which hold tokens.
            remedy = "Check the file and its context with kubectl."
            raise InvalidConfiguration(
                f"The kubeconfig {where} cannot be used", type(error).__name__, remedy
            ) from error
        return configuration


@dataclass(frozen=True)
class InCluster:
    """The cluster whose pod this process runs in, as the pod's service account."""

    @property
    def token_seconds(self) -> float:
        return _SERVICE_ACCOUNT_SECONDS

    async def client(self) -> ApiClient:
        return _open(self._load())

    async def token(self) -> str | None:
        return self._load().api_key.get("BearerToken")

    def _load(self) -> Configuration:
        configuration = Configuration()
        try:
            load_incluster_config(configuration, try_refresh_token=False)  # type: ignore[no-untyped-call]
        except (ConfigException, OSError) as error:
            remedy = "Run in a pod with a service account, or name a kubeconfig."
            raise InvalidConfiguration("This process runs in no cluster", str(error), remedy) from error
        return configuration


@dataclass(frozen=True)
class EksCluster:
    """An EKS cluster by its secret's `name`, `endpoint` and `certificate_authority` (docs/aws.md, "The secrets")."""

    name: str
    endpoint: str
    certificate_authority: str  # PEM in base64
    region: str
    session: Callable[[], boto3.Session] = field(default=boto3.Session, compare=False, repr=False)

    @property
    def token_seconds(self) -> float:
        return EKS_TOKEN_SECONDS

    async def client(self) -> ApiClient:
        configuration = Configuration(host=self.endpoint)
        with tempfile.NamedTemporaryFile(prefix="eks-", suffix=".pem") as file:  # the client reads files only, and once
            file.write(self._authority())
            file.flush()
            configuration.ssl_ca_cert = file.name
            return _open(configuration)

    async def token(self) -> str | None:
        return f"Bearer {await asyncio.to_thread(eks_token, self.session, self.name, self.region)}"

    def _authority(self) -> bytes:
        try:
            return base64.b64decode(self.certificate_authority, validate=True)
        except (binascii.Error, ValueError) as error:
            remedy = "Copy the key certificate_authority of the cluster's secret from EKS."
            raise InvalidConfiguration(f"The certificate authority of {self.name} is not base64", "", remedy) from error


def eks_token(session: Callable[[], boto3.Session], cluster: str, region: str) -> str:
    """Mint a token: a signed, unsent STS GetCallerIdentity that names the cluster, as `aws eks get-token` makes it.

    Raises InvalidConfiguration without AWS credentials, ServiceUnavailable where they cannot be fetched now.
    """
    with aws_errors(f"Minting a token for the EKS cluster {cluster}"):
        sts = session().client("sts", region_name=region)
        events = sts.meta.events
        events.register("provide-client-params.sts.GetCallerIdentity", _take_cluster)
        events.register("before-sign.sts.GetCallerIdentity", _add_cluster)
        url = sts.generate_presigned_url(
            "get_caller_identity", Params={"ClusterName": cluster}, ExpiresIn=_SIGNED_FOR_SECONDS, HttpMethod="GET"
        )
    return "k8s-aws-v1." + base64.urlsafe_b64encode(url.encode()).decode().rstrip("=")


def _take_cluster(params: dict[str, Any], context: dict[str, Any], **_: object) -> None:
    context["cluster"] = params.pop("ClusterName")  # STS has no such parameter; the signature gets it as a header


def _add_cluster(request: Any, **_: object) -> None:
    request.headers[_STS_NAME_HEADER] = request.context["cluster"]
