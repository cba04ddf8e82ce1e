"""Makes the README's picture anew from the bundled examples: python -m tests.screenshots"""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests import browser

FOLDER = browser.ROOT / "docs" / "images"
SHOTS = {"story.png": "story?step=4"}  # file -> page and view, of the first example
SIZE = {"width": 1400, "height": 1120}


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as empty, browser.served(Path(empty) / "runs") as address, \
            browser.browser() as running:
        for file, view in SHOTS.items():
            with browser.tab(running, f"{address}/{view}", **SIZE) as page:
                page.wait_for_timeout(1500)  # until charts have their last size
                page.screenshot(path=FOLDER / file)
                print(FOLDER / file)


if __name__ == "__main__":
    main()
