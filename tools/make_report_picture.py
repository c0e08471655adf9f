"""A picture of the top of a report, for the README: python tools/make_report_picture.py runs/demo/.../report.html

Needs Playwright (extra `dev`) and Debian's chromium.
"""

import argparse
from pathlib import Path

from playwright.sync_api import sync_playwright


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("out", type=Path, nargs="?", default=Path("docs/images/report.png"))
    parser.add_argument("--height", type=int, default=1500)
    parser.add_argument("--chromium", type=Path, default=Path("/usr/bin/chromium"))
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=str(options.chromium), args=["--no-sandbox", "--disable-gpu"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": options.height}, color_scheme="light")
        page.goto(options.page.resolve().as_uri())
        page.screenshot(path=options.out)
        browser.close()
    print(f"{options.out}: {options.out.stat().st_size / 1024:.0f} KB")


if __name__ == "__main__":
    main()
