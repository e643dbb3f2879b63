"""The picture in the README: a part of the tour's page, taken by Chromium. Run by `make outputs`."""
import os, shutil, sys, tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from workbench.reporting.run import run

ROOT = Path(__file__).resolve().parents[1]
TARGET = ROOT/"nbs"/"images"/"tour.png"


def main() -> None:
    browser_path = os.environ.get("CHROMIUM") or shutil.which("chromium") or sys.exit("The picture needs Chromium (Debian: apt-get install chromium fonts-dejavu-core).")
    done = run("tour", {"n_heads": 2}, out=tempfile.mkdtemp())
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 900, "height": 900}, color_scheme="light")
        page.goto(done.page.as_uri())
        page.wait_for_selector("html[data-ready=true]")
        first, last = page.locator("#which-head-brings-it").bounding_box(), page.locator("#is-it-so").bounding_box()
        page.locator(".wb-bar").evaluate("bar => bar.remove()")
        TARGET.parent.mkdir(exist_ok=True)
        page.screenshot(path=TARGET, full_page=True, clip={"x": 0, "y": first["y"], "width": 900, "height": last["y"] - first["y"]})
        browser.close()
    print(TARGET.relative_to(ROOT), TARGET.stat().st_size)


if __name__ == "__main__": main()
