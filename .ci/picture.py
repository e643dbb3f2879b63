"""The pictures in the README, taken by Chromium: a part of the tour's page, the attention explorer, the patching grid, the feature browser, and the persuasion simulator. Run by `make outputs`."""
import os, shutil, sys, tempfile
from itertools import islice
from pathlib import Path

from playwright.sync_api import sync_playwright

import workbench as wb
from workbench.dialogue.arguments import argument
from workbench.dialogue.scripted import Arguer
from workbench.dialogue.tiny import Tiny
from workbench.features import FeatureStore, open_dictionary
from workbench.reporting.run import run
from workbench.tasks.catalogue import make
from workbench.tasks.corpus import rows
from workbench.widgets import AttentionExplorer, FeatureBrowser, PatchingGrid, PersuasionSimulator

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT/"nbs"/"images"


def tour(browser, folder) -> None:
    done = run("tour", {"n_heads": 2}, out=folder)
    page = browser.new_page(viewport={"width": 900, "height": 900}, color_scheme="light")
    page.goto(done.page.as_uri())
    page.wait_for_selector("html[data-ready=true]")
    first, last = page.locator("#which-head-brings-it").bounding_box(), page.locator("#is-it-so").bounding_box()
    page.locator(".wb-bar").evaluate("bar => bar.remove()")
    page.screenshot(path=IMAGES/"tour.png", full_page=True, clip={"x": 0, "y": first["y"], "width": 900, "height": last["y"] - first["y"]})


def explorer(browser, folder) -> None:
    prompt = "When Mary and John went to the store, John gave a drink to"
    shown = AttentionExplorer(wb.load("micro"), prompt, layer=2, head=3, locked=[14], sort="sink", answer=" Mary", foil=" John", edits=[dict(layer=2, head=3, factor=0)])
    page = browser.new_page(viewport={"width": 1040, "height": 900}, color_scheme="light")
    page.goto(shown.to_html(folder/"explorer.html").as_uri())
    while page.evaluate("document.querySelector('.wb-plot')?.clientHeight ?? 0") < 130: page.wait_for_timeout(50)   # the page forbids eval, so it cannot poll itself
    box = page.locator(".wb-plot").bounding_box()
    page.mouse.move(box["x"] + box["width"] * .25, box["y"] + box["height"] * .86)
    page.wait_for_timeout(300)
    page.locator(".wb-attention").screenshot(path=IMAGES/"explorer.png")


def grid(browser, folder) -> None:
    shown = PatchingGrid(wb.load("micro"), make("ioi", n=12)).wait()
    shown.select("attn_out", layer=3, pos=14)
    page = browser.new_page(viewport={"width": 1160, "height": 900}, color_scheme="light")
    page.goto(shown.to_html(folder/"grid.html").as_uri())
    page.wait_for_selector(".wb-patching .wb-side *"); page.wait_for_timeout(500)
    page.locator(".wb-patching").screenshot(path=IMAGES/"grid.png")


def features(browser, folder) -> None:
    lm, sae = wb.load("micro"), open_dictionary("micro/resid_post.2-topk")
    store = FeatureStore(lm, sae, [" ".join(words[1:]) for words, _ in islice(rows(7), 300)], folder/"store").collect()
    found = store.features('tok:"she" density<.05')
    shown = FeatureBrowser(store, lm, sae, feature=int(found[0]), pins=[int(i) for i in found[:8]], per_group=1)
    page = browser.new_page(viewport={"width": 1160, "height": 900}, color_scheme="light")
    page.goto(shown.to_html(folder/"features.html").as_uri())
    page.wait_for_selector(".wb-features .wb-contexts *"); page.wait_for_timeout(500)
    box = page.locator(".wb-features").bounding_box()
    page.screenshot(path=IMAGES/"features.png", full_page=True, clip={**box, "height": min(box["height"], 800)})


def dialogue(browser, folder) -> None:
    shown = PersuasionSimulator(argument(prior=-1.0, rounds=3), dict(A=Arguer((-0.5, 0.5, 1.0)), B=Arguer(), persuadee=Tiny(oracle=True)), runs=20, run=3, turn=2, beside=False)
    page = browser.new_page(viewport={"width": 1160, "height": 900}, color_scheme="light")
    page.goto(shown.to_html(folder/"dialogue.html").as_uri())
    page.wait_for_selector(".wb-dialogue *"); page.wait_for_timeout(500)
    page.locator(".wb-dialogue").screenshot(path=IMAGES/"dialogue.png")


def main() -> None:
    browser_path = os.environ.get("CHROMIUM") or shutil.which("chromium") or sys.exit("The pictures need Chromium (Debian: apt-get install chromium fonts-dejavu-core).")
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as p, tempfile.TemporaryDirectory() as folder:
        browser = p.chromium.launch(executable_path=browser_path, args=["--no-sandbox", "--disable-gpu"])
        for take in (tour, explorer, grid, features, dialogue): take(browser, Path(folder))
        browser.close()
    for image in sorted(IMAGES.glob("*.png")): print(image.relative_to(ROOT), image.stat().st_size)


if __name__ == "__main__": main()
