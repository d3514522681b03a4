"""A visit of headless Chromium to the page of a folder."""

import functools
import http.server
import os
import threading

from patience import PATIENCE

SCREENSHOTS = os.environ.get("VITHUB_SCREENSHOTS")  # a folder, to make those of the documents


class Visit:
    """A visit to a folder's page, with all that it asks for and complains of."""

    def __init__(self, browser, folder):
        self.asked = asked = []

        class Handler(http.server.SimpleHTTPRequestHandler):
            def log_message(self, *_):
                asked.append(self.path)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.origin = f"http://127.0.0.1:{self.server.server_port}"
        self.context = browser.new_context(viewport={"width": 1100, "height": 900})
        self.page = self.context.new_page()
        self.page.set_default_timeout(1000 * PATIENCE)
        self.addresses, self.sent, self.complaints = [], [], []
        self.context.on("request", self._note)  # those of the worker too
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", lambda text: text.type == "error" and self.complaints.append(text.text))
        self.page.goto(self.origin)
        self.page.locator("body[data-state]").wait_for()

    def _note(self, request):
        self.addresses.append(request.url)
        if request.method != "GET" or request.post_data is not None:
            self.sent.append(request.url)

    def answers(self, files):
        """The label, probabilities or error that the page shows for each picture, by the name of its file."""
        self.page.set_input_files("#pictures", [str(file) for file in files])
        self.page.locator("#answers > li:is([data-label], [data-objects], [data-refused])").nth(
            len(files) - 1
        ).wait_for()
        found = self.page.eval_on_selector_all("#answers > li", "places => places.map(place => ({...place.dataset}))")
        return {entry["name"]: entry for entry in found}

    def strangers(self):
        """Addresses outside the page's origin that were asked for."""
        return [url for url in self.addresses if not url.startswith((self.origin, f"blob:{self.origin}", "data:,"))]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.context.close()
        self.server.shutdown()
        self.server.server_close()


def vithub_image(file):
    from vithub.data.images import decode_image

    return decode_image(str(file), file.name)
