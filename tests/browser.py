"""A headless Chromium for the tests, driven over a pipe by its DevTools protocol; no other package is needed."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
TIMEOUT_S = 120


def browser_path():
    """Return the path of a Chromium; None if there is none."""
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


class Browser:
    """One page, with its network requests and console errors since it was opened.

    Attributes:
        requests: URLs requested by the page, other than its own.
        complaints: Console errors and warnings, and uncaught exceptions.
    """

    def __init__(self, profile):
        browser_read, our_write = os.pipe()
        our_read, browser_write = os.pipe()

        def connect():  # Chromium reads from descriptor 3 and writes to 4
            reading, writing = os.dup(browser_read), os.dup(browser_write)
            os.dup2(reading, 3)
            os.dup2(writing, 4)

        self._process = subprocess.Popen(
            [browser_path(), "--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe",
             "--hide-scrollbars", "--no-first-run", "--disable-background-networking", "--disable-component-update",
             "--disable-sync", "--disable-quic", f"--user-data-dir={profile}", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, close_fds=False, preexec_fn=connect,  # noqa: PLW1509
        )  # fmt: skip
        os.close(browser_read)
        os.close(browser_write)
        self._write, self._read, self._number, self._rest = our_write, our_read, 0, b""
        self.requests, self.complaints, self._loaded = [], [], False
        self._session = None
        page = next(t for t in self.command("Target.getTargets")["targetInfos"] if t["type"] == "page")
        target = {"targetId": page["targetId"], "flatten": True}
        self._session = self.command("Target.attachToTarget", **target)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.command(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self._session = None
        try:
            self.command("Browser.close")  # also ends its child processes
            self._process.wait(10)
        except (OSError, EOFError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        os.close(self._write)
        os.close(self._read)

    def command(self, method, **parameters):
        """Send a command of the DevTools protocol and return its result."""
        self._number += 1
        number = self._number
        session = {"sessionId": self._session} if self._session else {}
        message = {"id": number, "method": method, "params": parameters} | session
        content = json.dumps(message).encode() + b"\0"
        while content:
            content = content[os.write(self._write, content) :]
        while True:
            reply = self._receive()
            if reply.get("id") == number:
                assert "error" not in reply, (method, reply["error"])
                return reply["result"]

    def show(self, path, *, width, height=900, dark=False, mobile=False):
        """Open a file or a URL in a window of this size, and wait until it is loaded."""
        self.requests, self.complaints, self._loaded = [], [], False
        self.resize(width, height, mobile=mobile)
        self.scheme("dark" if dark else "light")
        self._page = path if isinstance(path, str) else path.as_uri()
        self.command("Page.navigate", url=self._page)
        while not self._loaded:
            self._receive()

    def resize(self, width, height=900, *, mobile=False):
        self.command(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile
        )

    def scheme(self, name, media=""):
        features = [{"name": "prefers-color-scheme", "value": name}]
        self.command("Emulation.setEmulatedMedia", media=media, features=features)

    def run(self, script):
        """Return the value of a JavaScript expression."""
        reply = self.command("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in reply, reply["exceptionDetails"]
        return reply["result"].get("value")

    def screenshot(self, path, *, y=0, height=None):
        """Write the page as PNG, or `height` pixels of it from `y` on."""
        size = self.command("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": y, "width": size["width"], "height": height or size["height"] - y, "scale": 1}
        reply = self.command("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(reply["data"]))

    def pdf(self):
        """Return the page printed as A4 PDF."""
        reply = self.command("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)
        return base64.b64decode(reply["data"])

    def _receive(self):
        deadline = time.monotonic() + TIMEOUT_S
        while b"\0" not in self._rest:
            if not select.select([self._read], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise TimeoutError(f"Chromium sent nothing for {TIMEOUT_S} s")
            read = os.read(self._read, 1 << 20)
            if not read:
                raise EOFError("Chromium has exited")
            self._rest += read
        message, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(message)
        self._record(message.get("method"), message.get("params", {}))
        return message

    def _record(self, event, about):
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
