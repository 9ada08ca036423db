"""How a flow run continues an evaluation that another run began."""

from pydantic import BaseModel, ConfigDict, Field


class Takeover(BaseModel):
    """A run goes on with what an earlier one began: whose claim it takes over, the how manieth epoch it is, and why."""

    model_config = ConfigDict(frozen=True)

    owner: str  # the id of the first run, which made the claim
    epoch: int = Field(ge=1)
    crashes: int = Field(default=0, ge=0)  # how many starts died without an outage that explains it
    stopped: bool = False  # a host stopped the run in Prefect: end the evaluation instead of going on

    @classmethod
    def first(cls, run: str) -> "Takeover":
        """Where a run stands that goes on with nothing."""
        return cls(owner=run, epoch=1)

    def after_crash(self) -> "Takeover":
        return self.model_copy(update={"epoch": self.epoch + 1, "crashes": self.crashes + 1})

    def after_cancellation(self) -> "Takeover":
        return self.model_copy(update={"epoch": self.epoch + 1, "stopped": True})

    @property
    def key(self) -> str:
        """The same for everybody who wants to epoch this very successor, so that there is one."""
        return f"{self.owner}-epoch-{self.epoch}"
