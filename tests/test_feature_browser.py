"The feature browser in a real Chromium: its page from `file://` without network, and alive in a real JupyterLab, where it is searched, tried on a text, steered, followed to other rooms, and read back from Python."
import re

import nbformat
import numpy as np
import pytest

expect = pytest.importorskip("playwright.sync_api").expect

from conftest import new_page, notebook, until
from test_explorer_browser import RUN_CELL, quiet
from test_feature_widget import SITE, TEXT, store_of
from test_grid_browser import says
from workbench import load
from workbench.tasks import make
from workbench.widgets.base import Widget, fragment, PAGE
from workbench.widgets.feature_browser import FeatureBrowser
from workbench.widgets.feature_data import json_chunk

pytestmark = pytest.mark.browser
READY = "() => document.querySelector('.wb-features h3')?.textContent.startsWith('Feature') && document.querySelectorAll('.wb-features .wb-context').length + document.querySelectorAll('.wb-features .wb-detail .wb-note').length > 1"
UNNAMED = "() => [...document.querySelectorAll('.wb-features :is(input, select, textarea, button)')].filter(e => !e.closest('label') && !e.getAttribute('aria-label') && !e.title && !e.textContent.trim()).length"


def ready(page, path): page.goto(path.as_uri()); until(page, READY); return page
def rows(page): return page.locator(".wb-features .wb-sheet [role=row]")
def chosen(page): return page.locator(".wb-features .wb-sheet [role=row][aria-selected=true]")
def title(page): return page.locator(".wb-features h3")
def readout(page): return page.locator(".wb-features .wb-readout")
def contexts(page): return page.locator(".wb-features .wb-contexts .wb-context")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    lm = load("micro"); s = store_of(tmp_path_factory.mktemp("features")/"s", lm, make("ioi", n=40)); f = int(s.features()[0]); s.describe(f, "names </script><img src=x onerror='window.hit=1'> 👑 שלום", "top tokens", .81, .72, .88)
    w = FeatureBrowser(s, text=TEXT, prompt=TEXT, strength=2.); w.pins = [f, *map(int, s.features("density<.02 alive", "density")[:2]), int(s.features("dead")[0])]; return w


@pytest.fixture(scope="module")
def page_file(made, tmp_path_factory): return made.to_html(tmp_path_factory.mktemp("page")/"f.html")
@pytest.fixture
def shown(offline_page, page_file): return ready(offline_page, page_file)


# --- a page without kernel and network -----------------------------------------------------------------------------------
def test_a_page_says_what_it_holds_and_shows_it(shown, made):
    r = made.record(); expect(shown.locator(".wb-features > .wb-note").first).to_contain_text("This page holds 4 of 400 features: the pinned ones"); expect(rows(shown)).to_have_count(4); expect(title(shown)).to_have_text(f"Feature {made.feature}")
    assert shown.evaluate("window.hit") is None and shown.locator(".wb-labels").inner_text().startswith("names </script><img") and "[0.72, 0.88]" in shown.locator(".wb-labels").inner_text()
    assert f"{r['fired']} of {r['n']}" in shown.locator(".wb-spread").get_attribute("aria-label") and "10 quantile groups" in shown.locator(".wb-histogram").get_attribute("aria-label")
    expect(shown.locator(".wb-group").first).to_contain_text("strongest"); expect(shown.locator(".wb-group").last).to_contain_text("silent"); peak = contexts(shown).first.locator(".peak"); peak.hover()
    value = float(re.search(r'" ([\d.]+), ([\d.]+) of the largest, group 10 of 10, above', readout(shown).inner_text())[1]); assert value == pytest.approx(r["max"], rel=1e-3)
    assert shown.locator(".wb-tested .wb-token").count() == len(made.test(TEXT)) and "no kernel" in shown.locator(".wb-tries").inner_text(); kl = float(re.search(r"at the last token ([\d.e-]+)", shown.locator(".wb-steered").inner_text())[1].rstrip(".")); assert kl == pytest.approx(made.steer()["kl"][-1], rel=2e-2)
    assert quiet(shown)


def test_one_scale_for_a_feature(shown, made):
    "The same value has the same tint in every context, and a stronger one is darker."
    look = shown.evaluate("() => [...document.querySelectorAll('.wb-contexts [data-v]')].filter(t => +t.dataset.v > 0).map(t => [+t.dataset.v, t.style.background.match(/\\d+/g).map(Number).reduce((a, b) => a + b)])"); look.sort()
    assert len(look) > 15 and all(a[1] >= b[1] for a, b in zip(look, look[1:])) and look[0][1] > look[-1][1]
    assert shown.evaluate("() => [...document.querySelectorAll('.wb-contexts [data-v=\"0\"]')].every(t => !t.style.background)")


def test_everything_by_keyboard(shown, made):
    grid = shown.locator("[role=grid]"); grid.focus(); shown.keyboard.press("ArrowDown"); expect(title(shown)).to_have_text(f"Feature {rows(shown).nth(1).locator('.wb-id').inner_text()}")
    expect(chosen(shown)).to_have_count(1); assert grid.get_attribute("aria-activedescendant") == chosen(shown).get_attribute("id") and grid.get_attribute("aria-rowcount") == "5"
    shown.keyboard.press("p"); expect(chosen(shown).locator(".wb-star")).to_have_text("☆"); shown.keyboard.press("Home"); expect(title(shown)).to_have_text(f"Feature {made.feature}")
    shown.keyboard.press("Enter"); contexts(shown).first.focus(); expect(readout(shown)).to_contain_text("of the largest"); shown.keyboard.press("ArrowDown"); expect(contexts(shown).nth(1)).to_be_focused(); shown.keyboard.press("Enter")
    expect(contexts(shown).nth(1)).to_have_attribute("aria-expanded", "true"); expect(contexts(shown).nth(1)).to_contain_text("not kept"); expect(contexts(shown).nth(1)).to_be_focused(); shown.keyboard.press("Enter"); expect(contexts(shown).nth(1)).to_have_attribute("aria-expanded", "false")
    shown.get_by_label("Search features").fill("שלום"); expect(rows(shown)).to_have_count(1); shown.get_by_label("Search features").fill("nothing at all"); expect(shown.locator(".wb-empty")).to_be_visible(); assert quiet(shown)


def test_a_dead_feature_is_silent_not_zero(shown, made):
    shown.locator("[role=grid]").focus(); shown.keyboard.press("End"); expect(title(shown)).to_have_text(f"Feature {made.pins[-1]}"); expect(shown.locator(".wb-badge")).to_have_text("dead")
    assert shown.locator(".wb-histogram").count() == 0 and "never fired" in shown.locator(".wb-detail").inner_text() and shown.locator(".wb-group").count() == 1 and quiet(shown)
    expect(shown.locator(".wb-steered")).to_contain_text("does not hold it")


def test_roles_and_labels(shown):
    assert shown.evaluate(UNNAMED) == 0 and shown.locator("[role=status][aria-live]").count() == 1 and shown.locator("article[aria-label], section[aria-label]").count() == 2
    assert shown.evaluate("() => [...document.querySelectorAll('.wb-features [role=row]')].every(r => r.closest('[role=grid]') && [...r.children].every(c => ['gridcell', 'columnheader'].includes(c.getAttribute('role'))))")
    assert shown.locator("[aria-sort=descending]").count() == 1 and shown.evaluate("() => new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size === document.querySelectorAll('[id]').length")
    shown.get_by_role("button", name="density").click(); order = [int(x) for x in rows(shown).locator(".wb-id").all_inner_texts()]; assert quiet(shown) and len(order) == 4
    shown.get_by_text("Export the direction").click(); expect(shown.locator(".wb-line code")).to_have_count(2)
    with shown.expect_download() as got: shown.get_by_role("button", name=".npz").click()
    assert "direction" in np.load(got.value.path())


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_themes_and_widths(browser, page_file, scheme):
    for width in 1400, 480:
        page = ready(new_page(browser, color_scheme=scheme, offline=True, viewport={"width": width, "height": 900}), page_file); assert page.locator(".wb-features").get_attribute("data-theme") == scheme
        assert page.evaluate("document.documentElement.scrollWidth") <= width and quiet(page)
        colours = page.evaluate("() => { const rgb = e => getComputedStyle(e).color.match(/[\\d.]+/g).slice(0, 3).map(Number), lum = c => { const [r, g, b] = c.map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; }; return [...document.querySelectorAll('.wb-contexts [data-v]')].filter(t => t.style.background).map(t => { const a = lum(rgb(t)), b = lum(t.style.background.match(/[\\d.]+/g).map(Number)); return (Math.max(a, b) + .05) / (Math.min(a, b) + .05); }); }")
        assert min(colours) > 4, "text on a tint can be read"; page.context.close()


def test_a_list_of_65536_features_is_a_few_rows(browser, made, tmp_path):
    "A page that answers for 65,536 features: the rows come in pages, and few are ever in the document."
    n, per = 65536, made.meta["page"]; data = Widget._page_data(made); state = data["state"]; state["found"] = dict(id=1, count=n, of=n, at=0, query=""); state["pins"] = []; state["text"] = state["prompt"] = ""
    some = lambda a: dict(feature=list(range(a, a + per)), density=[.01] * per, max=[2.] * per, score=[None] * per, label=[""] * per, tokens=[["the"]] * per)
    data["chunks"] |= {f"rows|1|{p}": json_chunk(some(p * per)).text() for p in (0, 1, 511, 512, 1022, 1023)}; (tmp_path/"b.html").write_text(PAGE.format(title="b", body=fragment("features", data, "")))
    page = ready(new_page(browser, offline=True), tmp_path/"b.html"); nodes = lambda: page.evaluate("document.querySelectorAll('.wb-features *').length")
    expect(page.locator(".wb-count")).to_contain_text("65,536 of 65,536"); assert rows(page).count() <= 40 and nodes() <= 600, nodes()
    page.locator(".wb-scroller").evaluate("e => { e.scrollTop = 26 * 32767; }"); expect(rows(page).filter(has_text="32769")).to_have_count(1); assert rows(page).count() <= 40 and nodes() <= 600
    page.locator("[role=grid]").focus(); page.keyboard.press("End"); expect(rows(page).last.locator(".wb-id")).to_have_text("65535"); assert page.locator("[role=grid]").get_attribute("aria-rowcount") == "65537" and quiet(page); page.context.close()


def test_without_scripts_the_picture_stays(browser, page_file):
    page = new_page(browser, java_script_enabled=False); page.goto(page_file.as_uri()); assert page.locator(".wb-host img").is_visible() and "names </script>" in page.locator(".wb-host table").text_content(); page.context.close()


# --- JupyterLab ----------------------------------------------------------------------------------------------------------
CODE = f"""import workbench as wb
from workbench.features import random_dictionary
from workbench.features.records import FeatureStore
from workbench.tasks import make
from workbench.widgets.feature_browser import FeatureBrowser
lm = wb.load("micro"); task = make("ioi", n=40); x = lm.run(task.prompts, keep="{SITE}").tensor("{SITE}").flatten(0, 1)
store = FeatureStore(lm, random_dictionary(128, 400, k=8, mean=x.mean(0), site="{SITE}"), task.prompts, "store").collect()
other = random_dictionary(128, 300, k=8, seed=1, mean=x.mean(0), site="{SITE}")
w = FeatureBrowser(store, beside=other, pairs=task)
w"""


def test_the_browser_is_driven_in_jupyterlab(lab):
    "Search, refuse, open, pin, unfold, read a text, steer, save the direction, go on to attention and patching; read all of it back; set it from Python; reopen without a kernel."
    cells = ["print(w.query, '|', len(w.ids()), w.feature)", "print('pins', w.pins, 'feature', w.feature)", "print('text', w.text, float(w.test(w.text)[:, 0].max()))", "o = w.steer(); print('steered', w.strength, w.steer_mode, float(o['kl'][-1]), ' '.join(t for t, _ in o['steered']))",
             "w.query = ''; w.feature = 7; w.steer_mode = 'clamp'; print('set')", "print('hovered', w.hovered)"]
    nbformat.write(notebook("# Features", CODE, *cells), lab.root/"features.ipynb"); page = lab.open("features.ipynb", run=False)
    page.evaluate("async () => { const p = window.jupyterapp.shell.currentWidget; await p.context.ready; await p.sessionContext.ready; }"); page.evaluate(RUN_CELL, 1)
    count = page.locator(".wb-count"); expect(count).to_contain_text("400 of 400 features", timeout=90_000); expect(rows(page).nth(5).locator(".wb-id")).not_to_have_text("…"); expect(contexts(page).first).to_be_visible()

    box = page.get_by_label("Search features"); before = rows(page).count(); box.fill("densty<.1"); expect(page.locator(".wb-features [role=alert]").filter(has_text="Did you mean 'density'")).to_be_visible(); assert rows(page).count() == before and box.get_attribute("aria-invalid") == "true"
    box.fill("density<.04 density>.005"); expect(count).not_to_contain_text("400 of"); said = says(page, 2, "density<.04 density>.005 |"); assert count.inner_text().startswith(re.search(r"\| (\d+)", said)[1] + " of")
    box.press("ArrowDown"); page.keyboard.press("ArrowDown"); page.keyboard.press("ArrowDown"); expect(chosen(page)).to_have_count(1); feature = chosen(page).locator(".wb-id").inner_text(); expect(title(page)).to_have_text(f"Feature {feature}")
    page.keyboard.press("p"); expect(page.get_by_role("button", name="★ pinned")).to_be_visible(); assert says(page, 3, f"pins [{feature}] feature {feature}")

    row = contexts(page).first; row.locator(".peak").hover(); assert says(page, 7, f"hovered [{row.get_attribute('data-c')}, "); row.click(); expect(row).to_have_attribute("aria-expanded", "true"); expect(row).not_to_contain_text("not kept")
    text = "When Mary and John went to the store, Mary gave a book to John."; area = page.get_by_label("A text of your own"); area.fill(text); area.press("Enter"); expect(page.locator(".wb-tested .wb-token")).to_have_count(17, timeout=30_000)
    top = float(says(page, 4, f"text {text}").split()[-1]); said = page.locator(".wb-tested").inner_text(); assert ("Silent on this text" in said) if top == 0 else float(re.search(r"Largest here ([\d.]+)", said)[1].rstrip(".")) == pytest.approx(top, rel=2e-3)
    page.get_by_label("underline what its removal does").check(); expect(page.locator(".wb-tested")).to_contain_text(re.compile("loss"), timeout=30_000)

    prompt = page.get_by_label("Prompt to steer"); prompt.fill("When Mary and John went to the store, John gave a drink to"); prompt.press("Enter"); slider = page.get_by_label("Strength in units of the largest activation"); slider.focus()
    for _ in range(6): page.keyboard.press("ArrowRight")
    expect(page.locator(".wb-amount")).to_contain_text("+1.5 × largest"); expect(page.locator(".wb-steered h5").nth(1)).to_contain_text("+1.5 × largest", timeout=30_000); said = says(page, 5, "steered 1.5 add"); kl = float(said.split()[3])
    expect(page.locator(".wb-steered")).to_contain_text("at the last token"); assert float(re.search(r"at the last token ([\d.e-]+)", page.locator(".wb-steered").inner_text())[1].rstrip(".")) == pytest.approx(kl, rel=2e-2, abs=1e-6)
    assert " ".join(page.locator(".wb-steered .wb-side").nth(1).locator(".wb-token").all_inner_texts()) in said

    page.get_by_text("Export the direction").click()
    with page.expect_download() as got: page.get_by_role("button", name=".npz").click()
    assert np.load(got.value.path())["direction"].shape == (128,) and got.value.suggested_filename == f"feature_{feature}.npz"
    expect(page.locator(".wb-try").first).to_contain_text("by correlation of activations"); row.get_by_role("button", name="attention").click(); expect(page.locator(".wb-attention")).to_be_visible(timeout=30_000)
    page.get_by_role("button", name="Patch this feature").click(); expect(page.locator(".wb-patching")).to_be_visible(timeout=60_000); expect(page.locator(".wb-attention")).to_have_count(0)
    assert says(page, 6, "set"); expect(title(page)).to_have_text("Feature 7"); expect(count).to_contain_text("400 of 400"); expect(box).to_have_value(""); expect(chosen(page).locator(".wb-id")).to_have_text("7"); expect(page.locator(".wb-words")).to_contain_text("is set to 1.5")
    assert quiet(page), (page.errors, page.outside)

    page.evaluate("async () => { await window.jupyterapp.commands.execute('docmanager:save'); await window.jupyterapp.shell.currentWidget.sessionContext.shutdown(); }")
    page = lab.open("features.ipynb", run=False); page.locator(".jp-OutputArea img").first.wait_for(timeout=30_000); assert "model not found" not in page.locator(".jp-Notebook").inner_text()
