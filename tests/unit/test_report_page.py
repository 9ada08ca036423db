"""The report's pages: what each audience may see, what a hostile agent can do to them, and their structure."""

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from evaluation.errors import Fault
from evaluation.lifecycle.outcome import Outcome, OutcomeStatus, rejected
from evaluation.pair.observations import Observations
from evaluation.pair.timeline import Activity, timelines
from evaluation.pair.usage import NAMES, Price, read_usage, usage_of
from evaluation.report_page.page import report_page
from evaluation.report_page.render import render_report
from evaluation.report_page.safe_text import image_name, redacted, shown
from evaluation.report_page.source import Audience, Pair, ReportSource
from evaluation.standings import Rank
from tests import report_samples
from tests.report_samples import BEGIN, DIGEST, minutes


def observed(pairs: Sequence[Pair]) -> dict[int, Observations | None]:
    return {pair.index: pair.seen for pair in pairs}


VOID = {"meta", "img", "br", "link", "input", "hr"}
SAMPLES = {
    "finished": report_samples.finished(),
    "failed": report_samples.failed(),
    "held": report_samples.held(),
    "hostile": report_samples.hostile(),
    "nothing was planned": replace(
        report_samples.finished(), outcome=Outcome(OutcomeStatus.FAILED, "No.", Fault.TEAM), pairs=(), provenance={}
    ),
}
PAGES = [(name, audience) for name in SAMPLES for audience in Audience]


def page_of(source: ReportSource, audience: Audience) -> str:
    return render_report(source, audience).decode()


class Structure(HTMLParser):
    """What a browser and a screen reader would find; fails on elements that do not nest."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.style = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.style += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.mark.parametrize(("name", "audience"), PAGES)
def test_a_page_needs_nothing_but_itself_and_runs_nothing(name: str, audience: Audience) -> None:
    found = Structure(page_of(SAMPLES[name], audience))
    assert {tag for tag, _ in found.elements} & {"script", "img", "link", "iframe", "object", "form", "a"} == set()
    for _, attributes in found.elements:
        assert not [each for each in attributes if each.startswith("on") or each in ("style", "src", "href")]
        assert all(value.startswith("url(#") for value in attributes.values() if value and "url(" in value)
    [policy] = [each["content"] for each in found.all("meta") if each.get("http-equiv") == "Content-Security-Policy"]
    digest = base64.b64encode(hashlib.sha256(found.style.encode()).digest()).decode()
    assert policy == f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    assert "url(" not in found.style
    assert "@import" not in found.style


@pytest.mark.parametrize(("name", "audience"), PAGES)
def test_a_page_is_accessible_by_its_structure(name: str, audience: Audience) -> None:
    found = Structure(page_of(SAMPLES[name], audience))
    assert found.all("html") == [{"lang": "en"}]
    levels = [int(tag[1]) for tag, _ in found.elements if tag in ("h1", "h2", "h3")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(later - earlier <= 1 for earlier, later in pairwise(levels))
    assert len(found.all("table")) == len(found.all("caption"))
    assert all(each.get("scope") in ("row", "col") for each in found.all("th"))
    assert all(each.get("aria-label") or each.get("aria-hidden") == "true" for each in found.all("svg"))
    ids = [str(each["id"]) for _, each in found.elements if "id" in each]
    assert len(ids) == len(set(ids))
    assert {each["aria-labelledby"] for each in found.all("section")} <= set(ids)
    regions = [each["aria-label"] for _, each in found.elements if each.get("role") == "region"]
    assert len(regions) == len(set(regions))


@pytest.mark.parametrize("audience", Audience)
def test_what_an_agent_writes_stays_text_and_has_bounds(audience: Audience) -> None:
    page = page_of(SAMPLES["hostile"], audience)
    assert "<script>" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert not {"\u202e", "\x00"} & set(page)
    assert len(page) < 60_000


@pytest.mark.parametrize(("audience", "most"), [(Audience.TEAM, 600_000), (Audience.OPERATOR, 900_000)])
def test_many_routes_and_repetitions_make_no_large_page(audience: Audience, most: int) -> None:
    page = page_of(report_samples.finished(220, 5), audience)
    assert page.count('<th scope="row">219') == 5
    assert len(page.encode()) < most


def test_a_finished_page_shows_score_routes_times_and_origin() -> None:
    page = report_page(SAMPLES["finished"], Audience.TEAM)
    assert (page.status, page.fault, len(page.metrics)) == ("Finished", "", 15)
    assert page.score == pytest.approx((15 * 100 + 4 * 49.92) / 20)
    assert "up to 5 points" in page.remarks[0]
    quarantined, blocked, thrice = page.routes[5], page.routes[9], page.routes[12]
    assert (quarantined.mark, quarantined.score, quarantined.system_seconds) == ("quarantined", 0, None)
    assert blocked.infractions == (("Collisions vehicles", 1), ("Red light infractions", 1))
    assert (thrice.drives, thrice.system_seconds) == (3, 392.0)
    assert [row.charged for row in page.restarts] == ["agent", "installation"]
    assert ("Image as it ran", DIGEST) in page.origin


def test_a_failed_page_has_reason_fault_and_remedy_and_no_score() -> None:
    page = report_page(SAMPLES["failed"], Audience.TEAM)
    assert (page.score, page.metrics) == (None, ())
    assert "The agent crashed again and again" in page.what
    assert page.fault == "The agent's: it counts as the team's."
    assert page.to_do.startswith("Correct the agent")
    assert "they are no score" in page.routes_note
    assert [row.status for row in page.routes[13:]] == ["No result"] * 7
    assert "KeyError" in page.logs


def test_the_installations_fault_asks_nothing_of_the_agent() -> None:
    failed = SAMPLES["failed"]
    lost = replace(failed, outcome=replace(failed.outcome, fault=Fault.INFRASTRUCTURE))
    page = report_page(lost, Audience.TEAM)
    assert page.fault == "The installation's, not the agent's."
    assert "resume" in page.to_do


@pytest.mark.parametrize("name", ["finished", "failed", "held"])
def test_a_team_sees_no_place_of_the_installation_and_no_secret_of_a_route(name: str) -> None:
    page = page_of(SAMPLES[name], Audience.TEAM)
    for secret in (
        "s3://", "leaderboard-20/7", "private-routes", "ec2.internal", "123456789012", "amazonaws", "log group",
        "0190a1b2", "kubernetes", "x=1201.5", "vehicle.audi", "1843", "not the one that its supervisor saw",
    ):  # fmt: skip
        assert secret not in page
    full = page_of(SAMPLES[name], Audience.OPERATOR)
    assert "s3://leaderboard-20/7/" in full
    assert "x=1201.5" in full
    assert "Do not send it to teams" in full


def test_of_a_held_result_a_team_sees_that_it_is_checked_and_an_operator_why() -> None:
    team = report_page(SAMPLES["held"], Audience.TEAM)
    assert (team.score, team.metrics, team.routes, team.remarks, team.reasons) == (None, (), (), (), ())
    assert "organisers check the result" in team.what
    operator = report_page(SAMPLES["held"], Audience.OPERATOR)
    assert operator.score is not None
    assert operator.metrics_note == "Not published: the result is held."
    assert operator.reasons == SAMPLES["held"].outcome.reasons
    assert "leaderboard verify 7" in operator.to_do


def test_a_rejected_result_shows_its_team_no_figure() -> None:
    held = SAMPLES["held"]
    source = replace(held, outcome=rejected(7, replace(held.outcome, summary="Driving score 99"), "alice", "Forged"))
    page = report_page(source, Audience.TEAM)
    assert (page.score, page.routes, page.redrives) == (None, (), ())
    assert page.to_do == "Ask the challenge's organisers."
    assert source.outcome.summary == ""


def test_a_released_result_does_not_say_who_looked_at_it() -> None:
    source = SAMPLES["finished"]
    sentence = f"{source.outcome.sentence} It was held, and released by alice."
    outcome = replace(source.outcome, sentence=sentence, reasons=("a check",))
    page = report_page(replace(source, outcome=outcome), Audience.TEAM)
    assert "alice" not in page.what
    assert page.score is not None


def test_the_time_of_a_pair_is_split_without_gaps() -> None:
    [attempt] = timelines(observed(SAMPLES["finished"].pairs), 1, BEGIN)
    pair = attempt.pairs[2]
    split = {activity: pair.seconds(activity) / 60 for activity in Activity}
    assert split == {
        Activity.WAITING: 4,
        Activity.STARTING: 2 + 3 + 2,
        Activity.DRIVING: 12 + 18,
        Activity.LOST: 5 + 4,
        Activity.RETRYING: 2,
    }
    assert all(before.end == after.begin for before, after in pairwise(pair.spans))
    assert (attempt.begin, attempt.end) == (BEGIN, minutes(52))


def test_gpu_time_is_split_by_what_it_went_to_and_whose_retries_they_were() -> None:
    [attempt] = timelines({2: SAMPLES["finished"].pairs[2].seen}, 1, BEGIN)
    used = usage_of(attempt)
    minutes_of = {name: getattr(used.seconds, name) / 60 for name in NAMES}
    assert minutes_of == {
        "waiting": 4,
        "starting": 2,
        "driving": 12 + 18,
        "retries_agent": 5 + 1 + 3,  # the drive that broke off, the pause, the second start
        "retries_infrastructure": 4 + 1 + 2,
    }
    assert used.seconds.gpu / 60 == 52 - 4
    assert read_usage({"1": used.described(), "2": {"began": "never"}, "x": None, "٣" * 5000: used.described()}) == (
        used,
    )


def test_rank_gpu_time_and_cost_stand_among_the_facts() -> None:
    source = replace(SAMPLES["finished"], rank=Rank(2, 14, 7), price=Price(1.5, "USD"))
    facts = dict(report_page(source, Audience.OPERATOR).facts)
    assert facts["Rank"] == "2 of 14 teams in this phase, when this page was made"
    assert facts["GPU time"].startswith("2 h 24 min: driving 2 h 00 min")
    assert "retries charged to the agent 9 min" in facts["GPU time"]
    assert facts["Cost"].endswith(" USD")
    team = dict(report_page(replace(source, rank=Rank(2, 14, 5)), Audience.TEAM).facts)
    assert team["Rank"].endswith("by the team's submission 5")
    assert "Cost" not in team
    assert "Rank" not in dict(report_page(replace(SAMPLES["failed"], rank=Rank(1, 1, 7)), Audience.TEAM).facts)


def test_a_pod_that_was_lost_counts_until_the_last_that_was_seen_of_it() -> None:
    seen = Observations((report_samples.start(1, 1, 2, None),))
    pair = replace(SAMPLES["finished"].pairs[0], seen=seen)
    [attempt] = timelines(observed([pair]), 1, BEGIN - timedelta(minutes=1))
    assert [(span.activity, span.seconds) for span in attempt.pairs[0].spans] == [
        (Activity.WAITING, 120),
        (Activity.STARTING, 60),
    ]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("see s3://bucket/7/x.json now", "see [not shown] now"),
        ("at https://10.0.0.7:6443/api", "at [not shown]"),
        ("node 10.0.0.7 was drained", "node [not shown] was drained"),
        ("arn:aws:iam::123456789012:role/x", "[not shown]"),
        ("reading /var/lib/kubelet/pods/x failed", "reading [not shown] failed"),
        ("ip-10-0-3-7.us-west-2.compute.internal", "[not shown]"),
        ("account 123456789012", "account [not shown]"),
        ("13/20 routes, 2.0 and 77.087, and/or CARLA 0.9.15", "13/20 routes, 2.0 and 77.087, and/or CARLA 0.9.15"),
    ],
)
def test_places_are_hidden_and_figures_are_not(text: str, kept: str) -> None:
    assert redacted(text) == kept


def test_texts_are_cut_and_visible() -> None:
    assert shown("a\u202eb\ud800c\u2028d", 4) == "a�b� [3 more characters]"
    assert image_name("123456789012.dkr.ecr.us-west-2.amazonaws.com/team-3/agent@sha256:0") == "agent"
