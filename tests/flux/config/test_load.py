from __future__ import annotations

import json

import pytest

from flux.config.document import as_yaml
from flux.config.load import flatten, keys, load_config, unflatten
from flux.config.schema import Config
from flux.errors import ConfigError


def write(tmp_path, text, name="flux.yaml"):
    path = tmp_path / name
    path.write_text(text)
    return path


def message(path=None, overrides=()):
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    assert caught.value.exit_code == 2
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_a_file_there_are_the_defaults():
    assert load_config() == Config()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("flux.yaml", 'http:\n  listen: "127.0.0.1:0"\ncpus: [0, 1]\n'),
        ("flux.yml", '{http: {listen: "127.0.0.1:0"}, cpus: [0, 1]}'),
        ("flux.toml", 'cpus = [0, 1]\n[http]\nlisten = "127.0.0.1:0"\n'),
        ("flux.json", json.dumps({"http": {"listen": "127.0.0.1:0"}, "cpus": [0, 1]})),
        ("FLUX.JSON", json.dumps({"http": {"listen": "127.0.0.1:0"}, "cpus": [0, 1]})),
    ],
)
def test_the_suffix_tells_the_format(tmp_path, name, text):
    config = load_config(write(tmp_path, text, name))
    assert config.http.listen == "127.0.0.1:0"
    assert config.cpus == (0, 1)
    assert config.srt == Config().srt


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", "http: {}\n"])
def test_an_empty_file_is_the_defaults(tmp_path, text):
    assert load_config(write(tmp_path, text)) == Config()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http: {lisen: x}", "http.lisen: no such setting; did you mean http.listen?"),
        ("htp: {listen: x}", "htp: no such setting; known are "),
        ("listen: x", "listen: no such setting; did you mean srt.listen?"),
        ("srt: {zzz: 1}", "srt.zzz: no such setting; known are listen, latency_ms"),
        ("1: 2", "1: no such setting"),
        ("workers: two", 'workers: it must be a whole number, not "two"'),
        ('workers: "2"', 'workers: it must be a whole number, not "2"'),
        ("workers: 2.5", "workers: it must be a whole number, not 2.5"),
        ("workers: true", "workers: it must be a whole number, not true"),
        ("workers: 57", "workers: it must be at most 56, not 57"),
        ("workers: -1", "workers: it must be at least 0, not -1"),
        ("workers:", "workers: it must be a whole number, not null"),
        ("pin_workers: 1", "pin_workers: it must be true or false, not 1"),
        ("cpus: 1", "cpus: it must be a list, not 1"),
        ("cpus: [a]", "cpus: it must be a whole number"),
        ("cpus: [-1]", "cpus: CPUs are numbered from 0"),
        ("http: {listen: 8080}", "http.listen: it must be text, not 8080"),
        ("http: 8080", "http: a section was expected, not 8080; it has listen"),
        ("log: {level: loud}", "log.level: it must be 'debug', 'info', 'warning' or 'error'"),
        (
            "arena: {hls_bytes: 3000000}",
            "arena.hls_bytes: 3000000 is no power of two; set it to 2097152 or 4194304",
        ),
        ("arena: {frame_ring_bytes: 4096}", "arena.frame_ring_bytes: it must be at least 65536"),
        ("srt: {listen: somewhere}", 'srt.listen: "somewhere" has no port'),
        ("srt: {listen: '0.0.0.0:99999'}", 'srt.listen: "99999" is no port'),
        ("srt: {listen: 'host.example:1'}", 'srt.listen: "host.example" is no IP address'),
        ("srt: {listen: '::1:80'}", 'srt.listen: an IPv6 address goes in brackets: "[::1]:80"'),
        (
            "hls: {segment_ms: 5000, max_segment_ms: 1000}",
            "hls.max_segment_ms: 1000 is less than hls.segment_ms",
        ),
        ("demo: {stream: a//b}", 'demo.stream: "a//b" is no stream name'),
        (f"control: {{socket: /{'x' * 107}}}", "control.socket: a socket's path has at most 107 bytes"),
        ("- a", "sections were expected at the top"),
        ("http: {listen: a, listen: b}", 'line 1, column 19: "listen" is there twice'),
        ("http: [", "line 1, column 8: "),
        ("workers: 2020-01-01", "workers: it must be a whole number"),
    ],
)
def test_what_is_wrong_in_a_file_is_told(tmp_path, text, expected):
    path = write(tmp_path, text)
    told = message(path)
    assert told.startswith(f"{path}: ")
    assert expected in told


@pytest.mark.parametrize(
    ("name", "raw", "expected"),
    [
        ("flux.toml", b"a =", "mend the TOML there"),
        ("flux.json", b"{", "mend the JSON there"),
        ("flux.yaml", b"\xff", "not UTF-8 at byte 0"),
        ("flux.ini", b"", "its suffix does not tell what it is; name it .yaml, .toml or .json"),
        ("flux.json", b"[" * 100_000, "mend the JSON there"),
        ("flux.yaml", b"#" * ((1 << 20) + 1), "more than 1048576 bytes"),
    ],
)
def test_files_that_are_no_configuration(tmp_path, name, raw, expected):
    path = tmp_path / name
    path.write_bytes(raw)
    told = message(path)
    assert told.startswith(f"{path}: ")
    assert expected in told


def test_a_file_that_is_not_there(tmp_path):
    assert message(tmp_path / "none.yaml") == (
        f"{tmp_path}/none.yaml: no such file or directory; give --config a file that can be read"
    )


@pytest.mark.parametrize(
    ("override", "key", "value"),
    [
        ("http.listen=127.0.0.1:0", "http.listen", "127.0.0.1:0"),
        ("http.listen=[::1]:80", "http.listen", "[::1]:80"),
        ("http.listen=", "http.listen", ""),
        ("workers=2", "workers", 2),
        (" workers = 2 ", "workers", 2),
        ("pin_workers=no", "pin_workers", False),
        ("demo.enabled=true", "demo.enabled", True),
        ("cpus=0,1", "cpus", (0, 1)),
        ("cpus=[3]", "cpus", (3,)),
        ("cpus=", "cpus", ()),
        ("log.level=debug", "log.level", "debug"),
        ("http.cors_origin=a=b", "http.cors_origin", "a=b"),
    ],
)
def test_overrides_are_read_as_the_setting_wants(override, key, value):
    config = load_config(None, [override])
    assert flatten(config) == {**flatten(Config()), key: value}


def test_an_override_wins_over_the_file(tmp_path):
    path = write(tmp_path, "http: {write_interval_ms: 40, cors_origin: x}")
    config = load_config(path, ["http.write_interval_ms=0", "http.write_interval_ms=350"])
    assert (config.http.write_interval_ms, config.http.cors_origin) == (350, "x")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("http.lisen=x", "http.lisen: no such setting; did you mean http.listen?"),
        ("http=x", "http: no such setting; known are listen"),
        ("workers", '"workers" sets nothing; write it as "http.listen=127.0.0.1:8080"'),
        ("workers=x", 'workers: it must be a whole number, not "x"'),
        (
            "workers=99",
            "workers: it must be at most 56, not 99; its default is 0 (Worker processes; 0: one a CPU)",
        ),
        ("pin_workers=maybe", 'pin_workers: it must be true or false, not "maybe"'),
        ("log.level=x", "log.level: it must be 'debug'"),
        ("arena.index_entries=100", "arena.index_entries: 100 is no power of two; set it to 64 or 128"),
    ],
)
def test_what_is_wrong_in_an_override_is_told(override, expected):
    assert message(None, [override]).startswith(expected)


def test_every_setting_says_what_it_is():
    undocumented = [key for key, field in keys().items() if not field.description]
    assert undocumented == []


def test_the_shipped_file_documents_every_setting_with_its_default(request):
    shipped = request.config.rootpath / "etc" / "flux.yaml"
    assert shipped.read_text() == as_yaml(), "run: python -m flux.config.document > etc/flux.yaml"
    assert load_config(shipped) == Config()


def test_flattened_values_come_together_again():
    config = load_config(None, ["http.listen=127.0.0.1:1", "cpus=1,2", "log.level=error"])
    assert unflatten(flatten(config)) == config
