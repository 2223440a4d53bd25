"""Relays in the configuration."""

from __future__ import annotations

import json

import pytest

from flux.config.diff import compare
from flux.config.load import load_config
from flux.config.schema import Config
from flux.config.secrets import shown_stream_id, shown_url
from flux.errors import ConfigError
from flux.srt.relay_url import check_relays, described

PULL = {"name": "a", "url": "srt://h:1?streamid=read:live/a", "stream": "live/a", "direction": "pull"}
PUSH = {**PULL, "name": "b", "url": "srt://h:1?streamid=publish:live/a", "direction": "push"}


def load(tmp_path, *relays):
    path = tmp_path / "flux.json"
    path.write_text(json.dumps({"relays": relays}))
    config = load_config(path)
    check_relays(config)
    return config


def test_relays(tmp_path):
    config = load(tmp_path, PULL, PUSH, {**PULL, "name": "c", "stream": "c", "start": "on_demand"})
    assert [relay.name for relay in config.relays] == ["a", "b", "c"]
    assert config.relays[0].retry_min_ms == 500
    assert config.relays[0].retry_max_ms == 30_000
    assert Config.model_validate_json(config.between_processes()) == config


@pytest.mark.parametrize(
    ("relays", "expected"),
    [
        ([PULL, {**PUSH, "name": "a"}], 'relays[1].name: there is a relay "a" already; give each a name'),
        ([PULL, {**PULL, "name": "c"}], 'relays[1].stream: the relay "a" pulls live/a already'),
        ([{**PULL, "stream": "a b"}], 'relays[0].stream: "a b" is no stream name'),
        ([{**PUSH, "start": "on_demand"}], "relays[0].start: a push is not started on demand"),
        (
            [{**PULL, "retry_min_ms": 100, "retry_max_ms": 50}],
            "relays[0].retry_max_ms: 50 is less than retry_min_ms; set it to 100 or more",
        ),
        ([{**PULL, "retry_min_ms": 1}], "relays[0].retry_min_ms: it must be at least 10"),
        ([{**PULL, "name": ""}], "relays[0].name: it must not be empty"),
        ([{**PULL, "name": "a b"}], "relays[0].name: it must be of A-Z"),
        ([{**PULL, "direction": "both"}], "relays[0].direction: it must be 'pull' or 'push'"),
        ([{**PULL, "urll": "x"}], "relays[0].urll: no such setting; did you mean url?"),
        ([{"name": "a", "stream": "a", "direction": "pull"}], "relays[0].url: it is missing; The other"),
        (["x"], "relays: it must be a section of settings"),
        ([{**PULL, "url": "http://h:1"}], "relays: a: url: http://h:1 is no SRT URL; an SRT URL is srt://"),
        ([{**PULL, "url": "srt://h"}], "relays: a: url: srt://h has no host and port"),
        ([{**PULL, "url": "srt://h:1?x=1"}], "relays: a: url: x= is not known"),
        (
            [{**PULL, "url": "srt://h:1?mode=listener"}],
            "a: url: mode=listener is not offered yet; name",
        ),
        ([{**PULL, "url": "srt://h:1?a=1&mode=rendezvous"}], "url: mode=rendezvous is not offered yet"),
        ([{**PULL, "url": "srt://:1"}], "relays: a: url: a listener is not offered yet"),
        ([{**PULL, "url": PUSH["url"]}], "relays: a: url: publish:live/a asks for the other direction"),
        ([{**PUSH, "url": PULL["url"]}], "relays: b: url: read:live/a asks for the other direction"),
        (
            [{**PULL, "url": "srt://h:1?passphrase=topsecret1&kmrefreshrate=10"}],
            "relays: a: url: kmrefreshrate= and kmpreannounce= are the same for all relays",
        ),
        ([{**PULL, "url": "srt://h:1?passphrase=short"}], "relays: a: url: passphrase= has 5 bytes"),
    ],
)
def test_what_is_refused(tmp_path, relays, expected):
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, *relays)
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


SECRETS = [
    ("srt://h:1?passphrase=topsecret1&latency=1", "srt://h:1?passphrase=…&latency=1"),
    ("srt://h:1?latency=1&PASSPHRASE=top%26secret1", "srt://h:1?latency=1&PASSPHRASE=…"),
    ("srt://h:1?streamid=read:live/a:bob:topsecret1", "srt://h:1?streamid=read:live/a:…"),
    ("srt://h:1?streamid=read%3Alive/a%3Abob%3Atopsecret1", "srt://h:1?streamid=read:live/a:…"),
    ("srt://h:1?streamid=#!::r=live/a,u=bob,s=topsecret1", "srt://h:1?streamid=#!::r=live/a,…"),
    ("srt://h:1?streamid=#!::r=live/a,m=request", "srt://h:1?streamid=#!::r=live/a,m=request"),
    ("srt://h:1?streamid=live/a?token=topsecret1", "srt://h:1?streamid=…"),
    ("srt://topsecret1@h:1", "srt://…@h:1"),
    ("srt://h:1?streamid=read:live/a", "srt://h:1?streamid=read:live/a"),
    ("srt://h:1", "srt://h:1"),
]


@pytest.mark.parametrize(("url", "shown"), SECRETS)
def test_no_secret_is_shown(tmp_path, url, shown):
    assert shown_url(url) == shown
    path = tmp_path / "flux.json"
    path.write_text(json.dumps({"relays": [{**PULL, "url": url}]}))
    config = load_config(path)
    told = [repr(config), config.model_dump_json(), str(described(config.relays[0]))]
    assert "topsecret1" not in "".join(told)
    assert json.loads(config.between_processes())["relays"][0]["url"] == url


@pytest.mark.parametrize(("url", "_"), SECRETS)
def test_no_secret_is_in_an_error(tmp_path, url, _):
    broken = [url.replace("srt:", "http:"), url.replace("h:1", "h")]
    broken += [url.replace("read:", "publish:")] if "read:" in url else []
    for bad in broken:
        with pytest.raises(ConfigError) as caught:
            load(tmp_path, {**PULL, "url": bad})
        assert "secret1" not in str(caught.value)


@pytest.mark.parametrize("text", ["publish:a:b:c", "#!::s=c", "a:b:c", "read:a?c", "#!::s=c,u=c"])
def test_credentials_are_left_out_of_stream_ids(text):
    assert "c" not in shown_stream_id(text).replace("publish", "")


def test_a_change_of_relays_needs_no_restart(tmp_path):
    change = compare(load_config(), load(tmp_path, PULL))
    assert (change.changed, change.needs_restart) == (["relays"], [])
    assert change.config.relays[0].name == "a"
