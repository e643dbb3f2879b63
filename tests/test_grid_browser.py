"""The patching grid in a real Chromium: its page from `file://` without network, and alive in a real JupyterLab, where it fills, stops, answers clicks and patches what is dragged."""
import re

import nbformat
import pytest

expect = pytest.importorskip("playwright.sync_api").expect

from conftest import new_page, notebook, until
from test_explorer_browser import choose, quiet, says
from test_grid_widget import planted
from workbench import load
from workbench.tasks import make
from workbench.widgets import PatchingGrid

pytestmark = pytest.mark.browser
READY = "() => document.querySelector('.wb-patching .wb-plot')?.clientHeight > 60 && document.querySelector('.wb-patching').dataset.state === 'done' && document.querySelector('.wb-scale').getAttribute('aria-label')"
PIXELS = "() => { const c = document.querySelector('.wb-patching .wb-plot'), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data, seen = {}; for (let i = 0; i < d.length; i += 4) { const k = d[i] << 16 | d[i + 1] << 8 | d[i + 2]; seen[k] = (seen[k] ?? 0) + 1; } return seen; }"


def ready(page, path): page.goto(path.as_uri()); until(page, READY); return page
def plot(page): return page.locator(".wb-patching .wb-plot")
def readout(page): return page.locator(".wb-patching .wb-readout")
def side(page): return page.locator(".wb-patching .wb-side")


def spot(page, facet, row, column, facets=3, rows=4, columns=16):
    "Where a cell is drawn, as static/cells.js lays facets out; the tests read back which cell was hit."
    width = plot(page).evaluate("c => c.clientWidth"); beside = (width - 34 - 18 * (facets - 1)) / facets / columns; stacked = facets > 1 and (beside < 20 or width < 520)
    w = min(38, (width - 34) / columns if stacked or facets == 1 else beside); h = max(5, min(26, 520 / rows / (facets if stacked else 1)))
    x, y = (34, 18 + facet * (h * rows + 18)) if stacked else (34 + facet * (w * columns + 18), 18)
    return dict(x=x + (column + .5) * w, y=y + (rows - row - .5) * h)


def drag(page, start, end):
    plot(page).scroll_into_view_if_needed(); plot(page).hover(position=start); box = plot(page).bounding_box(); page.mouse.move(box["x"] + start["x"], box["y"] + start["y"]); page.mouse.down()
    page.mouse.move(box["x"] + (start["x"] + end["x"]) / 2, box["y"] + (start["y"] + end["y"]) / 2); page.mouse.move(box["x"] + end["x"], box["y"] + end["y"]); page.mouse.up()


@pytest.fixture(scope="module")
def done():
    lm = load("micro"); w = PatchingGrid(lm, make("ioi", n=6)); w.select("attn_out", layer=3, pos=14); w.region = []
    return w


@pytest.fixture(scope="module")
def page_file(done, tmp_path_factory): return done.to_html(tmp_path_factory.mktemp("grid")/"g.html")


@pytest.fixture
def shown(offline_page, page_file): return ready(offline_page, page_file)


# --- a page without kernel and network -----------------------------------------------------------------------------------
def test_the_page_paints_and_says_numbers(shown, done):
    assert len(shown.evaluate(PIXELS)) > 20 and shown.locator(".wb-host > img").count() == 0
    expect(shown.locator(".wb-heading")).to_contain_text("denoising: corrupted → clean (clean values into the corrupted run) · ablation: patch · n 6")
    assert shown.locator(".wb-scale").get_attribute("aria-label") == "Colours from minus 1.000 to 1.000; corrupted at 0, clean at 1.000"
    shown.mouse.move(0, 0); plot(shown).hover(position=spot(shown, 1, 3, 14)); expect(readout(shown)).to_contain_text('attn_out L3 · 14 "')
    mean, low, high = map(float, re.search(r"recovery ([-−\d.]+) \[([-\d.]+), ([-\d.]+)\]", readout(shown).inner_text()).groups())
    data = done.data.map("A", "recovery", "change")[1, 3, 14]; assert mean == pytest.approx(data, abs=2e-3) and low <= mean <= high
    plot(shown).hover(position=spot(shown, 0, 2, 4)); expect(readout(shown)).to_contain_text("zero by construction"); assert quiet(shown)


def test_clicks_select_cells_rows_columns_and_rectangles(shown, done):
    plot(shown).click(position=spot(shown, 1, 3, 14)); expect(side(shown).locator("h4")).to_contain_text("attention output · layer 3 · 14")
    expect(side(shown).locator("table tr").nth(1)).to_be_visible(); assert side(shown).locator(".wb-strip").count() == 1 and "hook point attn_out.3" in side(shown).inner_text()
    assert side(shown).locator(".wb-line code").inner_text() == done.line([1, 3, 14, 3, 14]); expect(side(shown)).to_contain_text("Same site and layer, later token: not affected")
    plot(shown).hover(position=spot(shown, 1, 3, 15)); expect(readout(shown)).to_contain_text("same layer, later token: not affected by the selection")
    plot(shown).hover(position=spot(shown, 2, 3, 14)); expect(readout(shown)).to_contain_text("can be reached from the selection")
    plot(shown).click(position={**spot(shown, 0, 2, 0), "x": 12}); expect(side(shown).locator("h4")).to_contain_text("layer 2 · all 16 columns")
    drag(shown, spot(shown, 0, 1, 10), spot(shown, 0, 2, 12)); expect(side(shown).locator("h4")).to_contain_text("layers 1 to 2"); expect(side(shown)).to_contain_text("6 cells"); expect(side(shown)).to_contain_text("needs a kernel")
    side(shown).get_by_role("button", name="pin").click(); expect(shown.locator(".wb-pin")).to_have_count(1); assert quiet(shown)


def test_everything_by_keyboard(shown):
    plot(shown).focus(); shown.keyboard.press("ArrowRight"); expect(readout(shown)).to_contain_text("L")                 # starts at the largest cell
    first = readout(shown).inner_text(); shown.keyboard.press("ArrowLeft"); expect(readout(shown)).not_to_have_text(first)
    shown.keyboard.press("]"); shown.keyboard.press("Space"); expect(side(shown).locator("h4")).to_be_visible()
    shown.keyboard.press("Enter"); expect(shown.locator(".wb-pin")).to_have_count(1)
    shown.keyboard.press("r"); expect(side(shown).locator("h4")).to_contain_text("all 16 columns"); shown.keyboard.press("c"); expect(side(shown).locator("h4")).to_contain_text("layers 0 to 3")
    shown.keyboard.press("Escape"); expect(side(shown).locator("h4")).to_have_count(0)
    shown.keyboard.press("ArrowRight"); shown.keyboard.press("Shift+ArrowLeft"); shown.keyboard.press("Shift+ArrowLeft"); expect(side(shown)).to_contain_text("3 cells"); assert quiet(shown)


def test_roles_and_labels(shown):
    assert plot(shown).get_attribute("role") == "application" and "facets of 4 layers" in plot(shown).get_attribute("aria-label") and shown.locator("[role=status][aria-live]").count() == 1
    assert shown.evaluate("() => [...document.querySelectorAll('.wb-patching select, .wb-patching input')].filter(e => !e.closest('label') && !e.title).length") == 0
    shown.get_by_text("Largest cells as a table").click(); expect(shown.locator(".wb-main table tr")).to_have_count(13); assert quiet(shown)


def test_one_prompt_metrics_and_hatching(shown, done):
    before = shown.evaluate(PIXELS); shown.get_by_label("hatch what may be 0").uncheck(); until(shown, f"was => JSON.stringify(({PIXELS})()) !== JSON.stringify(was)", before)
    choose(shown, "metric", "logit_difference"); expect(shown.locator(".wb-scale")).to_have_attribute("aria-label", re.compile("corrupted at 0, clean at"))
    shown.get_by_label("prompts").select_option("2"); own = done.data.map("A", "logit_difference", "change", 2)[0, 0, 11]; plot(shown).click(position=spot(shown, 0, 0, 11)); expect(side(shown)).to_contain_text("change ")
    sign, size = re.search(r"change ([+−])([\d.]+)", side(shown).inner_text()).groups(); assert abs(own) > 1 and (-1 if sign == "−" else 1) * float(size) == pytest.approx(own, rel=2e-3)
    assert quiet(shown)


def test_a_b_and_difference(browser, tmp_path):
    page = ready(new_page(browser, offline=True), PatchingGrid.of(planted(), planted(seed=1)).to_html(tmp_path/"ab.html")); values = {}
    for which in ("A", "B", "difference"):
        choose(page, "which", which); page.mouse.move(0, 0); plot(page).hover(position=spot(page, 0, 2, 4, columns=6)); expect(readout(page)).to_contain_text("A − B" if which == "difference" else "recovery")
        values[which] = float(re.search(r"recovery (?:A − B )?(?:.*change )?([-+−]?[\d.]+)", readout(page).inner_text())[1].replace("−", "-"))
    assert values["difference"] == pytest.approx(values["A"] - values["B"], abs=3e-3) and values["A"] != values["B"]
    expect(page.locator(".wb-scale")).to_have_attribute("aria-label", re.compile("no difference at 0")); assert quiet(page); page.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_themes_and_widths(browser, page_file, scheme):
    for width, scale in ((1400, 1), (420, 2)):
        page = ready(new_page(browser, color_scheme=scheme, offline=True, viewport={"width": width, "height": 900}, device_scale_factor=scale), page_file)
        assert page.locator(".wb-patching").get_attribute("data-theme") == scheme and len(page.evaluate(PIXELS)) > 20
        page.locator(".wb-plot").click(position=spot(page, 1, 3, 14)); expect(side(page).locator("h4")).to_contain_text("14")
        assert page.evaluate("document.documentElement.scrollWidth") <= width and quiet(page); page.context.close()


def test_hostile_tokens_and_many_cells(browser, tmp_path):
    hostile = planted(texts=[["<script>window.hit=1</script>", "</script>", "<img src=x onerror='window.hit=1'>", "👑", "שלום", "\n"]] * 5, model="</script><b>")
    page = ready(new_page(browser, offline=True), PatchingGrid.of(hostile, region=[0, 2, 3, 2, 3]).to_html(tmp_path/"h.html"))
    assert page.evaluate("window.hit") is None and page.locator(".wb-heading").inner_text().startswith("</script><b>") and "👑" in side(page).inner_text() and quiet(page); page.context.close()
    big = PatchingGrid.of(planted(n=1, layers=32, length=256), pins=[[0, r, 9, r, 9] for r in range(32)]); page = ready(new_page(browser, offline=True), big.to_html(tmp_path/"b.html"))
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)"); plot(page).focus()
    for key in ("ArrowRight", "Space", "+", "+", "+"): page.keyboard.press(key)
    expect(readout(page)).to_contain_text("L2 · 3"); assert page.evaluate("document.querySelectorAll('*').length") <= 500 and quiet(page); page.context.close()


def test_without_scripts_the_picture_stays(browser, page_file):
    page = new_page(browser, java_script_enabled=False); page.goto(page_file.as_uri())
    assert page.locator(".wb-host img").is_visible() and page.locator(".wb-host details").count() == 1; page.context.close()


# --- JupyterLab ----------------------------------------------------------------------------------------------------------
CODE = """import workbench as wb, workbench.widgets.work as work
from workbench.tasks import make
from workbench.widgets import PatchingGrid
work.PAUSE = .4     # so slow that one can see it
lm = wb.load("micro")
w = PatchingGrid(lm, make("ioi", n=12))
w"""
RERUN = """before, last = w.line().rsplit("; ", 1)
exec(before); again = eval(last)
print(w.line()); print("difference", "small" if abs(again - float(w.result.recovery.sel(site="resid_pre", layer=1, pos=10).mean())) < 1e-4 else "large")"""


def test_the_grid_is_driven_in_jupyterlab(lab):
    "Watch it fill over its preview, stop it, look into a cell while it stands, go on; click, copy, drag a rectangle, use the keyboard, open the linked explorer, set it from Python; reopen without a kernel."
    nbformat.write(notebook("# Grid", CODE, RERUN, "print(w.detail['cells'], w.region)", "print(w.pins, w.region)", "w.select('mlp_out', layer=0, pos=10); print('set')", "print(w.layer, w.status['state'])", "work.PAUSE = .004"), lab.root/"grid.ipynb")
    page = lab.open("grid.ipynb", run=False); page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=lab.url)
    page.evaluate("async () => { const app = window.jupyterapp, p = app.shell.currentWidget; await p.context.ready; await p.sessionContext.ready; p.content.activeCellIndex = 1; await app.commands.execute('notebook:run-cell'); }")
    state = page.locator(".wb-patching"); looks = page.locator(".wb-looks"); progress = page.locator(".wb-status .wb-note")
    expect(looks).to_contain_text("preview, first order", timeout=60_000); expect(state).to_have_attribute("data-state", "running"); expect(progress).to_have_text(re.compile(r"\d+ of 192 cells, about .* left"), timeout=30_000)
    share = page.locator(".wb-status progress").evaluate("p => p.value"); page.wait_for_function("was => document.querySelector('.wb-status progress').value > was", arg=share); filling = page.evaluate(PIXELS)
    page.get_by_role("button", name="Stop").click(); expect(state).to_have_attribute("data-state", "stopped"); expect(progress).to_contain_text("stopped: "); stood = page.locator(".wb-status progress").evaluate("p => p.value"); assert 0 < stood < 1
    plot(page).click(position=spot(page, 0, 1, 10)); expect(side(page).locator("table tr").nth(1)).to_be_visible(timeout=30_000); assert page.locator(".wb-status progress").evaluate("p => p.value") == stood
    says(page, 7, ""); page.get_by_role("button", name="Continue").click(); expect(state).to_have_attribute("data-state", "done", timeout=60_000)
    expect(looks).not_to_contain_text("preview"); expect(progress).to_contain_text("forward passes' work instead of"); assert page.evaluate(PIXELS) != filling

    expect(side(page).locator("h4")).to_contain_text("residual stream into the layer · layer 1 · 10"); expect(side(page)).to_contain_text("hook point resid_pre.1"); assert side(page).locator(".wb-strip").count() == 1
    side(page).get_by_role("button", name="Copy").click(); expect(side(page).get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == says(page, 2, "difference small").splitlines()[0]

    drag(page, spot(page, 0, 0, 10), spot(page, 0, 2, 11)); expect(side(page)).to_contain_text("6 cells together", timeout=30_000); says(page, 3, "6 [0, 0, 10, 2, 11]")
    plot(page).focus(); page.keyboard.press("Escape"); page.keyboard.press("ArrowRight"); page.keyboard.press("]"); page.keyboard.press("Enter"); expect(page.locator(".wb-pin")).to_have_count(1)
    pinned = says(page, 4, "[[1, "); assert (at := re.findall(r"\[1, \d, \d+, \d, \d+\]", pinned)) and len(at) == 2 and at[0] == at[1]
    side(page).get_by_role("button", name="attention explorer").click(); expect(page.locator(".wb-attention")).to_be_visible(timeout=30_000)
    assert says(page, 5, "set"); expect(side(page).locator("h4")).to_contain_text("MLP output · layer 0 · 10"); page.wait_for_function("() => document.querySelector('.wb-attention .wb-main .wb-note')?.textContent.includes('L0.H')")
    page.locator(".wb-attention .wb-plot").focus(); page.keyboard.press("}"); expect(side(page).locator("h4")).to_contain_text("layer 1"); assert says(page, 6, "1 done")
    assert quiet(page), (page.errors, page.outside)

    page.evaluate("async () => { await window.jupyterapp.commands.execute('docmanager:save'); await window.jupyterapp.shell.currentWidget.sessionContext.shutdown(); }")
    page = lab.open("grid.ipynb", run=False); page.locator(".jp-OutputArea img").first.wait_for(timeout=30_000)
    assert "model not found" not in page.locator(".jp-Notebook").inner_text()
