import json
import os
from pathlib import Path

import pytest
from cyclopts import App

from cli.merge import merge, merge_files
from evaluation.routes import RouteRun
from evaluation.submission.model import LeaderboardVersion
from tests.result_files import V1, V2, as_bytes, make_document, make_record
from tests.shared_data import DATA, needs_shared_data

app = App(name="leaderboard", result_action="return_value")
app.command(merge)

ROUTES_XML = "<routes>" + "".join(f'<route id="{n}" town="Town12"/>' for n in range(4)) + "</routes>"


def shard(folder: Path, name: str, *routes: int, version: LeaderboardVersion = V2, total: int | None = None) -> Path:
    records = [make_record(RouteRun(route), index, version) for index, route in enumerate(routes)]
    file = folder / name
    file.write_bytes(as_bytes(make_document(records, total)))
    return file


@pytest.fixture
def halves(tmp_path: Path) -> list[Path]:
    return [shard(tmp_path, "a.json", 0, 1), shard(tmp_path, "b.json", 2, 3)]


def run(*words: object) -> int:
    code = app(["merge", *map(str, words)], exit_on_error=False)
    assert isinstance(code, int)
    return code


@pytest.mark.parametrize("form", ["range", "list", "xml"])
def test_complete_set_ends_with_0(
    form: str, halves: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    xml = tmp_path / "routes.xml"
    xml.write_text(ROUTES_XML)
    routes = {"range": "0-3", "list": "0, 1,2,3", "xml": str(xml)}[form]
    output = tmp_path / "merged.json"

    assert run(*halves, "--routes", routes, "--output", output) == 0

    merged = json.loads(output.read_bytes())
    assert merged["entry_status"] == "Finished"
    assert merged["_checkpoint"]["progress"] == [4, 4]
    assert capsys.readouterr().out == f"{output}: all 4 routes, Finished\n"
    assert sorted(tmp_path.iterdir()) == sorted([*halves, xml, output])


def test_incomplete_set_ends_with_3_and_names_what_is_missing(
    halves: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "merged.json"
    assert run(*halves, "--routes", "0-9", "--output", output) == 3
    merged = json.loads(output.read_bytes())
    assert (merged["entry_status"], merged["eligible"]) == ("Started", False)
    assert merged["_checkpoint"]["progress"] == [4, 10]
    assert capsys.readouterr().out == f"{output}: 4 of 10 routes, Started. Missing: 4-9\n"


def test_missing_repetitions_are_named(halves: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*halves, "--routes", "0-4", "--repetitions", 2, "--output", tmp_path / "merged.json") == 3
    assert capsys.readouterr().out.endswith("Missing: repetition 0: 4; repetition 1: 0-4\n")


def refused(words: list[object], folder: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """Run with a wrong input, beside an existing output: exit code 2, one line, no file touched or added."""
    output = folder / "merged.json"
    output.write_text("what was there")
    before = sorted(folder.rglob("*"))
    assert run(*words, "--output", output) == 2
    captured = capsys.readouterr()
    assert output.read_text() == "what was there"
    assert sorted(folder.rglob("*")) == before
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


@pytest.mark.parametrize(
    ("content", "field"),
    [
        (b"", "the file"),
        (b"{}", "_checkpoint"),
        (b'{"_checkpoint": {', "the file"),
        (as_bytes(make_document([make_record(RouteRun(2), status="Won")])), "_checkpoint.records[0].status"),
        (as_bytes(make_document([make_record(RouteRun(9))])), "_checkpoint.records[0].route_id"),
        (as_bytes(make_document([make_record(RouteRun(1))])), "_checkpoint.records[0].route_id"),
        (as_bytes(make_document([make_record(RouteRun(2))], sensors=["carla_imu"])), "sensors"),
        (as_bytes(make_document([make_record(RouteRun(2), 0, V1)])), "_checkpoint.records[0].route_id"),
    ],
    ids=["empty", "no-members", "cut-off", "status", "stranger", "twice", "sensors", "version"],
)
def test_bad_file_is_named_with_its_field(
    content: bytes, field: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = tmp_path / "bad.json"
    bad.write_bytes(content)
    line = refused([shard(tmp_path, "a.json", 0, 1), bad, "--routes", "0-3"], tmp_path, capsys)
    assert line.startswith(f"{bad}: {field} ")


def test_missing_file_is_named(halves: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    gone = tmp_path / "gone.json"
    line = refused([*halves, gone, "--routes", "0-9"], tmp_path, capsys)
    assert line.startswith(f"{gone} cannot be read")
    assert "No such file" in line


def test_folder_in_place_of_a_file_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused([tmp_path, "--routes", "0-9"], tmp_path, capsys).startswith(f"{tmp_path} cannot be read")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_unreadable_file_is_named(halves: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    halves[0].chmod(0)
    assert refused([*halves, "--routes", "0-3"], tmp_path, capsys).startswith(f"{halves[0]} cannot be read")


def test_same_file_twice_is_refused(halves: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    link = tmp_path / "link.json"
    link.symlink_to(halves[0])
    assert f"{link} is given twice" in refused([*halves, link, "--routes", "0-3"], tmp_path, capsys)


def test_input_is_not_overwritten(halves: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    before = halves[0].read_bytes()
    assert run(*halves, "--routes", "0-3", "--output", halves[0]) == 2
    assert halves[0].read_bytes() == before
    assert "--output" in capsys.readouterr().err


@pytest.mark.parametrize("routes", ["", "3-1", "1,,2", "0-3,2", "no-such-file.xml", "0-999999999"])
def test_bad_routes_are_refused(
    routes: str, halves: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused([*halves, f"--routes={routes}"], tmp_path, capsys)


@pytest.mark.parametrize("content", ["", "<routes/>", "<routes><route id='x'/></routes>", "<?xml encoding='x'?>", "\0"])
def test_bad_route_file_is_named(
    content: str, halves: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    xml = tmp_path / "routes.xml"
    xml.write_text(content)
    assert str(xml) in refused([*halves, "--routes", xml], tmp_path, capsys)


def test_bad_repetitions_are_refused(halves: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--repetitions" in refused([*halves, "--routes", "0-3", "--repetitions", 0], tmp_path, capsys)


def test_output_that_cannot_be_written_is_refused(
    halves: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for place in (tmp_path / "no" / "such" / "folder.json", tmp_path):
        assert run(*halves, "--routes", "0-3", "--output", place) == 2
        assert f"{place} cannot be written" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == halves


def test_version_can_be_told_and_must_fit(halves: list[Path], tmp_path: Path) -> None:
    output = tmp_path / "merged.json"
    assert run(*halves, "--routes", "0-3", "--output", output, "--leaderboard-version", "2.0") == 0
    assert run(*halves, "--routes", "0-3", "--output", output, "--leaderboard-version", "1.0") == 2


@pytest.mark.parametrize("version", [V1, V2])
def test_shard_that_has_not_begun_goes_with_either_version(version: LeaderboardVersion, tmp_path: Path) -> None:
    begun = shard(tmp_path, "a.json", 0, 1, version=version)
    empty = shard(tmp_path, "b.json", total=2)
    assert merge_files([empty, begun], "0-3", tmp_path / "merged.json") == 3


@needs_shared_data
def test_real_v2_files_give_the_official_bytes(tmp_path: Path) -> None:
    case = DATA / "merge_cases" / "m20"
    output = tmp_path / "merged.json"
    assert run(*sorted(case.glob("partial*")), "--routes", "0-19", "--output", output) == 0
    assert output.read_bytes() == (case / "merged_master.json").read_bytes()
