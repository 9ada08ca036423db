"""How a cluster is reached: EKS tokens and their renewal, kubeconfigs, service accounts."""

import base64
import ssl
from ipaddress import IPv4Address
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
import yaml
from botocore.session import Session as BotocoreSession
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from evaluation.errors import InvalidConfiguration
from k8s_jobs.api import KubernetesApi
from k8s_jobs.cluster_watch import jobs_path
from k8s_jobs.credentials import EKS_TOKEN_SECONDS, EksCluster, InCluster, Kubeconfig, eks_token
from tests.contract.kubernetes_server import KubernetesServer, running_server
from tests.kubernetes_objects import NOW, PlainAccess

ENDPOINT = "https://ABCDEF0123456789.gr7.us-west-2.eks.amazonaws.com"


def session() -> boto3.Session:
    return boto3.Session(
        aws_access_key_id="AKIDEXAMPLE",
        aws_secret_access_key="secret",
        aws_session_token="session",
        region_name="us-east-1",
    )


def certificate() -> tuple[bytes, bytes]:
    """A self-signed certificate for 127.0.0.1 and its key, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "kubernetes")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, NOW, NOW.replace(year=2036)).add_extension(
        x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False
    )
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM), secret


def authority() -> str:
    """As the secret has it: PEM in base64."""
    return base64.b64encode(certificate()[0]).decode()


def eks(certificate_authority: str) -> EksCluster:
    return EksCluster("leaderboard-20", ENDPOINT, certificate_authority, "us-west-2", session)


def test_token_is_a_signed_question_to_sts_that_names_the_cluster() -> None:
    token = eks_token(session, "leaderboard-20", "us-west-2")

    prefix, _, body = token.partition(".")
    url = urlsplit(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)).decode())
    query = parse_qs(url.query)
    assert prefix == "k8s-aws-v1"
    assert "=" not in token
    assert (url.scheme, url.hostname, url.path) == ("https", "sts.us-west-2.amazonaws.com", "/")
    assert query["Action"] == ["GetCallerIdentity"]
    assert query["X-Amz-SignedHeaders"] == ["host;x-k8s-aws-id"]
    assert query["X-Amz-Expires"] == ["60"]
    assert query["X-Amz-Security-Token"] == ["session"]
    assert query["X-Amz-Credential"][0].split("/")[2:] == ["us-west-2", "sts", "aws4_request"]
    assert "ClusterName" not in query


def test_token_of_another_cluster_has_another_signature() -> None:
    def signature(cluster: str) -> list[str]:
        body = eks_token(session, cluster, "us-west-2").partition(".")[2]
        return parse_qs(base64.urlsafe_b64decode(body + "===").decode())["X-Amz-Signature"]

    assert signature("leaderboard-10") != signature("leaderboard-20")


def test_without_aws_credentials_there_is_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.delenv(name, raising=False)
    bare = BotocoreSession()
    bare.set_config_variable("credentials_file", "/nonexistent")
    bare.set_config_variable("config_file", "/nonexistent")

    with pytest.raises(InvalidConfiguration, match="Check the AWS credentials"):
        eks_token(lambda: boto3.Session(botocore_session=bare), "leaderboard-20", "us-west-2")


@pytest.mark.anyio
async def test_eks_cluster_is_reached_at_its_endpoint_with_its_authority() -> None:
    access = eks(authority())

    client = await access.client()
    token = await access.token()

    assert client.configuration.host == ENDPOINT
    assert client.configuration.verify_ssl is True
    assert token is not None
    assert token.startswith("Bearer k8s-aws-v1.")
    await client.close()


@pytest.mark.anyio
@pytest.mark.parametrize("broken", ["not base64!", base64.b64encode(b"no certificate").decode()])
async def test_broken_authority_is_a_matter_of_configuration(broken: str) -> None:
    with pytest.raises(InvalidConfiguration):
        await eks(broken).client()


def test_equal_clusters_share_whatever_their_sessions_are() -> None:
    one = EksCluster("a", ENDPOINT, "", "us-west-2", session)
    other = EksCluster("a", ENDPOINT, "", "us-west-2", boto3.Session)

    assert one == other
    assert hash(one) == hash(other)
    assert "session" not in repr(one)


@pytest.mark.anyio
async def test_token_is_renewed_before_its_fifteen_minutes_are_over(server: KubernetesServer) -> None:
    now = 0.0
    access = PlainAccess(server.url, ["first", "second", "third"], EKS_TOKEN_SECONDS)
    async with KubernetesApi(access, clock=lambda: now) as api:
        for now in (0.0, 599.0, 601.0, 1100.0, 1202.0):  # noqa: B007 - the clock reads it
            await api.get(jobs_path("leaderboard"))

    assert server.tokens_seen == [f"Bearer {each}" for each in ("first", "first", "second", "second", "third")]
    assert EKS_TOKEN_SECONDS < 15 * 60


def write_kubeconfig(path: Path, server: str, token: str, user: object = None) -> None:
    content = {
        "current-context": "one",
        "contexts": [
            {"name": "one", "context": {"cluster": "c", "user": "u"}},
            {"name": "two", "context": {"cluster": "d", "user": "u"}},
        ],
        "clusters": [{"name": "c", "cluster": {"server": server}}, {"name": "d", "cluster": {"server": "http://d"}}],
        "users": [{"name": "u", "user": user or {"token": token}}],
    }
    path.write_text(yaml.safe_dump(content))


@pytest.mark.anyio
async def test_kubeconfig_and_its_contexts(server: KubernetesServer, tmp_path: Path) -> None:
    path = tmp_path / "config"
    write_kubeconfig(path, server.url, "from-file")

    async with KubernetesApi(Kubeconfig(str(path))) as api:
        await api.get(jobs_path("leaderboard"))
    other = await Kubeconfig(str(path), "two").client()

    assert server.tokens_seen == ["Bearer from-file"]
    assert other.configuration.host == "http://d"
    await other.close()


PLUGIN = """
echo >> {folder}/calls
echo "{{\\"apiVersion\\": \\"client.authentication.k8s.io/v1\\", \\"kind\\": \\"ExecCredential\\","
echo "\\"status\\": {{\\"token\\": \\"token-$(wc -l < {folder}/calls | tr -d ' ')\\"}}}}"
"""


def plugin(script: str) -> object:
    version = "client.authentication.k8s.io/v1"
    return {"exec": {"apiVersion": version, "command": "sh", "args": ["-c", script]}}


@pytest.mark.anyio
async def test_token_of_a_plugin_is_renewed_too(server: KubernetesServer, tmp_path: Path) -> None:
    path, now = tmp_path / "config", 0.0
    write_kubeconfig(path, server.url, "", plugin(PLUGIN.format(folder=tmp_path)))

    async with KubernetesApi(Kubeconfig(str(path)), clock=lambda: now) as api:
        for now in (0.0, 599.0, 601.0):  # noqa: B007 - the clock reads it
            await api.get(jobs_path("leaderboard"))

    assert server.tokens_seen[0] == server.tokens_seen[1] != server.tokens_seen[2]
    assert all(each.startswith("Bearer token-") for each in server.tokens_seen)


@pytest.mark.anyio
async def test_plugin_that_fails_tells_no_token(tmp_path: Path) -> None:
    path = tmp_path / "config"
    write_kubeconfig(path, "http://c", "", plugin("echo secret-token >&2; exit 1"))

    with pytest.raises(InvalidConfiguration, match="ConfigException") as raised:
        await Kubeconfig(str(path)).client()

    assert "secret-token" not in str(raised.value)


@pytest.mark.anyio
@pytest.mark.parametrize("content", ["", "{", "current-context: nowhere", "- a list"])
async def test_broken_kubeconfig_is_a_matter_of_configuration(tmp_path: Path, content: str) -> None:
    path = tmp_path / "config"
    path.write_text(content)

    with pytest.raises(InvalidConfiguration, match="cannot be used"):
        await Kubeconfig(str(path)).client()


@pytest.mark.anyio
async def test_missing_kubeconfig_and_context_are_a_matter_of_configuration(tmp_path: Path) -> None:
    path = tmp_path / "config"
    write_kubeconfig(path, "http://c", "secret-token")

    with pytest.raises(InvalidConfiguration):
        await Kubeconfig(str(tmp_path / "none")).client()
    with pytest.raises(InvalidConfiguration) as raised:
        await Kubeconfig(str(path), "nowhere").client()
    assert "secret-token" not in str(raised.value)


@pytest.mark.anyio
async def test_outside_of_a_cluster_there_is_no_service_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)

    with pytest.raises(InvalidConfiguration, match="runs in no cluster"):
        await InCluster().client()


@pytest.mark.anyio
@pytest.mark.parametrize("known", [True, False])
async def test_server_has_to_prove_itself_by_the_clusters_authority(tmp_path: Path, known: bool) -> None:
    own, key = certificate()
    (tmp_path / "own.pem").write_bytes(own + key)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "own.pem")
    async with running_server(tls) as server:
        given = base64.b64encode(own).decode() if known else authority()
        access = EksCluster("leaderboard-20", f"https://127.0.0.1:{server.port}", given, "us-west-2", session)
        async with KubernetesApi(access) as api:
            if known:
                assert (await api.get(jobs_path("leaderboard")))["items"] == []
            else:
                with pytest.raises(InvalidConfiguration, match="certificate is not valid"):
                    await api.get(jobs_path("leaderboard"))
