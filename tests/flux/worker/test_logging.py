from __future__ import annotations

import json
import logging as stdlib
import os

import pytest
import structlog

from flux.errors import UserError
from flux.observe import logging


@pytest.fixture
def log(tmp_path):
    """A log file, and logging as it was before at the end."""
    root = stdlib.getLogger()
    handlers, level = list(root.handlers), root.level
    yield tmp_path / "flux.log"
    logging.configure()
    stdlib.captureWarnings(False)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()
    root.handlers[:], root.level = handlers, level


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_is_json_with_the_event_and_its_facts(log):
    logging.configure("info", "auto", str(log))
    logging.name_process("worker 0")
    structlog.get_logger("flux.test").info("it_happened", count=3, text="ü\n", path=log)
    (line,) = lines(log)
    assert list(line)[:5] == ["timestamp", "level", "logger", "process", "event"]
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "level": "info",
        "logger": "flux.test",
        "process": "worker 0",
        "event": "it_happened",
        "count": 3,
        "text": "ü\n",
        "path": str(log),
    }


def test_a_changed_level_holds_for_loggers_in_use(log):
    logging.configure("error", "json", str(log))
    logger = structlog.get_logger("flux.test")
    logger.info("unheard")
    logging.configure("debug", "json", str(log))
    logger.debug("heard")
    assert [line["event"] for line in lines(log)] == ["heard"]


def test_exceptions_are_one_line(log):
    logging.configure("info", "json", str(log))
    try:
        raise ValueError("no")
    except ValueError:
        structlog.get_logger("flux.test").exception("it_failed", what=1)
    (line,) = lines(log)
    assert "ValueError: no" in line["exception"]
    assert (line["event"], line["what"]) == ("it_failed", 1)


def test_libraries_log_like_all_others(log):
    logging.configure("info", "json", str(log))
    stdlib.getLogger("asyncio").warning("slow %s", "callback")
    stdlib.getLogger("asyncio").info("not this")
    (line,) = lines(log)
    assert (line["logger"], line["level"], line["message"]) == ("asyncio", "warning", "slow callback")


def test_the_console_is_for_people(log):
    logging.configure("info", "console", str(log))
    logging.name_process("supervisor")
    structlog.get_logger("flux.test").info("it_happened", b=1, a="x y")
    assert (
        log.read_text().split(" ", 1)[1] == "[info     ] it_happened              [supervisor] b=1 a='x y'\n"
    )


def test_a_file_that_was_moved_away_is_opened_anew(log):
    logging.configure("info", "json", str(log))
    logger = structlog.get_logger("flux.test")
    fd = logging.log_fd()
    logger.info("before")
    moved = log.rename(log.with_suffix(".1"))
    logger.info("still_before")
    assert logging.reopen()
    logger.info("after")
    assert [line["event"] for line in lines(moved)] == ["before", "still_before"]
    assert [line["event"] for line in lines(log)] == ["after"]
    assert logging.log_fd() == fd
    assert not os.get_inheritable(fd)


def test_standard_error_is_not_opened_anew(log):
    logging.configure("error", "json")
    assert logging.log_fd() == 2
    assert not logging.reopen()


def test_a_file_that_can_not_be_opened(log):
    with pytest.raises(
        UserError, match=r"can't log to .*none/flux\.log: No such file.*; set log\.file to a path"
    ):
        logging.configure("info", "json", str(log.parent / "none" / "flux.log"))
