"""The cluster behind its API: the Job controller, a scheduler, nodes that refuse, lose and drain pods."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from k8s_jobs.api import Json
from k8s_jobs.cluster_watch import JOB_LABEL
from k8s_jobs.manifest import FINAL_EXIT_CODES
from tests.simulation.calls import Calls
from tests.simulation.kubernetes_server import KubernetesServer

NODES = 12  # with one GPU each
GRACE_SECONDS = 30.0
Start = Callable[[Json, Callable[[int], None]], Callable[[bool], None]]


@dataclass
class Cluster:
    """`start(pod, ended)` begins a pod's containers and calls `ended` with the pair's exit code.

    It returns what stops them: at once, or (`True`) by a signal, as the kubelet does.
    """

    calls: Calls
    server: KubernetesServer
    start: Start
    failed: dict[str, int] = field(default_factory=dict)  # uid of a Job -> pods that count
    _stops: dict[str, Callable[[bool], None]] = field(default_factory=dict)  # by the pod's uid
    _names: int = 0
    refusing: dict[str, float] = field(default_factory=dict)  # node -> until when it refuses
    pods_refused: int = 0
    lost_pods: int = 0

    def __post_init__(self) -> None:
        self.server.on_change.append(self._changed)
        self.server.stopped = self._stop_pod

    def _now(self) -> float:
        return self.calls.hub.now

    def _changed(self, kind: str, event: str, item: Json) -> None:
        if kind == "jobs" and event == "ADDED" and not item["spec"].get("suspend"):
            item["status"] = {"startTime": self.server.time(), "conditions": []}
            self.calls.hub.after(self.calls.chance.random.uniform(0.1, 2), self._new_pod, item["metadata"]["uid"])
            self.server.put("jobs", item)
            deadline = item["spec"]["activeDeadlineSeconds"]
            self.calls.hub.after(deadline, self._deadline, item["metadata"]["uid"])
        if kind == "jobs" and item["metadata"].get("deletionTimestamp") and event == "MODIFIED":
            for pod in self._pods(item["metadata"]["uid"]):
                self.calls.hub.after(0.1, self.server.delete, "pods", pod)
            self.calls.hub.after(0.3, self._collect, item["metadata"]["uid"])
        if kind == "pods" and event == "DELETED":
            self._end_containers(item, gracefully=False)
            owner = item["metadata"]["ownerReferences"][0]["uid"]
            self.calls.hub.after(0.1, self._collect, owner)
            if (item["status"].get("phase")) not in ("Failed", "Succeeded"):
                self.calls.hub.after(0.2, self._replace, owner, False)

    def _collect(self, uid: str) -> None:
        """A Job in deletion goes once no pod of it is left."""
        job = self._job(uid)
        if job and job["metadata"].get("deletionTimestamp") and not self._pods(uid):
            self.server.drop("jobs", job["metadata"]["name"])

    def _job(self, uid: str) -> Json | None:
        return next((job for job in self.server.objects["jobs"].values() if job["metadata"]["uid"] == uid), None)

    def _pods(self, uid: str) -> list[Json]:
        pods = list(self.server.objects["pods"].values())
        return [pod for pod in pods if pod["metadata"]["ownerReferences"][0]["uid"] == uid]

    def _active(self, uid: str) -> Json | None:
        """The Job, unless it has ended or goes."""
        job = self._job(uid)
        if job is None or job["metadata"].get("deletionTimestamp") or job["status"]["conditions"]:
            return None
        return job

    def _new_pod(self, uid: str) -> None:
        job = self._active(uid)
        if job is None or any(pod["status"]["phase"] in ("Pending", "Running") for pod in self._pods(uid)):
            return
        self._names += 1
        name = job["metadata"]["name"]
        template = job["spec"]["template"]
        containers = template["spec"]
        pod: Json = {
            "metadata": {
                "name": f"{name}-{self._names}",
                "labels": {**template["metadata"]["labels"], JOB_LABEL: name},
                "ownerReferences": [{"kind": "Job", "name": name, "uid": uid}],
            },
            "spec": {
                "affinity": containers.get("affinity") or {},
                "initContainers": [{"name": each["name"]} for each in containers["initContainers"]],
                "containers": [{"name": each["name"]} for each in containers["containers"]],
            },
            "status": {"phase": "Pending", "conditions": []},
        }
        self.server.put("pods", pod)
        self.calls.hub.after(self.calls.chance.random.uniform(0.1, 5), self._schedule, pod)

    def _alive(self, pod: Json) -> bool:
        return self.server.objects["pods"].get(pod["metadata"]["name"]) is pod

    def _schedule(self, pod: Json) -> None:
        if not self._alive(pod) or pod["metadata"].get("deletionTimestamp"):
            return
        excluded, avoided = _excluded(pod)
        taken = {
            each["spec"].get("nodeName")
            for each in self.server.objects["pods"].values()
            if each["status"]["phase"] in ("Pending", "Running")
        }
        free = [f"node-{n}" for n in range(NODES) if f"node-{n}" not in taken | excluded]
        if not free:
            self.calls.hub.after(15, self._schedule, pod)
            return
        # The scheduler likes an empty node, and the one that has just refused is empty.
        preferred = [node for node in free if node not in avoided]
        refusing = [node for node in (preferred or free) if self.refusing.get(node, 0) > self._now()]
        choice = self.calls.chance.random.choice(refusing or preferred or free)
        pod["spec"]["nodeName"] = choice
        pod["status"]["conditions"] = [_condition("PodScheduled", self.server.time())]
        self._admit(pod, choice)

    def _admit(self, pod: Json, node: str) -> None:
        chance = self.calls.chance
        if self.refusing.get(node, 0) <= self._now() and chance.strikes("pod refused", node, self._now()):
            self.refusing[node] = self._now() + chance.random.uniform(20, 600)
        if self.refusing.get(node, 0) > self._now():
            self.pods_refused += 1
            self.calls.history.note(f"{node} refuses {pod['metadata']['name']}")
            pod["status"] |= {"phase": "Failed", "reason": "UnexpectedAdmissionError", "message": "no healthy GPU"}
            self.server.put("pods", pod)
            self.calls.hub.after(0.5, self._pod_failed, pod, True)
            return
        self.server.put("pods", pod)
        self.calls.hub.after(chance.random.uniform(1, 20), self._run, pod)

    def _run(self, pod: Json) -> None:
        if not self._alive(pod) or pod["metadata"].get("deletionTimestamp") or pod["status"]["phase"] != "Pending":
            return
        at = self.server.time()
        pod["status"]["phase"] = "Running"
        running = {"running": {"startedAt": at}}
        pod["status"]["containerStatuses"] = [
            {"name": each["name"], "state": running, "imageID": _image(each["name"])}
            for each in pod["spec"]["containers"]
        ]
        self.server.put("pods", pod)
        uid = pod["metadata"]["uid"]
        self._stops[uid] = self.start(pod, lambda code: self._ended(pod, code))
        chance = self.calls.chance
        if chance.strikes("pod lost", pod["metadata"]["name"].rpartition("-")[0], self._now()):
            self.calls.hub.after(chance.random.uniform(1, 900), self._lose, pod)

    def _ended(self, pod: Json, code: int) -> None:
        """The containers have ended by themselves."""
        self._stops.pop(pod["metadata"]["uid"], None)
        if not self._alive(pod):
            return
        at = self.server.time()
        pod["status"]["phase"] = "Failed" if code else "Succeeded"
        ended = {
            "terminated": {
                "exitCode": code,
                "startedAt": at,
                "finishedAt": at,
                "reason": "Error" if code else "Completed",
            }
        }
        for each in pod["status"]["containerStatuses"]:
            each["state"] = ended
        self.server.put("pods", pod)
        if pod["metadata"].get("deletionTimestamp"):
            self.server.drop("pods", pod["metadata"]["name"])
        if code:
            self.calls.hub.after(0.5, self._pod_failed, pod, True)
        else:
            self.calls.hub.after(0.5, self._complete, pod)

    def _complete(self, pod: Json) -> None:
        if job := self._active(pod["metadata"]["ownerReferences"][0]["uid"]):
            self._condition(job, "Complete", "CompletionsReached", "")

    def _condition(self, job: Json, kind: str, reason: str, message: str) -> None:
        job["status"]["conditions"].append(_condition(kind, self.server.time(), reason, message))
        self.server.put("jobs", job)

    def _pod_failed(self, pod: Json, counts: bool) -> None:
        """The Job controller, by the Job's podFailurePolicy and backoffLimit."""
        uid = pod["metadata"]["ownerReferences"][0]["uid"]
        job = self._active(uid)
        if job is None:
            return
        code = _exit_code(pod)
        if code in FINAL_EXIT_CODES:
            name = pod["metadata"]["name"]
            message = (
                f"Container simulator for pod leaderboard/{name} failed with exit code {code} matching FailJob rule"
            )
            self._condition(job, "Failed", "PodFailurePolicy", message)
            return
        self._replace(uid, counts)

    def _replace(self, uid: str, counts: bool) -> None:
        job = self._active(uid)
        if job is None:
            return
        failed = self.failed[uid] = self.failed.get(uid, 0) + counts
        job["status"]["failed"] = failed
        if failed > job["spec"]["backoffLimit"]:
            self._condition(job, "Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
            return
        self.server.put("jobs", job)
        self.calls.hub.after(min(10.0 * 2 ** max(0, failed - 1), 360.0), self._new_pod, uid)

    def _lose(self, pod: Json) -> None:
        """The node goes, is drained, or loses a process of the pod; or somebody deletes the pod."""
        if not self._alive(pod) or pod["status"]["phase"] != "Running" or pod["metadata"].get("deletionTimestamp"):
            return
        self.lost_pods += 1
        how = self.calls.chance.random.choice(("drained", "killed", "deleted"))
        self.calls.history.note(f"pod {pod['metadata']['name']} is {how}")
        if how == "deleted":
            self.server.delete("pods", pod)
            return
        self._end_containers(pod, gracefully=False)
        if how == "killed":
            self._ended(pod, 137)
            return
        pod["status"]["phase"] = "Failed"
        pod["status"]["conditions"].append(_condition("DisruptionTarget", self.server.time(), "DeletionByTaintManager"))
        self.server.put("pods", pod)
        self.calls.hub.after(0.5, self._pod_failed, pod, False)

    def _stop_pod(self, pod: Json) -> None:
        """SIGTERM now, SIGKILL after the grace period, and then the pod is gone."""
        if pod["metadata"]["uid"] not in self._stops:
            self.calls.hub.after(0.2, self.server.drop, "pods", pod["metadata"]["name"])
            return
        self._end_containers(pod, gracefully=True)
        self.calls.hub.after(GRACE_SECONDS, self._gone, pod)

    def _gone(self, pod: Json) -> None:
        if self._alive(pod):
            self.server.drop("pods", pod["metadata"]["name"])

    def _end_containers(self, pod: Json, gracefully: bool) -> None:
        stop = self._stops.get(pod["metadata"]["uid"])
        if stop:
            stop(gracefully)
            if not gracefully:
                self._stops.pop(pod["metadata"]["uid"], None)

    def _deadline(self, uid: str) -> None:
        if job := self._active(uid):
            self._condition(job, "Failed", "DeadlineExceeded", "Job was active longer than specified deadline")
            for pod in self._pods(uid):
                self.server.delete("pods", pod)


def _condition(kind: str, at: str, reason: str = "", message: str = "") -> Json:
    return {"type": kind, "status": "True", "reason": reason, "message": message, "lastTransitionTime": at}


def _image(container: str) -> str:
    return f"demo/{container}@sha256:{'0' * 63}{len(container) % 10}"


def _exit_code(pod: Json) -> int | None:
    statuses: list[Any] = pod["status"].get("containerStatuses") or []
    ends = [each["state"].get("terminated") for each in statuses if each["name"] == "simulator"]
    return ends[0]["exitCode"] if ends and ends[0] else None


def _excluded(pod: Json) -> tuple[set[str], set[str]]:
    """The nodes that the pod may not, and had rather not, run on."""
    node = (pod["spec"]["affinity"] or {}).get("nodeAffinity") or {}
    required = node.get("requiredDuringSchedulingIgnoredDuringExecution") or {"nodeSelectorTerms": []}
    fields = [field for term in required["nodeSelectorTerms"] for field in term.get("matchFields", [])]
    preferred = node.get("preferredDuringSchedulingIgnoredDuringExecution") or []
    wishes = [field for each in preferred for field in each["preference"].get("matchFields", [])]
    return {name for each in fields for name in each["values"]}, {name for each in wishes for name in each["values"]}
