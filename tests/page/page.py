"""Tests the status page in a real Chromium: page.py AFFECTD FOLDER. Screenshots go to FOLDER."""

import os
import shlex
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from browser import Browser, wait_for

CLIP = Path(__file__).parents[2] / "models/demo.mkv"
TOKEN = "a-token-of-the-test-0123"
REACHES_BOTH = "view.last && view.last.modalities.length === 2 && view.last.outline !== null"

WIDEST = "Math.max(document.documentElement.scrollWidth, innerWidth)"
MISPLACED = (Path(__file__).parent / "layout.js").read_text()


class Affectd:
    """A running affectd with a status page. The demo clip takes the place of camera and microphone."""

    def __init__(self, program: str, folder: Path, port: int = 0, **settings: str):
        clip = shlex.quote(str(CLIP))
        play = f"command:exec ffmpeg -v quiet -re -stream_loop -1 -i {clip}"
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AFFECTD_")}
        environment |= {"AFFECTD_CONFIG": "/dev/null"} | settings
        arguments = ["run", "--status", f"127.0.0.1:{port}", "--output", f"file:{folder / 'estimates.jsonl'}"]
        arguments += ["--camera", f"{play} -an -c:v copy -f mjpeg -"]
        arguments += ["--microphone", f"{play} -vn -ac 1 -ar 16000 -f s16le -"]
        self.log = folder / "log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen([program, *arguments], env=environment, stderr=log)
        self.address = wait_for("the address of the page", self.read_address)

    def read_address(self) -> str:
        return self.log.read_text().split("status page: http://")[1].split("/")[0]

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(20) == 0, self.log.read_text()

    def __enter__(self) -> "Affectd":
        return self

    def __exit__(self, *_):
        # A failed test leaves no process behind.
        self.process.kill()


def check(what: str, is_true: bool):
    print(f"{'ok  ' if is_true else 'FAIL'}  {what}", flush=True)
    assert is_true, what


def test_page(program: str, folder: Path, screenshots: Path, browser: Browser):
    with Affectd(program, folder, AFFECTD_STATUS_PREVIEW="image") as affectd:
        port = int(affectd.address.split(":")[1])
        look_at_page(affectd, screenshots, browser)
        affectd.stop()
    browser.until("$('state').dataset.kind === 'lost'")
    with Affectd(program, folder, port) as affectd:
        browser.until(f"$('state').dataset.kind === 'live' && view.preview === 'outline' && {REACHES_BOTH}")
        check(
            "the page goes on after a restart of affectd, with its new settings", browser.value("view.image === null")
        )
        affectd.stop()
    # The browser notes each request that affectd does not answer: of the image until the first one is there, and of all while
    # affectd is away.
    expected = ("ERR_CONNECTION_REFUSED", "ERR_CONNECTION_RESET", "ERR_INCOMPLETE_CHUNKED_ENCODING", "status of 503")
    faults = [message for message in browser.messages if not any(text in message for text in expected)]
    print(*faults, sep="\n")
    check("the console has no errors", not faults)


def look_at_page(affectd: Affectd, screenshots: Path, browser: Browser):
    browser.screen(1200, 900, "light")
    browser.call("Page.navigate", url=f"http://{affectd.address}/")
    browser.until(f"typeof view === 'object' && {REACHES_BOTH}")
    before = browser.value("view.last.seq")
    browser.until(f"view.last.seq > {before} && $('valence').textContent !== '–'")
    check("values move while the clip plays", True)
    browser.until(f"view.image && {REACHES_BOTH}")
    check("the image of the camera is shown if the settings allow it", browser.value("view.image.width") == 320)
    browser.screenshot(screenshots / "light.png")
    browser.screen(1200, 900, "dark")
    browser.screenshot(screenshots / "dark.png")
    browser.screen(390, 844, "light", mobile=True)
    check("a phone needs no scrolling to the side", browser.value(WIDEST) <= 390)
    browser.screenshot(screenshots / "phone.png")
    browser.screen(320, 640, "dark", mobile=True)
    # A page that is too wide makes a phone zoom out, so it is compared with the width of the screen.
    check("a phone of 320 pixels needs no scrolling to the side", browser.value(WIDEST) <= 320)
    misplaced = browser.value(MISPLACED)
    check(f"no text sticks out or covers another one there ({misplaced})", misplaced == [])
    browser.screenshot(screenshots / "narrow.png")
    browser.screen(1200, 900, "light")

    browser.key("p")
    browser.until("view.paused && $('pause').textContent === 'Resume' && view.image === null")
    check("a key pauses, and the image is gone", True)
    browser.key("p")
    browser.until(f"!view.paused && {REACHES_BOTH}")
    check("the same key resumes", True)
    browser.value("$('course').focus()")
    browser.value("$('course').dispatchEvent(new KeyboardEvent('keydown', {key: 'ArrowLeft', bubbles: true}))")
    browser.until("$('reading').textContent.includes('valence')")
    check("arrow keys read values from the chart", True)


def test_token(program: str, folder: Path, browser: Browser):
    token = folder / "token"
    token.write_text(TOKEN)
    with Affectd(program, folder, AFFECTD_STATUS_TOKEN=str(token)) as affectd:
        browser.call("Page.navigate", url=f"http://{affectd.address}/")
        browser.until("typeof view === 'object' && $('login').open")
        enter = "$('token').value = {!r}; $('login-form').requestSubmit()"
        browser.value(enter.format("a-wrong-token-012345"))
        browser.until("$('login').open && $('login-text').textContent.includes('wrong')")
        check("a wrong token is refused, and shows nothing", browser.value("view.last === null"))
        browser.value(enter.format(TOKEN))
        browser.until(REACHES_BOTH)
        check("the right token opens the page", True)
        affectd.stop()


def main():
    program, screenshots = sys.argv[1], Path(sys.argv[2])
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        browser = Browser(Path(folder) / "profile")
        try:
            test_page(program, Path(folder), screenshots, browser)
            test_token(program, Path(folder), browser)
        finally:
            browser.close()


main()
