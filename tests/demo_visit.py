"""The page of `vithub demo` in a process of its own, and a visit of headless Chromium to it."""

import os
import re
import signal
import threading
from pathlib import Path

import processes
from patience import PATIENCE

SCREENSHOTS = os.environ.get("VITHUB_SCREENSHOTS")  # a folder, to make those of the documents
# Contrast of an element's text with its background (WCAG 2), from 1 to 21.
CONTRAST = """element => {
  const light = colour => {
    const parts = colour.match(/[\\d.]+/g).slice(0, 3).map(part => part / 255);
    const [r, g, b] = parts.map(part => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  let behind = element;
  while (/^(rgba\\(.*, 0\\)|transparent)$/.test(getComputedStyle(behind).backgroundColor) && behind.parentElement)
    behind = behind.parentElement;
  const colours = [getComputedStyle(element).color, getComputedStyle(behind).backgroundColor];
  const [low, high] = colours.map(light).sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
}"""


class Server:
    """`vithub demo`, or another program that serves the page, in a process of its own.

    Args:
        start: Starts the process, given where its output goes.
    """

    def __init__(self, start):
        # gradio itself gives its server 5 seconds to start and its first answer 3, which a busy machine exceeds
        for _ in range(20):
            self._start(start)
            if self.url or not re.search(r"Server failed to start|localhost is not accessible", self.output):
                break
            self.process.wait(PATIENCE)
            self.stdout.close()  # it has ended, and is started once more or is an error
        assert self.url, self.output
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _start(self, start):
        ours, theirs = os.pipe()
        self.process = start(theirs)
        os.close(theirs)
        self.stdout = os.fdopen(ours)
        self.output, self.url = "", None
        for line in self.stdout:
            self.output += line
            if found := re.search(r"serving on (http://\S+)", line):
                self.url = found[1]
                break

    def _read(self):
        for line in self.stdout:
            self.output += line

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.send_signal(signal.SIGINT)
        self.code = self.process.wait(PATIENCE)
        self.reader.join(PATIENCE)
        self.stdout.close()


def serve(*arguments):
    environment = {**os.environ, "GRADIO_ANALYTICS_ENABLED": "True"}
    command = ["demo", *arguments, "--port", processes.free_port()]
    return Server(lambda out: processes.start(processes.COMMAND, command, env=environment, stdout=out, stderr=out))


class Visit:
    """A page in the browser that notes what it asks for and complains of."""

    def __init__(self, browser, url):
        self.page = browser.new_page(viewport={"width": 1280, "height": 1250})
        self.page.set_default_timeout(1000 * PATIENCE)
        self.hosts, self.complaints = set(), []
        self.page.on(
            "request", lambda request: self.hosts.add(request.url.split("/")[2] if "://" in request.url else "")
        )
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda text: text.type == "error" and self.complaints.append(text.text))
        self.page.goto(url)
        self.host = url.split("/")[2]

    def upload(self, file):
        self.page.set_input_files("#photo input[type=file]", str(file))

    def overlay(self, other_than=None, model=0):
        """Address of the map that is shown, once it is another one."""
        self.page.wait_for_function(
            "([id, last]) => { const image = document.querySelector(id);"
            " return image && image.complete && image.src !== last; }",
            arg=[f"#model{model}-overlay img", other_than],
        )
        return self.page.get_attribute(f"#model{model}-overlay img", "src")

    def answer(self, model=0):
        """The classes and their probabilities, once they are there."""
        return self.page.wait_for_function(
            "id => { const text = document.querySelector(id)?.innerText ?? ''; return text.includes('%') && text; }",
            arg=f"#model{model}-answer",
        ).json_value()

    def pixels(self, model=0):
        """The map that is shown, as the browser draws it."""
        return self.page.locator(f"#model{model}-overlay img").screenshot()

    def look_at_schemes(self, name):
        """Text and buttons stand out from what is behind them, in both colour schemes."""
        for scheme in ("light", "dark"):
            self.page.emulate_media(color_scheme=scheme)
            self.page.evaluate("dark => document.body.classList.toggle('dark', dark)", scheme == "dark")
            for selector in ("#cards strong", "#cards dd", "#cards .vithub-button", "#model0-save a"):
                self.page.wait_for_function(  # colours change over 0.2 s
                    f"selector => ({CONTRAST})(document.querySelector(selector)) >= 4.5", arg=selector
                )
            if SCREENSHOTS:
                for width in (360, 1200):
                    self.page.set_viewport_size({"width": width, "height": 900})
                    self.page.screenshot(path=Path(SCREENSHOTS) / f"{name}_{scheme}_{width}.png", full_page=True)

    def close(self, name=None):
        if name and SCREENSHOTS:
            self.page.screenshot(path=Path(SCREENSHOTS) / f"{name}.png", full_page=True)
        self.page.set_viewport_size({"width": 360, "height": 800})  # a phone: nothing lies beside the page
        self.page.wait_for_function("() => document.documentElement.scrollWidth <= window.innerWidth")
        self.page.close()
        assert self.complaints == []
        assert {host for host in self.hosts if host} == {self.host}
