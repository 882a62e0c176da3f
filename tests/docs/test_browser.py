"""The documentation site in a real browser: no page is wider than the window, and commands are copied without prompts.

Runs only if ``SITE_BROWSER`` names Chromium: ``make test-site``. ``test_site.py`` checks the usual causes of wide pages
everywhere.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, Queue
from typing import Any, Final

import pytest

from tests.deadlines import LONG_SECONDS
from tests.docs.pages import ROOT

BROWSER: Final = os.environ.get("SITE_BROWSER", "")
PHONE: Final = 390  # pixels
DESKTOP: Final = 1280
_OPTIONS: Final = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")
_MEASURE: Final = """<!doctype html><meta charset="utf-8"><script type="module">
const result = {wide: [], measured: 0, copied: {}, found: {}};
const frame = document.createElement("iframe");
document.body.append(frame);
for (const [path, width] of PAGES) {
  frame.style = `border: 0; height: 800px; width: ${width}px`;
  await new Promise(loaded => { frame.onload = loaded; frame.src = path; });
  const page = frame.contentDocument, found = page.documentElement.scrollWidth;
  result.measured += page.querySelector(".md-content") ? 1 : 0;
  if (found > width) result.wide.push([path, width, found]);
  const code = page.querySelector(".language-console code");
  if (!code) continue;
  code.setAttribute("data-md-copying", "");  // as the button does
  result.copied[path] = code.innerText;
}
for (const words of SEARCHES) {
  await new Promise(loaded => { frame.onload = loaded; frame.src = `/index.html?q=${words}`; });
  let link;
  while (!(link = frame.contentDocument.querySelector(".md-search-result__link"))) {
    await new Promise(later => setTimeout(later, 50));
  }
  result.found[words] = new URL(link.href).pathname;
}
fetch("/result", {method: "POST", body: JSON.stringify(result)});
</script>"""

pytestmark = [pytest.mark.e2e, pytest.mark.skipif(not BROWSER, reason="SITE_BROWSER names no browser")]


class Handler(SimpleHTTPRequestHandler):
    """A handler of requests for pages, and of the one with the result."""

    def __init__(self, results: Queue[bytes], *args: Any, **options: Any) -> None:
        """Keep the queue for results."""
        self._results = results
        super().__init__(*args, **options)

    def do_POST(self) -> None:
        """Take the result."""
        self._results.put(self.rfile.read(int(self.headers["Content-Length"])))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        """Log nothing."""


@contextmanager
def served(directory: Path) -> Iterator[tuple[str, Queue[bytes]]]:
    """Yield the URL at which a directory is served, and the queue of results."""
    results: Queue[bytes] = Queue()
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, results, directory=str(directory))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", results
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the directory of the built pages."""
    directory = tmp_path_factory.mktemp("browser") / "built"
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(directory)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        timeout=LONG_SECONDS,
        check=True,
    )
    return directory


def measure(built: Path, pages: list[tuple[str, int]], profile: Path, searches: Sequence[str] = ()) -> dict[str, Any]:
    """Return what the browser reports about these pages at these widths, and the first result of each search."""
    script = _MEASURE.replace("PAGES", json.dumps(pages)).replace("SEARCHES", json.dumps(searches))
    (built / "measure.html").write_text(script, encoding="utf-8")
    with served(built) as (url, results):
        command = [BROWSER, *_OPTIONS, f"--user-data-dir={profile}", "--remote-debugging-port=0", f"{url}/measure.html"]
        browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            result: dict[str, Any] = json.loads(results.get(timeout=LONG_SECONDS))
        except Empty:
            pytest.fail(f"{BROWSER} reported nothing")
        finally:
            browser.terminate()
            browser.wait()
    return result


def test_no_page_scrolls_sideways_and_commands_are_copied_without_prompts(built: Path, tmp_path: Path) -> None:
    pages = [f"/{path.relative_to(built)}" for path in sorted(built.rglob("index.html"))]
    result = measure(built, [(page, width) for page in pages for width in (PHONE, DESKTOP)], tmp_path)
    assert result["measured"] == 2 * len(pages)
    assert result["wide"] == []
    assert result["copied"]["/tutorial/index.html"].splitlines()[0] == "python3 -m venv venv"
    assert [page for page, copied in result["copied"].items() if copied.startswith("$")] == []


def test_wide_page_is_noticed(built: Path, tmp_path: Path) -> None:
    page = built / "wide" / "index.html"
    page.parent.mkdir()
    page.write_text('<div class="md-content"><div style="width:500px">x</div></div>', encoding="utf-8")
    result = measure(built, [("/wide/index.html", PHONE)], tmp_path)
    page.unlink()
    assert [path for path, *_ in result["wide"]] == ["/wide/index.html"]


def test_search_finds_the_page_about_a_word(built: Path, tmp_path: Path) -> None:
    pages = {"install": "/install/", "tutorial": "/tutorial/", "glossary": "/glossary/"}
    assert measure(built, [], tmp_path, list(pages))["found"] == pages
