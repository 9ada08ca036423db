"""The backend on Kubernetes against a server with every known failure: create, adopt, remove, logs."""

import asyncio
from typing import Any

import pytest

from evaluation.errors import (
    CleanupIncomplete,
    DeadlineExceeded,
    InvalidConfiguration,
    RequestRefused,
    ServiceUnavailable,
)
from k8s_jobs.api import RequestLimits
from k8s_jobs.backend import KubernetesJobBackend
from k8s_jobs.manifest import SHARD_LABELS, job_manifest
from k8s_jobs.removal import RemovalLimits
from tests.contract.kubernetes_server import KubernetesServer, once, status
from tests.kubernetes_objects import PlainAccess, cluster_spec, pod_object, quick_limits, shard_job, shard_jobs

pytestmark = pytest.mark.anyio
LABELS = SHARD_LABELS | {"leaderboard/submission": "7", "leaderboard/attempt": "1"}


def backend_on(server: KubernetesServer, *tokens: str, **limits: Any) -> KubernetesJobBackend:
    return KubernetesJobBackend(PlainAccess(server.url, list(tokens)), cluster_spec(), quick_limits(**limits))


def add_pod(server: KubernetesServer, job_name: str, name: str, **changes: Any) -> None:
    uid = server.objects["jobs"][job_name]["metadata"]["uid"]
    pod = pod_object(job=job_name, name=name, job_uid=uid, **changes)
    pod["metadata"]["labels"] |= LABELS
    server.put("pods", pod)


async def test_four_jobs_and_their_scripts_are_created(server: KubernetesServer) -> None:
    await backend_on(server).ensure(shard_jobs())

    assert sorted(server.objects["jobs"]) == [f"submission-7-attempt-1-shard-{index}" for index in range(4)]
    (scripts,) = server.objects["configmaps"].values()
    assert scripts["immutable"] is True


async def test_second_backend_adopts_and_never_creates_a_fifth(server: KubernetesServer) -> None:
    await backend_on(server).ensure(shard_jobs())
    before = {name: job["metadata"]["uid"] for name, job in server.objects["jobs"].items()}

    await asyncio.gather(backend_on(server).ensure(shard_jobs()), backend_on(server).ensure(shard_jobs()))

    assert {name: job["metadata"]["uid"] for name, job in server.objects["jobs"].items()} == before


async def test_lost_answer_to_a_creation_creates_no_second_job(server: KubernetesServer) -> None:
    job = shard_job()

    def create_and_fail(request: Any) -> Any:
        if request.method == "POST" and request.path.endswith("/jobs"):
            server.put("jobs", job_manifest(job, cluster_spec()))
            return status(504, "Timeout", "request did not complete within the allotted timeout")
        return None

    server.troubles.append(create_and_fail)
    await backend_on(server).ensure([job])

    assert list(server.objects["jobs"]) == [job.name]


async def test_job_of_somebody_else_is_not_adopted(server: KubernetesServer) -> None:
    server.put("jobs", {"metadata": {"name": shard_job().name, "labels": {"app": "cronjob"}}})

    with pytest.raises(RequestRefused, match="is not ours to adopt: its label"):
        await backend_on(server).ensure(shard_jobs())


async def test_namesake_in_deletion_is_waited_for_and_replaced(server: KubernetesServer) -> None:
    job = shard_job()
    await backend_on(server).ensure([job])
    old = server.objects["jobs"][job.name]
    old["metadata"]["deletionTimestamp"] = "2026-11-20T10:00:00Z"
    asyncio.get_running_loop().call_later(0.3, server.drop, "jobs", job.name)

    await backend_on(server).ensure([job])

    assert server.objects["jobs"][job.name]["metadata"]["uid"] != old["metadata"]["uid"]


async def test_wait_for_a_namesake_has_an_end(server: KubernetesServer) -> None:
    manifest = job_manifest(shard_job(), cluster_spec())
    manifest["metadata"]["deletionTimestamp"] = "2026-11-20T10:00:00Z"
    server.put("jobs", manifest)

    with pytest.raises(DeadlineExceeded, match="is still being deleted"):
        await backend_on(server, namesake_seconds=0.2).ensure([shard_job()])


@pytest.mark.parametrize("code", [429, 500, 503])
async def test_passing_errors_are_tried_again(server: KubernetesServer, code: int) -> None:
    server.troubles += [once("POST", "/jobs", status(code, "Busy", "later", {"Retry-After": "0"})) for _ in range(3)]

    await backend_on(server).ensure(shard_jobs())

    assert len(server.objects["jobs"]) == 4
    assert server.count("POST", "/jobs") == 7


async def test_tries_have_an_end(server: KubernetesServer) -> None:
    server.troubles += [once("POST", "/jobs", status(500, "Internal", "etcd is gone")) for _ in range(4)]

    with pytest.raises(ServiceUnavailable, match="500 Internal: etcd is gone"):
        await backend_on(server).ensure([shard_job()])


async def test_server_that_does_not_answer_is_given_up(server: KubernetesServer) -> None:
    backend = backend_on(server)
    await server.stop()

    with pytest.raises(ServiceUnavailable, match="cannot be reached"):
        await backend.ensure([shard_job()])


async def test_slow_answers_are_given_up(server: KubernetesServer) -> None:
    server.delay_seconds = 1.0
    impatient = RequestLimits(answer_seconds=0.1, attempts=2, retry_wait_seconds=0.01)

    with pytest.raises(ServiceUnavailable, match="does not answer in time"):
        await backend_on(server, requests=impatient).remove(7, 1)


async def test_401_fetches_a_new_token(server: KubernetesServer) -> None:
    server.accepted_token = "new"

    await backend_on(server, "old", "new").ensure(shard_jobs())

    assert len(server.objects["jobs"]) == 4
    assert set(server.tokens_seen) == {"Bearer old", "Bearer new"}


async def test_401_for_good_is_a_matter_of_configuration_and_tells_no_token(server: KubernetesServer) -> None:
    server.accepted_token = "right"

    with pytest.raises(InvalidConfiguration, match="does not accept our credentials") as raised:
        await backend_on(server, "wrong-secret").ensure([shard_job()])

    assert "wrong-secret" not in repr(raised.value) + str(raised.value) + str(raised.value.__cause__)


async def test_missing_rights_are_a_matter_of_configuration(server: KubernetesServer) -> None:
    words = 'jobs.batch is forbidden: User "x" cannot create resource "jobs"'
    server.troubles.append(once("POST", "/jobs", status(403, "Forbidden", words)))

    with pytest.raises(InvalidConfiguration, match="cannot create resource"):
        await backend_on(server).ensure([shard_job()])


async def test_used_up_quota_is_a_passing_error(server: KubernetesServer) -> None:
    words = 'jobs.batch "submission-7" is forbidden: exceeded quota: shards, requested: count/jobs.batch=1'
    server.troubles.append(once("POST", "/jobs", status(403, "Forbidden", words)))

    await backend_on(server).ensure([shard_job()])

    assert len(server.objects["jobs"]) == 1


async def test_invalid_manifest_is_refused_with_the_servers_words(server: KubernetesServer) -> None:
    server.troubles.append(once("POST", "/jobs", status(422, "Invalid", "spec.template: Required value")))

    with pytest.raises(RequestRefused, match="Required value"):
        await backend_on(server).ensure([shard_job()])


async def test_removal_takes_the_attempts_jobs_and_pods_and_nothing_else(server: KubernetesServer) -> None:
    backend = backend_on(server)
    await backend.ensure([*shard_jobs(7, 1), *shard_jobs(7, 2), *shard_jobs(8, 1)])
    add_pod(server, "submission-7-attempt-1-shard-0", "pod-a")

    await backend.remove(7, 1)

    assert len(server.objects["jobs"]) == 8
    assert not [name for name in server.objects["jobs"] if name.startswith("submission-7-attempt-1-")]
    assert server.objects["pods"] == {}


async def test_removing_nothing_is_fine(server: KubernetesServer) -> None:
    await backend_on(server).remove(7, 1)

    assert server.count("DELETE", "") == 0


async def test_pod_without_a_job_is_removed_too(server: KubernetesServer) -> None:
    orphan = pod_object(name="orphan")
    orphan["metadata"]["labels"] |= LABELS
    server.put("pods", orphan)

    await backend_on(server).remove(7, 1)

    assert server.objects["pods"] == {}


async def test_removal_returns_after_the_last_pod_even_without_a_job(server: KubernetesServer) -> None:
    orphan = pod_object(name="orphan")
    orphan["metadata"]["labels"] |= LABELS
    server.put("pods", orphan)
    server.stuck.add("orphan")
    asyncio.get_running_loop().call_later(0.3, server.drop, "pods", "orphan")

    await backend_on(server, removal=RemovalLimits(60.0, 1e9, 0.02, 0.1)).remove(7, 1)

    assert server.objects["pods"] == {}


async def test_pod_on_a_dead_node_is_taken_off_the_books(server: KubernetesServer) -> None:
    backend = backend_on(server)
    await backend.ensure(shard_jobs())
    add_pod(server, "submission-7-attempt-1-shard-2", "pod-lost")
    server.stuck |= {"submission-7-attempt-1-shard-2", "pod-lost"}

    await backend.remove(7, 1)

    assert server.objects["jobs"] == server.objects["pods"] == {}


async def test_removal_that_does_not_end_names_what_is_left(server: KubernetesServer) -> None:
    backend = backend_on(server, removal=RemovalLimits(0.3, 1e9, 0.02, 0.1))
    await backend.ensure(shard_jobs())
    server.stuck.add("submission-7-attempt-1-shard-2")

    with pytest.raises(CleanupIncomplete, match="job/submission-7-attempt-1-shard-2"):
        await backend.remove(7, 1)


async def test_logs_of_all_containers_of_the_newest_pod_and_of_the_failed_one(server: KubernetesServer) -> None:
    backend, job = backend_on(server), shard_job()
    await backend.ensure([job])
    add_pod(server, job.name, "old", phase="Failed", age=900)
    add_pod(server, job.name, "new")
    server.logs = {("new", "agent"): "now\n", ("old", "agent"): "then\n", ("new", "supervisor"): "copied\n"}

    logs = await backend.logs(job, 40)

    assert logs["agent"] == "now\n"
    assert logs["agent-previous"] == "then\n"
    assert logs["supervisor"] == "copied\n"
    assert logs["simulator"] == ""  # has not started


LOGS = {
    "Latin-1": ("Erreur: mémoire\n".encode("latin-1"), "Erreur: m\ufffdmoire\n"),
    "half an emoji": (b"car \xf0\x9f", "car \ufffd"),
    "a surrogate": (b"\xed\xa0\x80", "\ufffd\ufffd\ufffd"),
    "UTF-16": (b"\xff\xfeb\x00", "\ufffd\ufffdb\ufffd"),
    "NUL": (b"a\x00b", "a\ufffdb"),
}


@pytest.mark.parametrize("kind", LOGS)
async def test_bytes_that_are_no_utf_8_are_replaced_in_an_agents_log(server: KubernetesServer, kind: str) -> None:
    backend, job = backend_on(server), shard_job()
    await backend.ensure([job])
    add_pod(server, job.name, "new", phase="Failed")
    written, shown = LOGS[kind]
    server.logs = {("new", "agent"): written}

    logs = await backend.logs(job, 40)

    assert logs["agent"] == shown


async def test_all_bytes_there_are_and_a_line_without_an_end_kill_nothing(server: KubernetesServer) -> None:
    backend, job = backend_on(server), shard_job()
    await backend.ensure([job])
    add_pod(server, job.name, "new", phase="Failed")
    server.logs = {("new", "agent"): bytes(range(256)), ("new", "simulator"): b"x" * 8_000_000}

    logs = await backend.logs(job, 40)

    logs["agent"].encode("utf-8")
    assert len(logs["simulator"]) == 1024 * 1024


async def test_logs_of_a_shard_without_a_pod_are_empty(server: KubernetesServer) -> None:
    assert await backend_on(server).logs(shard_job(), 40) == {}


async def test_requests_are_counted(server: KubernetesServer) -> None:
    backend = backend_on(server)

    await backend.ensure(shard_jobs())

    assert backend.requests == {"POST": 5, "GET": 1}
