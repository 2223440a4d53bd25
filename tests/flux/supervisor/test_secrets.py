"""Passphrases in a running Flux: workers have them, at once after a reload, and nobody is shown one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flux.srt.client import SrtRefusedError, publish_file

CLIP = Path(__file__).parents[3] / "flux" / "demo" / "demo.ts"
FIRST, SECOND = "the-first-secret", "the-second-secret"


def test_workers_are_told_passphrases_and_nobody_else_is(start, tmp_path):
    config = tmp_path / "flux.yaml"
    config.write_text(f"srt: {{passphrase: {FIRST}}}\n")
    tree = start("srt.listen=127.0.0.1:0", config=config)
    port = tree.call("status")["listeners"]["srt"].rpartition(":")[2]

    def publish(passphrase):
        url = f"srt://127.0.0.1:{port}?streamid=publish:live/cam1&passphrase={passphrase}"
        return publish_file(CLIP, url, duration_s=0.3)

    assert publish(FIRST)["cipher"] == "aes-128-ctr"
    with pytest.raises(SrtRefusedError, match="1010"):
        publish(SECOND)
    config.write_text(f"srt: {{passphrases: {{'live/*': {SECOND}}}}}\n")
    assert tree.call("reload") == {"changed": ["srt.passphrase", "srt.passphrases"], "needs_restart": []}
    assert publish(SECOND)["send_km_state"] == "secured"
    with pytest.raises(SrtRefusedError, match="1010"):
        publish(FIRST)
    config.write_text(f"srt: {{passphrases: {{'live/*': [{SECOND}]}}}}\n")
    tree.signal(1)
    tree.event("reload_refused")
    # A worker that comes later has them as well.
    tree.kill_worker("worker 0")
    tree.kill_worker("worker 1")
    assert publish(SECOND)["send_km_state"] == "secured"
    told = [json.dumps(tree.call(method)) for method in ("status", "streams", "sessions", "stats")]
    told += [tree.log_path.read_text(), tree.out_path.read_text()]
    for pid in (tree.pid, *(process["pid"] for process in tree.processes().values())):
        told += [Path(f"/proc/{pid}/{name}").read_text() for name in ("cmdline", "comm")]
    assert not any(secret in text for text in told for secret in (FIRST, SECOND))
