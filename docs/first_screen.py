"""Take the picture of the first screen of a page on a fit, which the README shows.

    python docs/first_screen.py

writes docs/report.png. It needs scikit-learn, for the diabetes data, and Chromium.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from sklearn.datasets import load_diabetes
from sklearn.preprocessing import scale

import fastcurv as fc

PICTURE = Path(__file__).resolve().with_name("report.png")
SIZE = "1100,560"  # of the window, in pixels of the page
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def page() -> Any:
    """Return the page on a fit to the diabetes data."""
    data = load_diabetes(scaled=False)
    X, y = scale(data.data), data.target
    est = fc.MLPRegressor((10,), "tanh", alpha="evidence", random_state=0).fit(X, y)
    return fc.report(est, X, y, names=data.feature_names, target="progression")


def main() -> None:
    """Write the page to a temporary file, and take a picture of its top."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit(f"one of {', '.join(BROWSERS)} must be installed.")
    with tempfile.TemporaryDirectory() as folder:
        path = page().write(Path(folder) / "report.html")
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        options += [f"--user-data-dir={folder}", "--force-device-scale-factor=1.1"]
        options += [f"--window-size={SIZE}", f"--screenshot={PICTURE}", path.as_uri()]
        subprocess.run([browser, *options], check=True, capture_output=True, timeout=120)


if __name__ == "__main__":
    main()
