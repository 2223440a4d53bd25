"""Fixtures of the media tests."""

from __future__ import annotations

import pytest

from tests.cext.media.material import Clips


@pytest.fixture(scope="session")
def clips(tmp_path_factory) -> Clips:
    return Clips(tmp_path_factory.mktemp("material"))
