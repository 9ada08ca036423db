"""Whether a submission's image may run: only images of the configured registries may."""

import re
from collections.abc import Iterable

from evaluation.errors import ImageRefused

# Looser than the registries' own rule, but without blanks, empty parts and dots that lead elsewhere.
_IMAGE = re.compile(r"[a-z0-9][\w.:@-]*(/[a-z0-9][\w.:@-]*)*", re.ASCII | re.IGNORECASE)


_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def repository_digest(reference: str) -> str:
    """The digest in `registry.example/name@sha256:...`, as runtimes report what they pulled; "" where there is none."""
    _, _, digest = reference.rpartition("@")
    return digest if "@" in reference and _DIGEST.fullmatch(digest) else ""


def pinned(image: str, digest: str) -> str:
    """The image by its digest, whatever its tag points to now; as it is where no digest is known."""
    if not digest:
        return image
    name = image.partition("@")[0]
    path, slash, last = name.rpartition("/")
    return f"{path}{slash}{last.partition(':')[0]}@{digest}"


def require_allowed_image(image: str | None, registries: Iterable[str]) -> str:
    """Return the image if one of the registries (host, or host/path prefix) holds it; raises ImageRefused.

    A prefix ends at a `/`, so that `registry.example` does not admit `registry.example.evil/x`.
    """
    allowed = sorted({registry.rstrip("/") for registry in registries} - {""})
    if not image:
        raise ImageRefused(
            "The submission names no image",
            "EvalAI sent no submitted_image_uri with it",
            "Push the image again and submit once more.",
        )
    if not _IMAGE.fullmatch(image):
        form = "it has to look like registry.example/name:tag"
        raise ImageRefused(f"The image {image[:200]!a} is not an image reference", form, "Push it again.")
    if not any(image.startswith(f"{registry}/") for registry in allowed):
        raise ImageRefused(
            f"The image {image!r} is not in an allowed registry",
            f"allowed: {', '.join(allowed) or 'none'}",
            "Push the image with EvalAI's command line tool, which uploads it to the challenge's registry.",
        )
    return image
