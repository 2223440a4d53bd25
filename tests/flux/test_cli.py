from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flux._version import __version__
from flux.cli import build_parser, main
from flux.cli.tables import bitrate, duration, rate, size, table
from tests.flux.control_fake import FakeControl, relay, session, status, stream


@pytest.fixture
def fake(tmp_path: Path) -> Iterator[FakeControl]:
    answers = {
        "status": status(),
        "streams": {"streams": [stream("live/b"), stream("live/a", "idle", bitrate_bps=None, fps=None)]},
        "sessions": {
            "sessions": [session("w0-000001", role="publish", bitrate_bps=2e6), session("w0-000002")]
        },
        "relays": {
            "relays": [
                relay("in"),
                relay(
                    "out",
                    direction="push",
                    state="connected",
                    last_error="",
                    figures={"bytes": 1_234_567, "rtt_ms": 20.04},
                ),
            ]
        },
        "stats": {
            "counters": {"flux_b_total": 7, "flux_a_total": 12345, "flux_c_total": 0},
            "processes": {"worker 0": {"flux_b_total": 7}},
        },
        "kick": {"kicked": 1},
        "version": {"version": "9.9", "python": "3.12.0", "pid": 17},
        "reload": {"changed": ["log.level", "workers"], "needs_restart": ["workers"]},
        "drain": {"ok": True},
        "stop": {"ok": True},
    }
    with FakeControl(tmp_path / "control.sock", answers) as server:
        yield server


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    try:
        code = main(argv)
    except SystemExit as left:
        code = int(left.code or 0)
    out, err = capsys.readouterr()
    return code, out, err


def test_streams(fake: FakeControl, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "streams", "--socket", fake.path)
    assert (code, err) == (0, "")
    head, first, second = out.splitlines()
    assert (
        head
        == "NAME    STATE  CODECS    RESOLUTION  FPS      BITRATE  VIEWERS  UP" + head[head.index("UP") + 2 :]
    )
    assert head.split()[-2:] == ["BY", "WORKER"]
    assert first.split()[:5] == ["live/a", "idle", "H264+AAC", "1280x720", "-"]
    assert second.split()[:8] == ["live/b", "live", "H264+AAC", "1280x720", "25", "2.05", "Mbit/s", "3"]
    assert head.index("STATE") == first.index("idle") == second.index("live", 6)


def test_sessions(fake: FakeControl, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "sessions", "--stream", "live/a", "--socket", fake.path)
    assert code == 0
    assert fake.calls == [("sessions", {"stream": "live/a"})]
    lines = out.splitlines()
    assert lines[1].startswith("w0-000001  live/a  publish  http-flv  192.0.2.7:50000  ")
    assert lines[1].endswith("1.2 MB  2.00 Mbit/s")
    assert lines[2].endswith("1.2 MB            -")


def test_relays(fake: FakeControl, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "relays", "--socket", fake.path)
    assert code == 0
    lines = out.splitlines()
    assert lines[1].split()[:4] == ["in", "pull", "live/a", "backing_off"]
    assert lines[1].endswith("srt://192.0.2.9:8890?streamid=read:live/a&passphrase=…")
    assert "  1.2 MB  20.0 ms  srt://" in lines[2]
    assert lines[3:] == ["in: the passphrase is wrong (SRT rejection 1010); set passphrase="]


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("status", "running for 1 h 02 min, pid 4241\nsrt    0.0.0.0:8890\n"),
        ("stats", "COUNTER       VALUE\nflux_a_total  12345\nflux_b_total      7\n"),
        ("stats --all", "flux_c_total      0\n"),
        ("kick w0-000001", "w0-000001 was told to end\n"),
        ("reload", "changed: log.level, workers\ntakes effect after a restart: workers\n"),
        ("drain", "draining: nothing new is taken; it stops when all have gone\n"),
        ("stop", "stopping\n"),
        ("version", f"flux {__version__}\nserver 9.9, Python 3.12.0, pid 17\n"),
    ],
)
def test_texts(fake: FakeControl, capsys: pytest.CaptureFixture[str], command: str, shown: str) -> None:
    code, out, err = run(capsys, *command.split(), "--socket", fake.path)
    assert (code, err) == (0, "")
    assert shown in out


@pytest.mark.parametrize(
    ("command", "key"),
    [
        ("status", "processes"),
        ("streams", "streams"),
        ("sessions", "sessions"),
        ("relays", "relays"),
        ("stats", "counters"),
        ("kick w0-000001", "kicked"),
        ("reload", "changed"),
        ("drain", "ok"),
        ("stop", "ok"),
        ("version", "client"),
    ],
)
def test_json(fake: FakeControl, capsys: pytest.CaptureFixture[str], command: str, key: str) -> None:
    code, out, err = run(capsys, *command.split(), "--json", "--socket", fake.path)
    assert (code, err) == (0, "")
    assert key in json.loads(out)


def test_empty_lists(fake: FakeControl, capsys: pytest.CaptureFixture[str]) -> None:
    fake.answers.update(
        streams={"streams": []},
        sessions={"sessions": []},
        relays={"relays": []},
        stats={"counters": {"a": 0}, "processes": {}},
    )
    for command, text in (
        ("streams", "no stream is live"),
        ("sessions", "no sessions"),
        ("relays", "no relays; the setting `relays` has them"),
        ("stats", "nothing was counted yet"),
    ):
        assert run(capsys, command, "--socket", fake.path) == (0, text + "\n", "")


def test_what_the_server_says_is_passed_on(fake: FakeControl, capsys: pytest.CaptureFixture[str]) -> None:
    fake.answers["kick"] = RuntimeError("there is no session w0-000009")
    code, out, err = run(capsys, "kick", "w0-000009", "--socket", fake.path)
    assert (code, out, err) == (1, "", "flux: there is no session w0-000009; look it up\n")


def test_no_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "streams", "--socket", str(tmp_path / "none.sock"))
    assert code == 1
    assert err.count("\n") == 1
    assert "no Flux is running" in err
    assert "flux serve" in err


def test_version_without_a_server(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flux.control.client.default_path", lambda: str(tmp_path / "none.sock"))
    assert run(capsys, "version") == (0, f"flux {__version__}\n", "")


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ("", "COMMAND"),
        ("streamz", "streamz"),
        ("streams extra", "extra"),
        ("streams --sock x", "--sock"),
        ("kick", "ID"),
        ("publish only-a-file", "URL"),
        ("publish {file} rtmp://host/live/a", "rtmp:// is not known here; write it as srt://…"),
        ("publish {file} nonsense", "nonsense: this is no URL"),
        ("publish /nowhere.ts srt://127.0.0.1:1?streamid=publish:a", "/nowhere.ts: no such file"),
        ("play ftp://host/x.ts", "ftp:// is not known here"),
        ("play http://127.0.0.1:1/x.ts --duration soon", "soon is no number of seconds"),
        ("play http://127.0.0.1:1/x.ts --duration -1", "-1"),
        ("play http://127.0.0.1:1/x.ts -o /nowhere/x.ts", "/nowhere/x.ts: no such file or directory"),
        ("probe /nowhere.ts", "/nowhere.ts: no such file or directory"),
        ("probe udp://127.0.0.1:1", "udp:// is not known here"),
        ("check --set http.listn=1", "did you mean http.listen?"),
        ("check --set http.listen", "sets nothing"),
        ("check --set workers=many", "workers: it must be a whole number"),
        ("check --config /nowhere.yaml", "/nowhere.yaml: no such file or directory"),
        ("serve --config /nowhere.yaml", "/nowhere.yaml: no such file or directory"),
        ("serve --set nothing=1", "nothing: no such setting"),
    ],
)
def test_bad_input_is_one_line_and_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, says: str
) -> None:
    file = tmp_path / "x.ts"
    file.write_bytes(b"")
    code, out, err = run(capsys, *command.format(file=file).split())
    assert (code, out) == (2, "")
    assert err.startswith("flux: ")
    assert err.count("\n") == 1
    assert says in err


def test_check(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "flux.yaml"
    file.write_text("http:\n  listen: 127.0.0.1:8000\nworkers: 2\n")
    code, out, _ = run(capsys, "check", "--config", str(file), "--set", "hls.always=true")
    assert code == 0
    assert out.splitlines() == [
        f"{file} is good; 3 settings are not the default's",
        "  workers = 2",
        "  http.listen = 127.0.0.1:8000",
        "  hls.always = true",
    ]
    assert json.loads(run(capsys, "check", "--json")[1])["admin.listen"] == "127.0.0.1:8081"


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "--help")
    assert code == 0
    for name in (
        "serve",
        "check",
        "publish",
        "play",
        "probe",
        "streams",
        "sessions",
        "stats",
        "kick",
        "stop",
    ):
        assert name in out
        assert run(capsys, name, "--help")[0] == 0


def test_commands_name_functions_that_are_there() -> None:
    import importlib

    for words in (
        "serve",
        "check",
        "publish a b",
        "play a",
        "probe a",
        "status",
        "kick a",
        "reload",
        "version",
    ):
        module, _, function = build_parser().parse_args(words.split()).run.partition(":")
        assert callable(getattr(importlib.import_module(module), function))


def test_starts_quickly() -> None:
    heavy = ("asyncio", "numpy", "pydantic", "starlette", "structlog", "uvicorn", "yaml", "flux.cext")
    script = "import sys, flux.cli, flux.cli.operate; print([m for m in sys.argv[1:] if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script, *heavy], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_reader_that_goes_away(fake: FakeControl) -> None:
    fake.answers["stats"] = {"counters": {f"flux_{n}_total": 1 for n in range(20_000)}, "processes": {}}
    command = f"{sys.executable} -m flux stats --socket {fake.path} | head -n 1"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
    assert done.stdout.startswith("COUNTER")
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        (bitrate, None, "-"),
        (bitrate, 864_400, "864 kbit/s"),
        (bitrate, 999_499, "999 kbit/s"),
        (bitrate, 999_500, "1.00 Mbit/s"),
        (bitrate, 2_054_000, "2.05 Mbit/s"),
        (bitrate, 12_340_000, "12.3 Mbit/s"),
        (bitrate, 212_300_000, "212 Mbit/s"),
        (size, 0, "0 B"),
        (size, 999, "999 B"),
        (size, 1_234, "1.2 kB"),
        (size, 123_456, "123 kB"),
        (size, 12_345_678, "12.3 MB"),
        (size, 5e15, "5000.0 TB"),
        (duration, None, "-"),
        (duration, 59.4, "59 s"),
        (duration, 187, "3 min 07 s"),
        (duration, 7500, "2 h 05 min"),
        (duration, 273_600, "3 d 4 h"),
        (duration, -5, "0 s"),
        (rate, None, "-"),
        (rate, 25.0, "25"),
        (rate, 29.97, "29.97"),
        (rate, 0.5, "0.5"),
    ],
)
def test_numbers(function: object, value: float | None, text: str) -> None:
    assert function(value) == text  # type: ignore[operator]


def test_table() -> None:
    text = table(("A", "NUMBER"), [("long one", "1"), ("b", "22")], right=("NUMBER",))
    assert text == "A         NUMBER\nlong one       1\nb             22"
