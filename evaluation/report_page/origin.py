"""Where a report's result comes from, by its provenance (evaluation.provenance)."""

from collections.abc import Iterator, Mapping
from typing import Any

from evaluation.report_page.safe_text import shown
from evaluation.report_page.source import ReportSource


def origin_facts(source: ReportSource, operator: bool) -> tuple[tuple[str, str], ...]:
    """Names and values; for teams their image's digest, the program and the signature only."""
    return tuple((name, shown(value, 300)) for name, value in _facts(source, operator) if value)


def _facts(source: ReportSource, operator: bool) -> Iterator[tuple[str, str]]:
    predicate: Mapping[str, Any] = source.provenance.get("predicate", {})
    definition, details = predicate.get("buildDefinition", {}), predicate.get("runDetails", {})
    yield "Image as it ran", source.subject.image_digest
    yield "Evaluated by", str(details.get("builder", {}).get("id", "")).removeprefix("urn:")
    yield "Merged at", str(details.get("metadata", {}).get("finishedOn", ""))
    if source.provenance:
        yield "Signature", f"by the key {source.signed_by[:16]}" if source.signed_by else "none: there is no key"
    if not operator:
        return
    yield "Merged by the run", str(details.get("metadata", {}).get("invocationId", ""))
    settings = definition.get("internalParameters", {})
    yield "Cluster, backend", ", ".join(str(settings[key]) for key in ("cluster", "backend") if key in settings)
    yield "Scoring", str(settings.get("scoring", ""))
    for used in definition.get("resolvedDependencies", ()):
        yield str(used.get("uri", "")), used.get("digest", {}).get("sha256", "no digest is known")
