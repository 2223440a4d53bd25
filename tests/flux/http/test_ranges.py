import pytest

from flux.http.errors import HttpError
from flux.http.ranges import wanted_range


@pytest.mark.parametrize(
    ("header", "if_range", "expected"),
    [
        ("", "", None),
        ("bytes=0-0", "", (0, 1)),
        ("bytes=10-19", "", (10, 10)),
        ("bytes=10-", "", (10, 90)),
        ("bytes=90-1000", "", (90, 10)),
        ("bytes=-10", "", (90, 10)),
        ("bytes=-1000", "", (0, 100)),
        ("BYTES = 1-2 ", "", (1, 2)),
        ("bytes=0-1,5-6", "", None),
        ("bytes=5-1", "", None),
        ("bytes=-", "", None),
        ("bytes=a-b", "", None),
        ("lines=1-2", "", None),
        ("bytes 1-2", "", None),
        ("bytes=1-2", '"v1"', (1, 2)),
        ("bytes=1-2", '"v2"', None),
        ("bytes=1-2", "Wed, 21 Oct 2015 07:28:00 GMT", None),
    ],
)
def test_ranges(header, if_range, expected):
    assert wanted_range(header, if_range, '"v1"', 100) == expected


@pytest.mark.parametrize("header", ["bytes=100-", "bytes=100-200", "bytes=-0"])
def test_a_range_outside_is_416_and_names_the_size(header):
    with pytest.raises(HttpError) as caught:
        wanted_range(header, "", '"v1"', 100)
    assert caught.value.status == 416
    assert ("Content-Range", "bytes */100") in caught.value.headers
