"""Run a page in headless Chromium and return the object that the page reports."""

import html
import json
import re
import shutil
import subprocess

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


RUN = """<script>
const frame = document.querySelector("iframe");
frame.addEventListener("load", () => {
  const pre = document.createElement("pre");
  pre.id = "result";
  pre.textContent = JSON.stringify((SCRIPT)(frame.contentDocument, frame.contentWindow));
  document.body.appendChild(pre);
});
</script>"""


def reported(page, folder, width, milliseconds, script=None):
    """Return the object that a page writes as JSON into the element `result` of the outermost
    window.

    `page` is HTML text, which is written into `folder` and shown in a frame of `width` pixels,
    because a window is wider than 390 pixels. The result is read after the given milliseconds of
    virtual time. If `script` is given, it is a function of the page's document and window that
    returns the object; it runs outside the page, whose content policy allows no other scripts.
    """
    frame = f'<iframe width="{width}" height="900" style="border:0" srcdoc="{html.escape(page)}">'
    outer = folder / "outer.html"
    run = "" if script is None else RUN.replace("SCRIPT", script)
    outer.write_text(f"<!doctype html><meta charset=utf-8><body>{frame}</iframe>{run}</body>")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    command += [f"--user-data-dir={folder / 'profile'}", "--window-size=1400,1000"]
    run = subprocess.run(
        [*command, f"--virtual-time-budget={milliseconds}", "--dump-dom", outer.as_uri()],
        capture_output=True,
        text=True,
        timeout=1200,
    )
    assert "CONSOLE" not in run.stderr, run.stderr
    return json.loads(html.unescape(re.search(r'id="result">(.*?)</pre>', run.stdout)[1]))
