"""Run a page in headless Chromium and return the object that the page reports."""

import html
import json
import re
import shutil
import subprocess

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")


def reported(page, folder, width, milliseconds):
    """Return the object that a page writes as JSON into the element `result` of the outermost
    window.

    `page` is HTML text, which is written into `folder` and shown in a frame of `width` pixels,
    because a window is wider than 390 pixels. The result is read after the given milliseconds of
    virtual time.
    """
    frame = f'<iframe width="{width}" height="900" style="border:0" srcdoc="{html.escape(page)}">'
    outer = folder / "outer.html"
    outer.write_text(f"<!doctype html><body>{frame}</iframe></body>")
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
