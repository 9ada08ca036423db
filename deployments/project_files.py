"""Where prefect.yaml is: in a checkout at its root, in a wheel inside this package."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def deployments_file() -> Path:
    """prefect.yaml, which names the flows' deployments and what starts them."""
    in_checkout = _PACKAGE.parent / "prefect.yaml"
    return in_checkout if in_checkout.is_file() else _PACKAGE / "prefect.yaml"
