"""A headless Chromium, driven over the DevTools protocol."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from websockets.sync.client import connect

K_START_S = 30.0
K_CALL_S = 30.0
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-sync",
    "--mute-audio",
    "--remote-debugging-port=0",
)


def find() -> str | None:
    """The browser's path, or None."""
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


class Chromium:
    """One browser with one page; a context manager."""

    def __init__(self, path: str) -> None:
        self._profile = tempfile.TemporaryDirectory(prefix="flux-chromium-", ignore_cleanup_errors=True)
        self._process = subprocess.Popen(
            [path, *FLAGS, f"--user-data-dir={self._profile.name}", "about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._numbers = itertools.count(1)
        self.events: list[dict[str, Any]] = []
        self._target = ""
        self._session: str | None = None
        try:
            port, browser = self._wait_for_port()
            self._socket = connect(f"ws://127.0.0.1:{port}{browser}", max_size=1 << 26, proxy=None)
            self.new_page()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Chromium:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Ends the browser and removes its profile."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if hasattr(self, "_socket"):
            self._socket.close()
        self._profile.cleanup()

    def new_page(self) -> None:
        """Another page, which nothing is known of yet, in place of the one that there was."""
        if self._target:
            self._call("Target.closeTarget", targetId=self._target)
        self._target = self._call("Target.createTarget", url="about:blank")["targetId"]
        attached = self._call("Target.attachToTarget", targetId=self._target, flatten=True)
        self._session = str(attached["sessionId"])
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.events.clear()

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A command to the page. Raises RuntimeError when the browser refuses it."""
        return self._call(method, self._session, **params)

    def open(self, url: str) -> None:
        self.call("Page.navigate", url=url)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; promises are awaited."""
        answer = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True, userGesture=True
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"].get("exception", {}).get("description", expression))
        return answer["result"].get("value")

    def wait(self, expression: str, deadline_s: float = 20.0) -> Any:
        """The expression's value as soon as it is true; it may fail until then. Raises TimeoutError."""
        deadline = time.monotonic() + deadline_s
        while True:
            try:
                value = self.evaluate(expression)
            except RuntimeError as error:
                value = None
                if time.monotonic() > deadline:
                    raise TimeoutError(f"{expression}: {error}; {self.troubles()}") from error
            if value:
                return value
            if time.monotonic() > deadline:
                raise TimeoutError(f"{expression} stayed {value!r} for {deadline_s} s; {self.troubles()}")
            time.sleep(0.1)

    def troubles(self) -> list[str]:
        """What the page complained of: exceptions, and errors in the console and of its policies."""
        found = []
        for event in self.events:
            params = event.get("params", {})
            if event["method"] == "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                found.append(details.get("exception", {}).get("description", details["text"]))
            elif event["method"] == "Log.entryAdded" and params["entry"]["level"] == "error":
                found.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
            elif event["method"] == "Runtime.consoleAPICalled" and params["type"] == "error":
                found.append(" ".join(str(arg.get("value", "")) for arg in params["args"]))
        return found

    def screenshot(self, path: Path, width: int = 1280, height: int = 800, dark: bool = False) -> None:
        """Writes what the page looks like as PNG."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        self.call(
            "Emulation.setEmulatedMedia",
            features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}],
        )
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"]))

    def _wait_for_port(self) -> tuple[str, str]:
        announced = Path(self._profile.name, "DevToolsActivePort")
        deadline = time.monotonic() + K_START_S
        while time.monotonic() < deadline:
            if announced.exists() and len(lines := announced.read_text().split()) == 2:
                return lines[0], lines[1]
            if self._process.poll() is not None:
                raise RuntimeError(f"the browser ended with {self._process.returncode}")
            time.sleep(0.05)
        raise TimeoutError(f"the browser did not start within {K_START_S} s")

    def _call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        number = next(self._numbers)
        request: dict[str, Any] = {"id": number, "method": method, "params": params}
        if session is not None:
            request["sessionId"] = session
        self._socket.send(json.dumps(request))
        while True:
            answer: dict[str, Any] = json.loads(self._socket.recv(timeout=K_CALL_S))
            if answer.get("id") != number:
                if "method" in answer:
                    self.events.append(answer)
                continue
            if "error" in answer:
                raise RuntimeError(f"{method}: {answer['error']['message']}")
            return answer["result"]
