"""Passphrases in a configuration: which stream has which, and where they are not to be seen."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from flux.cext.srt import libcrypto

from flux.cli import main
from flux.config.diff import compare
from flux.config.load import flatten, load_config, unflatten
from flux.config.schema import Config
from flux.errors import ConfigError
from flux.srt.encryption import passphrase_of, require_library

SECRETS = ("top secret one", "top secret two")
TEXT = f"""
srt:
  passphrase: {SECRETS[0]}
  passphrases: {{"live/*": {SECRETS[1]}, "live/open": "", "open/*": ""}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "flux.yaml"
    path.write_text(TEXT)
    return path


@pytest.mark.parametrize(
    ("stream", "passphrase"),
    [
        ("other", SECRETS[0]),
        ("live/cam1", SECRETS[1]),
        ("live/a/b", SECRETS[1]),
        ("live/open", SECRETS[1]),
        ("open/cam1", ""),
        ("Live/cam1", SECRETS[0]),
    ],
)
def test_the_first_pattern_that_fits_counts(file: Path, stream: str, passphrase: str) -> None:
    assert passphrase_of(load_config(file).srt, stream) == passphrase


def test_without_passphrases_streams_are_in_the_clear() -> None:
    assert passphrase_of(Config().srt, "live/cam1") == ""


def test_secrets_are_in_nothing_that_is_shown(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = load_config(file)
    assert main(["check", "--config", str(file)]) == 0
    assert main(["check", "--config", str(file), "--json"]) == 0
    said = capsys.readouterr()
    shown = [said.out, said.err, repr(config), str(config), config.model_dump_json(), repr(flatten(config))]
    for text in shown:
        assert not any(secret in text for secret in SECRETS)
    assert "srt.passphrase = **********" in said.out
    assert 'srt.passphrases = live/*: **********, live/open: "", open/*: ""' in said.out


def test_json_tells_which_streams_have_one(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--config", str(file), "--json"]) == 0
    settings = json.loads(capsys.readouterr().out)
    assert settings["srt.passphrase"] == "**********"
    assert settings["srt.passphrases"] == {"live/*": "**********", "live/open": "", "open/*": ""}


def test_processes_tell_each_other(file: Path) -> None:
    config = load_config(file)
    assert Config.model_validate_json(config.between_processes()) == config
    assert unflatten(flatten(config)) == config


def test_changes_are_told_without_them_and_need_no_restart(file: Path) -> None:
    change = compare(load_config(), load_config(file))
    assert (change.changed, change.needs_restart) == (["srt.passphrase", "srt.passphrases"], [])
    assert passphrase_of(change.config.srt, "live/cam1") == SECRETS[1]


def test_an_override_sets_one() -> None:
    assert passphrase_of(load_config(None, [f"srt.passphrase={SECRETS[0]}"]).srt, "x") == SECRETS[0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "srt: {passphrase: topsecret}",
            "srt.passphrase: 9 bytes are no passphrase of SRT; take 10 to 80 bytes",
        ),
        (f"srt: {{passphrase: topsecret{'t' * 80}}}", "srt.passphrase: 89 bytes are no passphrase of SRT"),
        ("srt: {passphrase: 12345678901}", "srt.passphrase: it must be text; its default is"),
        ("srt: {passphrase: [topsecret]}", "srt.passphrase: it must be text"),
        ("srt: {passphrases: topsecret}", "srt.passphrases: it must be a section of names and texts"),
        ("srt: {passphrases: {x: topsecret}}", "srt.passphrases.x: 9 bytes are no passphrase"),
        ("srt: {passphrases: {x: [topsecret]}}", "srt.passphrases.x: it must be text"),
        ("srt: {passphrases: {/x: topsecretx}}", 'srt.passphrases: "/x" is no pattern of stream names'),
        ("srt: {passphrases: {x/../y: topsecretx}}", "is no pattern of stream names"),
        ("srt: {pasphrase: topsecretx}", "srt.pasphrase: no such setting; did you mean srt.passphrase?"),
        ("srt: {pbkeylen: 20}", "srt.pbkeylen: AES has no key of 20 bytes; set it to 16, 24 or 32, or to 0"),
        ("srt: {pbkeylen: 64}", "srt.pbkeylen: it must be at most 32, not 64"),
        ("srt: {crypto_mode: cbc}", "srt.crypto_mode: it must be 'auto', 'ctr' or 'gcm'"),
        (
            "srt: {km_refresh_rate_pkts: 1000}",
            "srt.km_preannounce_pkts: 4096 is half of srt.km_refresh_rate_pkts, or more; set it to 499 or",
        ),
    ],
)
def test_what_is_wrong_is_told_without_them(file: Path, text: str, told: str) -> None:
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_config(file)
    assert told in str(caught.value)
    assert not any(secret in str(caught.value) for secret in ("topsecret", "12345678901"))


@pytest.mark.parametrize("override", ["srt.passphrase=topsecret", "srt.passphrases=topsecret"])
def test_what_is_wrong_in_an_override_is_told_without_them(override: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(None, [override])
    assert "topsecret" not in str(caught.value)


def test_a_machine_without_libcrypto_is_told_so_where_encryption_is_wanted(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load() -> None:
        raise RuntimeError("encryption needs OpenSSL's libcrypto; install the package libssl3")

    monkeypatch.setattr(libcrypto, "load", load)
    require_library(Config().srt)
    require_library(load_config(file, ["srt.listen="]).srt)
    for command in ("check", "serve"):
        assert main([command, "--config", str(file)]) == 2
        error = capsys.readouterr().err
        assert "srt.passphrase: encryption needs OpenSSL's libcrypto; install the package libssl3" in error
