"""The block that says how one leaderboard is simulated: which evaluator, which routes, which machines, which limits."""

import os
import sys
from pathlib import Path
from typing import Literal

from prefect.blocks.core import Block
from prefect_aws import AwsCredentials
from pydantic import BaseModel, ConfigDict, Field

import shard_pod
from blocks.artifact_bucket import read_location
from blocks.aws_client import aws_client
from blocks.batch_compute import BatchCompute
from blocks.kubernetes_compute import KubernetesCompute
from blocks.schema_once import SchemaOnce
from blocks.shard_logs import ShardLogs, append_lines, shard_logs
from evaluation import storage_keys
from evaluation.errors import InvalidCheckpoint, InvalidConfiguration
from evaluation.lifecycle.gpu_budget import GpuBudget
from evaluation.lifecycle.team_hints import TeamRules
from evaluation.pair.usage import Price
from evaluation.ports import JobBackend
from evaluation.pulling.durations import RouteSize
from evaluation.results.checkpoint_reading import parse_checkpoint
from evaluation.routes import parse_route_xml, route_lengths, scenario_counts
from evaluation.shards import Budgets, Plan, RoutePlan, ShardJob, plan_routes
from evaluation.submission.model import LeaderboardVersion, Phase
from evaluation.verification.drives import DriveLimits
from evaluation.verification.figures import KnownLengths
from evaluation.verification.scoring import Scoring, scoring_of
from evaluation.verification.verify import Expectations
from local_jobs.backend import LocalJobBackend


class LocalCompute(BaseModel):
    """Shards as processes of this machine, driven by the stand-ins: the embedded default."""

    model_config = ConfigDict(extra="forbid")  # a setting that is misspelt, or that infrastructure decides, is said

    kind: Literal["local"] = "local"
    workdir: Path = Field(description="Folder for the shards' run directories.")
    route_seconds: float = Field(default=1.0, gt=0, description="How long a stand-in drives one route, in seconds.")
    seed: int = Field(default=0, description="Seed of the stand-ins' scores.")
    gpu_slots: int = Field(
        default=8, ge=1, description="How many pairs drive at once in this workdir, of all submissions together."
    )

    def preflight(self, _credentials: AwsCredentials) -> str:
        """Where the shards run, in words; raises InvalidConfiguration where this user may not write there."""
        folder = self.workdir.absolute()
        nearest = next(place for place in (folder, *folder.parents) if place.exists())
        if not (nearest.is_dir() and os.access(nearest, os.W_OK | os.X_OK)):
            raise InvalidConfiguration(
                f"Shards cannot run in {folder}",
                f"{nearest} is not a folder that this user may write to",
                "Correct its owner, or workdir in the clusters' file, then run `leaderboard setup`.",
            )
        return f"processes of the worker's machine, in {folder}"


class LeaderboardCluster(SchemaOnce, Block):
    """One cluster (leaderboard-10, leaderboard-20): its evaluator's version, its routes, its machines."""

    _block_type_name = "Compute Cluster"
    _block_type_slug = "compute-cluster"
    _description = "How one leaderboard is simulated."

    cluster: str = Field(description="The phase codename up to its last hyphen, e.g. leaderboard-20.")
    leaderboard_version: LeaderboardVersion = Field(description="1.0 (OpenGL) or 2.0 (Vulkan; also 2.1).")
    compute: LocalCompute | KubernetesCompute | BatchCompute = Field(
        discriminator="kind", description="What runs the shards."
    )
    credentials: AwsCredentials = Field(
        description="AWS Credentials block: region, and keys where no role gives access."
    )
    bucket: str = Field(description="S3 bucket of the submissions' folders.")
    log_group: str = Field(default="", description="CloudWatch log group of the shards' output; none if empty.")
    routes: str = Field(description="The route XML: s3://bucket/key, or a file's path.")
    repetitions: int = Field(default=1, ge=1, description="How often each route is driven.")
    shards: int = Field(default=4, ge=1, description="Simulator-agent pairs per submission, one GPU each.")
    route_plan: RoutePlan = Field(
        default=RoutePlan.FIXED,
        description="fixed: each pair has its part of the routes. pulled: a pair takes the next ones, the longest "
        "first, when it has driven its last.",
    )
    image_registries: list[str] = Field(description="Registries, or registry/path prefixes, that images may come from.")
    agent_restarts: int = Field(default=4, ge=0, description="Restarts of a pair charged to the agent.")
    infrastructure_restarts: int = Field(
        default=8, ge=0, description="Restarts of a pair that no budget is charged for."
    )
    simulator_crashes_per_route: int = Field(default=3, ge=1, description="Then the route is quarantined, scored 0.")
    hang_seconds: float = Field(default=800, gt=0, description="This long without new output is a hang, in seconds.")
    shard_deadline_seconds: float = Field(default=48 * 3600, gt=0, description="A shard's maximum, in seconds.")
    cancel_check_seconds: float = Field(
        default=30, gt=0, description="Longest time between two lists of EvalAI, which show cancellations."
    )
    partial_result_seconds: float | None = Field(
        default=None,
        gt=0,
        description="How often partial results are published; never if unset. At EvalAI the first one frees the "
        "team's slot of max_concurrent_submissions_allowed, so that the team can have more runs at once than that.",
    )
    max_attempts: int = Field(
        default=10, ge=1, description="How often one submission is evaluated, the first time and its resumes together."
    )

    team_gpu_hours_per_month: float | None = Field(
        default=None,
        ge=0,
        description="GPU hours that a team may use here in a calendar month (UTC); no limit if unset.",
    )
    phase_gpu_hours_per_month: float | None = Field(
        default=None, ge=0, description="The same for each phase of this cluster."
    )
    gpu_hour_price: float | None = Field(
        default=None, ge=0, description="What a GPU hour costs here, for `leaderboard cost` and the operators' reports."
    )
    currency: str = Field(default="USD", description="Of gpu_hour_price.")

    scoring: Literal["1.0", "2.0", "2.1"] | None = Field(
        default=None, description="How the evaluator scores, where that is not as leaderboard_version says: 2.1."
    )
    penalty_weights: dict[str, float] = Field(
        default={}, description="Infractions (keys of a record) that a fork of the evaluator weighs differently."
    )
    sensor_limits: dict[str, int] = Field(
        default={}, description="How many of a sensor (carla_camera) a fork of the evaluator allows."
    )
    reference_result: str = Field(
        default="",
        description="The host's own result of the same routes, s3://bucket/key or a file's path: a route_length that "
        "differs from its is held. Without it 2.x is compared with the route file only, within wide limits.",
    )
    unconfirmed_crashes: int = Field(
        default=0,
        ge=0,
        description="How many routes a submission may drive again after its evaluator reported a crash of a simulator "
        "that was alive, before its result is held.",
    )

    @property
    def our_images(self) -> tuple[str, ...]:
        """Simulator, evaluator and supervisor, where this block names them; on Batch the job definition does."""
        if not isinstance(self.compute, KubernetesCompute):
            return ()
        return self.compute.simulator_image, self.compute.leaderboard_image, self.compute.logcopy_image

    def _rules(self) -> Scoring:
        return scoring_of(self.leaderboard_version, self.scoring).changed(self.penalty_weights, self.sensor_limits)

    def team_rules(self, track: str) -> TeamRules:
        """What a team is told when its agent has broken them."""
        return TeamRules(track, self.hang_seconds, self._rules().sensors_of(track))

    def expectations(self, track: str) -> Expectations:
        """What a result is compared with. Raises InvalidConfiguration or ServiceUnavailable."""
        scoring = self._rules()
        if scoring.version is not self.leaderboard_version:
            raise InvalidConfiguration(
                f"The cluster {self.cluster} scores as {self.scoring}, but runs {self.leaderboard_version.value}",
                remedy="Correct `scoring` in the clusters' file, then run `leaderboard setup`.",
            )
        lengths = KnownLengths(
            route_lengths(read_location(self.routes, self.credentials), self.routes), self._driven_lengths()
        )
        limits = DriveLimits(not isinstance(self.compute, LocalCompute), self.unconfirmed_crashes)
        return Expectations(scoring, track, lengths, limits)

    def _driven_lengths(self) -> dict[int, float]:
        if not self.reference_result:
            return {}
        body = read_location(self.reference_result, self.credentials)
        try:
            reference = parse_checkpoint(body, self.reference_result, self.leaderboard_version)
        except InvalidCheckpoint as error:
            raise InvalidConfiguration("The cluster's reference_result cannot be read", str(error)) from error
        pairs = zip(reference.runs, reference.records, strict=True)
        return {run.route: record["meta"]["route_length"] for run, record in pairs if record["meta"]["route_length"]}

    @property
    def gpu_budget(self) -> GpuBudget:
        return GpuBudget(self.team_gpu_hours_per_month, self.phase_gpu_hours_per_month)

    @property
    def price(self) -> Price | None:
        """None where none is set."""
        return None if self.gpu_hour_price is None else Price(self.gpu_hour_price, self.currency)

    @property
    def budgets(self) -> Budgets:
        return Budgets(self.agent_restarts, self.infrastructure_restarts, self.simulator_crashes_per_route)

    def read_routes(self) -> tuple[int, ...]:
        """The ids of the routes that every submission drives; raises InvalidConfiguration or ServiceUnavailable."""
        return parse_route_xml(self.read_route_file(), self.routes)

    def read_route_file(self) -> bytes:
        """The file of the routes that every submission drives; raises InvalidConfiguration or ServiceUnavailable."""
        return read_location(self.routes, self.credentials)

    def plan(self, route_file: bytes) -> Plan:
        """The shards of a new submission over the routes of this file; raises InvalidConfiguration."""
        return plan_routes(parse_route_xml(route_file, self.routes), self.shards, self.repetitions, self.route_plan)

    def route_sizes(self, route_file: bytes) -> dict[int, RouteSize]:
        """What the file says of how long its routes take; raises InvalidConfiguration."""
        scenarios = scenario_counts(route_file, self.routes)
        lengths = route_lengths(route_file, self.routes)
        return {route: RouteSize(metres, scenarios[route]) for route, metres in lengths.items()}

    def shard_jobs(
        self,
        submission: int,
        attempt: int,
        phase: Phase,
        team_name: str,
        image: str,
        plan: Plan,
    ) -> tuple[ShardJob, ...]:
        """The planned shards of an attempt as Jobs on this cluster."""
        return tuple(
            ShardJob(
                submission=submission,
                attempt=attempt,
                shard=shard,
                phase=phase,
                version=self.leaderboard_version,
                repetitions=plan.repetitions,
                image=image,
                team_name=team_name,
                bucket=self.bucket,
                budgets=self.budgets,
                hang_seconds=self.hang_seconds,
                deadline_seconds=self.shard_deadline_seconds,
            )
            for shard in plan.shards
        )

    def backend(self) -> JobBackend:
        """What runs this cluster's shards; raises InvalidConfiguration that names a wrong setting."""
        if isinstance(self.compute, KubernetesCompute | BatchCompute):
            return self.compute.backend(self.routes, self.credentials, self.log_group)
        return LocalJobBackend(
            workdir=self.compute.workdir,
            routes=self.routes,
            storage=_storage_environment(self.credentials),
            scripts=Path(shard_pod.__file__).parent,
            supervisor=[sys.executable, "-m", "shard_pod.supervisor"],
            route_seconds=self.compute.route_seconds,
            seed=self.compute.seed,
            gpu_slots=self.compute.gpu_slots,
            log_group=self.log_group,
        )

    def logs_of(self, submission: int, attempt: int) -> ShardLogs | None:
        """Where a host finds the output of all shards of an attempt; None where it is sent nowhere."""
        if not self.log_group:
            return None
        streams = storage_keys.log_streams(submission, attempt)
        region, endpoint = self.credentials.region_name, self.credentials.aws_client_parameters.endpoint_url
        if not region or endpoint:  # another's AWS: it has no console
            return ShardLogs(self.log_group, streams, url="")
        return shard_logs(self.log_group, streams, region)

    def append_log(self, stream: str, text: str) -> None:
        """Append lines to a stream of the log group, if there is one; raises what aws_api.errors says. Blocks."""
        if self.log_group:
            append_lines(aws_client(self.credentials, "logs"), self.log_group, stream, text)


def _storage_environment(credentials: AwsCredentials) -> dict[str, str]:
    """boto3's variables for a process of ours that has no Prefect; the machine's own credentials if none are given."""
    keys = credentials.get_boto3_session().get_credentials()
    endpoint = credentials.aws_client_parameters.endpoint_url
    values = {
        "AWS_DEFAULT_REGION": credentials.region_name,
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": keys.access_key if keys else None,
        "AWS_SECRET_ACCESS_KEY": keys.secret_key if keys else None,
        "AWS_SESSION_TOKEN": keys.token if keys else None,
    }
    return {name: value for name, value in values.items() if value}
