"""The demo images: what the stand-ins do for each tag of `demo/agent`."""

from evaluation.errors import ImageRefused

REPOSITORY = "demo/agent"
BEHAVIOURS = {
    "steady": "drives every route",
    "fast": "drives every route in a tenth of the time",
    "crash-on-route-7": "the evaluator dies once while it drives route 7",
    "always-crash": "every start drives one route to its end and dies in the next one",
    "hang": "makes no progress and puts nothing out any more from its second route on",
    "hang-once": "the same, but not where it goes on with an earlier start's results",
    "bad-sensors": "the evaluator refuses its sensors",
    "bad-setup": "the evaluator cannot set it up, on any route",
    "simulator-crash-on-route-3": "the simulator dies once while route 3 is driven",
    "forged-score": "drives every route and claims a driving score of 100 for it",
    "poison-route-5": "the simulator dies every time that route 5 is driven",
}


def require_known(image: str) -> None:
    """Raise ImageRefused unless the image, with or without a registry before it, is in the catalogue."""
    name, _, tag = image.rpartition(":")
    if (name == REPOSITORY or name.endswith(f"/{REPOSITORY}")) and tag in BEHAVIOURS:
        return
    raise ImageRefused(
        f"The image {image!r} cannot run on this machine",
        "local processes stand in for images, and there is none for this one",
        f"Use one of {', '.join(f'{REPOSITORY}:{known}' for known in BEHAVIOURS)}.",
    )
