from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flux.errors import StreamNameError
from flux.streams.names import check_name


@pytest.mark.parametrize(
    "name", ["a", "live/cam1", "a/b/c/d", "A-Z_0.9~", "...", "a..b", ".a", "a.", "x" * 255]
)
def test_good_names(name):
    assert check_name(name) == name


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "is empty"),
        ("/", "a part that is empty"),
        ("/a", "a part that is empty"),
        ("a/", "a part that is empty"),
        ("a//b", "a part that is empty"),
        (".", '"." or ".."'),
        ("a/../b", '"." or ".."'),
        ("a/.", '"." or ".."'),
        ("a b", "has ' ' in it"),
        ("a\n", r"has '\n' in it"),
        ("a\0b", r"has '\x00' in it"),
        ("cäm", r"has '\xe4' in it"),
        ("a?b", "has '?' in it"),
        ("a%2fb", "has '%' in it"),
        ("x" * 256, "more than 255 bytes"),
    ],
)
def test_bad_names(name, says):
    with pytest.raises(StreamNameError) as caught:
        check_name(name)
    assert says in str(caught.value)
    assert "a name is parts of" in str(caught.value)


@given(st.text(alphabet=st.sampled_from("aZ0._~-/ é\n"), max_size=12))
def test_a_name_is_good_as_the_rule_says(name):
    parts = name.split("/")
    good = all(re.fullmatch(r"[A-Za-z0-9._~-]+", part) and part not in (".", "..") for part in parts)
    if good:
        assert check_name(name) == name
    else:
        with pytest.raises(StreamNameError):
            check_name(name)
