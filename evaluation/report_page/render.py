"""The page as one HTML file: no script, nothing from elsewhere, and a policy that allows neither."""

import base64
import hashlib
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from evaluation.report_page.charts import ACTIVITIES, duration, legend, slug
from evaluation.report_page.page import ReportPage, report_page
from evaluation.report_page.source import Audience, ReportSource


def render_report(source: ReportSource, audience: Audience) -> bytes:
    """The HTML file in UTF-8; at most some 2 MiB. Raises InvalidCheckpoint as `report_page` does."""
    return render_page(report_page(source, audience))


def render_page(page: ReportPage) -> bytes:
    return render_template("report.html.jinja", page=page, activities=ACTIVITIES, legend=legend())


def render_template(name: str, **values: object) -> bytes:
    """One of the templates with the style sheet that all share."""
    environment = _environment()
    css, _, _ = environment.loader.get_source(environment, "report.css")  # type: ignore[union-attr]
    style = Markup(css)  # noqa: S704 - our own file
    return environment.get_template(name).render(css=style, policy=_policy(css), **values).encode()


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("evaluation.report_page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"slug": slug, "duration": duration}
    return environment


def _policy(css: str) -> str:
    """Nothing but the page's own style sheet. Source: https://www.w3.org/TR/CSP3/."""
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    return f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
