"""How a flow run continues an evaluation that another run began."""

from pydantic import BaseModel, ConfigDict, Field


class Takeover(BaseModel):
    """A run goes on with what an earlier one began: whose claim it takes over, in which epoch, and why."""

    model_config = ConfigDict(frozen=True)

    owner: str  # the id of the first run, which made the claim
    epoch: int = Field(ge=1)
    crashes: int = Field(default=0, ge=0)  # how many runs died without an outage that explains it
    stopped: bool = False  # an operator stopped the run in Prefect: end the evaluation instead of going on
    after_silence: bool = False  # the run before was shown as running, and only its lease was over: it may be alive

    @classmethod
    def first(cls, run: str) -> "Takeover":
        """Of a run that takes nothing over."""
        return cls(owner=run, epoch=1)

    def after_crash(self) -> "Takeover":
        return self.model_copy(update={"epoch": self.epoch + 1, "crashes": self.crashes + 1, "after_silence": False})

    def after_drain(self) -> "Takeover":
        """Its worker was told to stop: nothing is wrong with the run, so it is no crash."""
        return self.model_copy(update={"epoch": self.epoch + 1, "after_silence": False})

    def after_cancellation(self) -> "Takeover":
        return self.model_copy(update={"epoch": self.epoch + 1, "stopped": True, "after_silence": False})

    @property
    def key(self) -> str:
        """The same for everybody who wants to start this very takeover run, so that there is one."""
        return f"{self.owner}-epoch-{self.epoch}"
