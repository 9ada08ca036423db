import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluation.errors import InvalidConfiguration
from evaluation.routes import RouteRun, expand, format_route_list, format_runs, parse_route_list, parse_route_xml
from tests.shared_data import DATA, needs_shared_data


def test_route_file_gives_its_ids_in_its_order() -> None:
    routes = '<route id="7" town="Town13"><weathers/></route><route id="3"/>'
    text = f'<?xml version="1.0" encoding="utf-8"?><routes>{routes}</routes>'
    assert parse_route_xml(text.encode(), "routes.xml") == (7, 3)


@needs_shared_data
def test_real_route_files_are_read() -> None:
    counts = {file.name: len(parse_route_xml(file.read_bytes(), file.name)) for file in (DATA / "routes").glob("*.xml")}
    assert counts == {"routes_devtest.xml": 2, "routes_training.xml": 90, "routes_validation.xml": 20}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not xml",
        b"<routes><route id='1'></routes>",
        b"<routes/>",
        b"<routes><route town='Town12'/></routes>",
        b"<routes><route id='1.5'/></routes>",
        b"<routes><route id='-1'/></routes>",
        b"<routes><route id='1'/><route id='1'/></routes>",
        b"<?xml version='1.0' encoding='no-such-thing'?><routes><route id='1'/></routes>",
        b"<routes><route id='" + b"9" * 5000 + b"'/></routes>",
        "<routes><route id='٣'/></routes>".encode(),
        b"\xff\xfe\x00",
    ],
    ids=lambda content: content[:45].decode("ascii", "replace"),
)
def test_bad_route_file_is_refused_by_name(content: bytes) -> None:
    with pytest.raises(InvalidConfiguration, match=r"routes\.xml"):
        parse_route_xml(content, "routes.xml")


@given(st.binary(max_size=40))
def test_any_bytes_are_routes_or_refused(content: bytes) -> None:
    with pytest.raises(InvalidConfiguration, match=r"routes\.xml"):
        parse_route_xml(content, "routes.xml")


@pytest.mark.parametrize(
    ("text", "routes"),
    [
        ("0-4", (0, 1, 2, 3, 4)),
        ("3,7,9", (3, 7, 9)),
        ("5", (5,)),
        ("7-7", (7,)),
        (" 9 , 0-1", (9, 0, 1)),
    ],
)
def test_lists_that_people_type(text: str, routes: tuple[int, ...]) -> None:
    assert parse_route_list(text) == routes


@pytest.mark.parametrize(
    "text", ["", ",", "1,", "a", "1-", "-1", "3-1", "1-2-3", "1,1", "0-3,2", "0-999999999", "9" * 20, "٣"]
)
def test_lists_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InvalidConfiguration):
        parse_route_list(text)


@pytest.mark.parametrize(
    ("routes", "text"),
    [([0, 1, 2, 3, 4], "0-4"), ([7], "7"), ([0, 1], "0,1"), ([0, 1, 2, 7], "0-2,7"), ([3, 2, 1], "3,2,1"), ([], "")],
)
def test_subset_form(routes: list[int], text: str) -> None:
    assert format_route_list(routes) == text


@given(st.lists(st.integers(0, 50), min_size=1, unique=True))
def test_written_list_is_read_back(routes: list[int]) -> None:
    assert parse_route_list(format_route_list(routes)) == tuple(routes)


def test_repetitions_of_a_route_are_driven_one_after_the_other() -> None:
    assert expand([5, 2], 2) == (RouteRun(5, 0), RouteRun(5, 1), RouteRun(2, 0), RouteRun(2, 1))


@pytest.mark.parametrize(
    ("runs", "text"),
    [
        (expand([3, 4, 5, 9], 1), "3-5,9"),
        ((RouteRun(3, 1), RouteRun(4, 0), RouteRun(4, 1)), "repetition 0: 4; repetition 1: 3,4"),
        ((RouteRun(3, 1),), "repetition 1: 3"),
        ((), ""),
    ],
)
def test_missing_routes_in_words(runs: tuple[RouteRun, ...], text: str) -> None:
    assert format_runs(runs) == text


def test_route_in_words() -> None:
    assert (str(RouteRun(5)), str(RouteRun(5, 1))) == ("route 5", "route 5 repetition 1")
