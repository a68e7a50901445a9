"""A Chromium without a window, steered over the DevTools protocol."""

import base64
import json
import subprocess
import time
import urllib.request
from pathlib import Path

import websocket

# Far longer than anything takes, even on a busy machine.
TIMEOUT_S = 60


class Browser:
    """One tab. `messages` collects what the page writes to the console, and its errors."""

    def __init__(self, folder: Path):
        arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--hide-scrollbars",
            "--remote-debugging-port=0",
        ]
        arguments += ["--remote-allow-origins=*", f"--user-data-dir={folder}", "about:blank"]
        self.process = subprocess.Popen(["chromium", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        port = wait_for("Chromium's port", lambda: (folder / "DevToolsActivePort").read_text().split()[0])
        tabs = wait_for("a tab of Chromium", lambda: tabs_of(port))
        self.socket = websocket.create_connection(tabs[0]["webSocketDebuggerUrl"], timeout=TIMEOUT_S)
        self.last_id = 0
        self.messages = []
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters):
        """The result of a method of the protocol."""
        self.last_id += 1
        self.socket.send(json.dumps({"id": self.last_id, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv())
            if message.get("id") == self.last_id:
                return message.get("result", {})
            if message.get("method") in ("Runtime.consoleAPICalled", "Log.entryAdded", "Runtime.exceptionThrown"):
                self.messages.append(json.dumps(message["params"])[:400])

    def value(self, expression: str):
        """The value of a JavaScript expression in the page."""
        return self.call("Runtime.evaluate", expression=expression, returnByValue=True)["result"].get("value")

    def until(self, expression: str):
        """Waits until the expression is true."""
        wait_for(expression, lambda: self.value(expression))

    def key(self, key: str):
        self.value(
            f"document.body.dispatchEvent(new KeyboardEvent('keydown', {{key: {json.dumps(key)}, bubbles: true}}))"
        )

    def screen(self, width: int, height: int, scheme: str, mobile: bool = False):
        """Sets the size of the window, and whether the system is light or dark."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.call("Emulation.setDeviceMetricsOverride", **size)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])

    def screenshot(self, path: Path):
        """The whole page, also what is below the window."""
        width, height = self.value("innerWidth"), self.value("document.documentElement.scrollHeight")
        clip = {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}
        image = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(image["data"]))

    def close(self):
        self.process.terminate()
        self.process.wait()


def tabs_of(port: str):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=TIMEOUT_S) as answer:
        return [tab for tab in json.load(answer) if tab["type"] == "page"]


def wait_for(what: str, look):
    """The first result of `look` that is true. Errors of the system count as false, because things are still starting."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            result = look()
        except (OSError, IndexError):
            result = None
        if result:
            return result
        time.sleep(0.1)
    raise AssertionError(f"after {TIMEOUT_S} s, still not: {what}")
