"""A headless Chromium for the tests, driven through the pipe of its own debugging protocol: no other package."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
PATIENCE_S = 120


def browser_path():
    """Return where a Chromium lies; None where there is none."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


class Browser:
    """One page, and all that it asked for and complained about since it was opened.

    Attributes:
        requests: Addresses that were asked for over a network, or from a file other than the page.
        complaints: Errors and warnings of the console, and exceptions that nothing caught.
    """

    def __init__(self, profile):
        to_it, ours = os.pipe()
        theirs, from_it = os.pipe()

        def wire():  # the protocol wants descriptors 3 and 4
            reading, writing = os.dup(to_it), os.dup(from_it)
            os.dup2(reading, 3)
            os.dup2(writing, 4)

        self._process = subprocess.Popen(
            [browser_path(), "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe",
             "--hide-scrollbars", "--no-first-run", "--disable-background-networking", "--disable-component-update",
             "--disable-sync", "--disable-quic", f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, close_fds=False, preexec_fn=wire,  # noqa: PLW1509
        )  # fmt: skip
        os.close(to_it)
        os.close(from_it)
        self._write, self._read, self._number, self._rest = ours, theirs, 0, b""
        self.requests, self.complaints, self._loaded = [], [], False
        self._session = None
        page = next(t for t in self.ask("Target.getTargets")["targetInfos"] if t["type"] == "page")
        about = {"targetId": page["targetId"], "flatten": True}
        self._session = self.ask("Target.attachToTarget", **about)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.ask(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._session = None
        try:
            self.ask("Browser.close")  # so that its helpers end too
            self._process.wait(10)
        except (OSError, EOFError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._write)
        os.close(self._read)

    def ask(self, method, **parameters):
        """Return the answer to a command of the protocol."""
        self._number += 1
        number = self._number
        session = {"sessionId": self._session} if self._session else {}
        message = {"id": number, "method": method, "params": parameters} | session
        content = json.dumps(message).encode() + b"\0"
        while content:
            content = content[os.write(self._write, content) :]
        while True:
            told = self._hear()
            if told.get("id") == number:
                assert "error" not in told, (method, told["error"])
                return told["result"]

    def show(self, path, *, width, height=900, dark=False, mobile=False):
        """Open a file, or an address, in a window of so many pixels and wait until it is loaded."""
        self.requests, self.complaints, self._loaded = [], [], False
        self.resize(width, height, mobile=mobile)
        self.scheme("dark" if dark else "light")
        self._page = path if isinstance(path, str) else path.as_uri()
        self.ask("Page.navigate", url=self._page)
        while not self._loaded:
            self._hear()

    def resize(self, width, height=900, *, mobile=False):
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def scheme(self, name, media=""):
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.ask("Emulation.setEmulatedMedia", media=media, features=features)

    def run(self, script):
        """Return the value of an expression of JavaScript."""
        told = self.ask("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def screenshot(self, path, *, y=0, height=None):
        """Write the page, or as much of it from `y` on, as PNG."""
        size = self.ask("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": y, "width": size["width"], "height": height or size["height"] - y, "scale": 1}
        told = self.ask("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(told["data"]))

    def pdf(self):
        """Return the page as it prints on A4."""
        told = self.ask("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)
        return base64.b64decode(told["data"])

    def _hear(self):
        deadline = time.monotonic() + PATIENCE_S
        while b"\0" not in self._rest:
            if not select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError("Chromium says nothing")
            read = os.read(self._read, 1 << 20)
            if not read:
                raise EOFError("Chromium has ended")
            self._rest += read
        one, _, self._rest = self._rest.partition(b"\0")
        told = json.loads(one)
        self._note(told.get("method"), told.get("params", {}))
        return told

    def _note(self, event, about):
        if event == "Page.loadEventFired":
            self._loaded = True
        elif event == "Network.requestWillBeSent":
            url = about["request"]["url"]
            if not url.startswith(("data:", "blob:", "about:")) and url != self._page:
                self.requests.append(url)
        elif event == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(about["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(about["args"]))
        elif event == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
            self.complaints.append(about["entry"]["text"])
