"""The attention explorer in a real Chromium: its page from `file://` without network, and alive in a real JupyterLab."""
import re, subprocess, sys

import nbformat
import numpy as np
import pytest

expect = pytest.importorskip("playwright.sync_api").expect

from conftest import new_page, notebook, until
from test_widgets import HOSTILE, PROMPT, given, soft
from workbench import load
from workbench.lm.specimens import build
from workbench.widgets import AttentionExplorer, Selection

pytestmark = pytest.mark.browser
INK = """() => { const c = document.querySelector('.wb-plot'), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data, seen = new Set();
  for (let i = 0; i < d.length; i += 4) seen.add((d[i] << 16) | (d[i + 1] << 8) | d[i + 2]); return seen.size; }"""


@pytest.fixture(scope="module")
def micro(): return load("micro")


def ready(page, path):
    page.goto(path.as_uri())
    page.wait_for_selector(".wb-attention")
    until(page, "() => document.querySelector('.wb-plot').clientHeight > 130")
    return page


def caption(page): return page.locator(".wb-main .wb-note").first
def kept(page): return page.locator(".wb-token[aria-selected=true]")
def choose(page, trait, value): page.locator(f"select[name={trait}]").select_option(value)
def quiet(page): return page.errors == [] and page.outside == []


def heads_box(page, layer, head, layers=4):
    "Click position of a thumbnail."
    size, pitch, line = (page.evaluate("() => { const c = document.querySelector('.wb-overview'), g = c.clientWidth; return g; }") - 24) / 8 - 4, None, 16
    pitch = size + 4
    return dict(x=24 + head * pitch + size / 2, y=4 + (layers - 1 - layer) * (pitch + line) + size / 2)


@pytest.fixture(scope="module")
def page_file(micro, tmp_path_factory):
    return AttentionExplorer(micro, PROMPT, layer=2, head=0, answer=" Mary", foil=" John", sort="induction").to_html(tmp_path_factory.mktemp("page")/"w.html")


@pytest.fixture
def shown(offline_page, page_file): return ready(offline_page, page_file)


# --- a page without kernel and network --------------------------------------------------------------------------------
def test_the_page_paints_and_says_numbers(shown, micro):
    assert shown.evaluate(INK) > 20 and shown.locator(".wb-host > img").count() == 0
    plot = shown.locator(".wb-plot"); plot.focus(); shown.keyboard.press("ArrowRight")
    for _ in range(2): shown.keyboard.press("ArrowRight")
    expect(shown.locator(".wb-readout")).to_contain_text('query 14 "to" ← key 2 "Mary"'); text = shown.locator(".wb-readout").inner_text()
    value = float(re.search(r"≈ ([\d.e-]+)", text)[1]); exact = float(micro.run(PROMPT, keep="pattern")["pattern"].isel(prompt=0).sel(layer=2, head=0, query=14, key=2))
    assert value == pytest.approx(exact, abs=.004) and "row entropy" in text and quiet(shown)


def test_clicks_open_heads_and_keep_tokens(shown):
    shown.locator(".wb-overview").click(position=heads_box(shown, 3, 0))
    expect(caption(shown)).to_contain_text("L3.H5")            # sorted by badge: the first is not head 0
    shown.locator(".wb-overview").click(position=heads_box(shown, 1, 2), modifiers=["Shift"])
    choose(shown, "combine", "max"); expect(caption(shown)).to_contain_text("max of 2 heads: L3.H5, L1.")
    tokens = shown.locator(".wb-token"); tokens.nth(10).click(); tokens.nth(14).click(modifiers=["Shift"]); expect(kept(shown)).to_have_count(2)
    assert [i for i in range(15) if tokens.nth(i).get_attribute("aria-selected") == "true"] == [10, 14] and quiet(shown)
    tokens.nth(10).click(); expect(kept(shown)).to_have_count(1); expect(shown.locator("svg path").first).to_be_visible()                # one kept token draws arcs


def test_everything_by_keyboard(shown):
    shown.locator(".wb-overview").focus(); shown.keyboard.press("ArrowUp"); shown.keyboard.press("ArrowRight"); expect(caption(shown)).to_contain_text("L3.H")
    shown.locator(".wb-plot").focus(); shown.keyboard.press("]"); shown.keyboard.press("{"); expect(caption(shown)).to_contain_text("L2.H")
    for key in ("ArrowDown", "ArrowRight", "Enter"): shown.keyboard.press(key)
    expect(kept(shown)).to_have_count(1)
    shown.keyboard.press("+"); shown.keyboard.press("0"); shown.keyboard.press("s"); shown.keyboard.press("Escape")
    expect(shown.locator("select[name=side]")).to_have_value("key"); expect(kept(shown)).to_have_count(0)
    shown.locator(".wb-tokens").focus(); shown.keyboard.press("ArrowRight"); shown.keyboard.press("Enter")
    expect(kept(shown)).to_have_count(1); assert quiet(shown)


def test_a_set_of_heads_by_keyboard(shown):
    shown.locator(".wb-overview").focus()
    for key in ("Space", "ArrowUp", "Space", "ArrowRight", "ArrowRight", "Space"): shown.keyboard.press(key)
    choose(shown, "combine", "mean"); expect(caption(shown)).to_contain_text("mean of 3 heads: L2.H0, L3.H"); assert quiet(shown)


def test_pointing_at_heads_in_every_weighting(shown):
    for value in ("output", "dla", "pattern"):
        choose(shown, "weighting", value); box = shown.locator(".wb-overview").bounding_box()
        shown.mouse.move(box["x"] + 60, box["y"] + 30); shown.mouse.move(box["x"] + 130, box["y"] + 100)
    expect(shown.locator(".wb-overview")).to_have_attribute("title", re.compile("on first token")); assert quiet(shown)


def test_a_longer_text_is_shown_whole(browser, micro, tmp_path):
    page = ready(new_page(browser, offline=True), AttentionExplorer(micro, "Mary gave", against=PROMPT).to_html(tmp_path/"l.html"))
    choose(page, "which", "B"); expect(page.locator(".wb-token")).to_have_count(15)
    page.locator(".wb-plot").focus(); page.keyboard.press("ArrowRight"); expect(page.locator(".wb-readout")).to_contain_text("query 14")
    ratio = page.evaluate("() => { const c = document.querySelector('.wb-plot'); return c.clientHeight; }"); assert ratio > 300 and quiet(page)
    page.context.close()


def test_roles_and_labels(shown):
    names = shown.evaluate("() => [...document.querySelectorAll('.wb-attention canvas[tabindex], .wb-attention [role=listbox], .wb-attention section')].map(e => [e.getAttribute('role'), e.getAttribute('aria-label') || e.getAttribute('aria-roledescription')])")
    assert all(label for _, label in names) and {"application", "listbox"} <= {r for r, _ in names}
    assert shown.locator("[role=status][aria-live]").count() == 1
    unlabelled = shown.evaluate("() => [...document.querySelectorAll('.wb-attention select, .wb-attention input')].filter(e => !e.closest('label') && !e.title).length")
    assert unlabelled == 0
    shown.get_by_text("Largest entries as a table").click(); expect(shown.locator(".wb-attention table tr")).to_have_count(13)


def test_weightings_sink_and_top_p(shown):
    legend = shown.locator(".wb-main .wb-row .wb-note")
    for value, words in (("output", "output length"), ("dla", "logits"), ("pattern", "probability")): choose(shown, "weighting", value); expect(legend).to_contain_text(words)
    shown.get_by_text("View", exact=True).click(); shown.get_by_label("hide first token").check(); expect(legend).to_contain_text("first token hidden")
    shown.get_by_label("top-p").fill("50"); expect(legend).to_contain_text("top 50 %")
    choose(shown, "combine", "rollout"); expect(caption(shown)).to_contain_text("rollout"); assert quiet(shown)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_themes_and_widths(browser, page_file, scheme):
    grounds = []
    for width, scale in ((1400, 1), (420, 2)):
        page = ready(new_page(browser, color_scheme=scheme, offline=True, viewport={"width": width, "height": 900}, device_scale_factor=scale), page_file)
        assert page.locator(".wb-attention").get_attribute("data-theme") == scheme and page.evaluate(INK) > 20
        assert page.evaluate("document.documentElement.scrollWidth") <= width and quiet(page)
        grounds.append(page.evaluate("(() => { const d = document.querySelector('.wb-plot').getContext('2d').getImageData(0, 0, 1, 1).data; return getComputedStyle(document.querySelector('.wb-attention')).color; })()"))
        page.context.close()
    assert len(set(grounds)) == 1


def test_hostile_tokens_are_text(browser, tmp_path):
    x = np.tril(np.random.default_rng(0).dirichlet(np.ones(7), (1, 2, 7)))
    page = ready(new_page(browser, offline=True), AttentionExplorer.from_patterns(given(x, HOSTILE, causal=1), title="</script><b>").to_html(tmp_path/"h.html"))
    assert page.locator(".wb-token").all_inner_texts() == ["<script>window.hit=1</script>", "</script>", "\"'&", "👑", "שלום", "$x^2$", "⏎"]
    assert page.evaluate("window.hit") is None and page.locator(".wb-heading").inner_text() == "</script><b>" and quiet(page)
    page.context.close()


@pytest.mark.parametrize("n", [64, 256, 1024])
def test_the_page_stays_light(browser, tmp_path, n):
    page = ready(new_page(browser, offline=True), AttentionExplorer.from_patterns(soft(12, n)).to_html(tmp_path/"n.html"))
    assert page.evaluate("document.querySelectorAll('*').length") <= 500 and page.evaluate(INK) > 20
    page.locator(".wb-plot").focus()
    for key in ("ArrowRight", "+", "+", "+"): page.keyboard.press(key)
    expect(page.locator(".wb-readout")).to_contain_text(f"query {n - 1}"); assert quiet(page)
    page.context.close()


def test_cross_attention_has_two_texts(browser, tmp_path):
    made = build("t5"); lm = load(*made) if isinstance(made, tuple) else load(made)
    page = ready(new_page(browser, offline=True), AttentionExplorer(lm, list(range(5, 17)), targets=[6, 7, 8]).to_html(tmp_path/"t5.html"))
    assert page.locator(".wb-tokens").count() == 2
    page.locator(".wb-tokens").nth(1).locator(".wb-token").nth(3).click()
    expect(page.locator("select[name=side]")).to_have_value("key")
    choose(page, "stack", "decoder"); expect(page.locator(".wb-tokens")).to_have_count(1)
    assert quiet(page); page.context.close()


def test_thumbnails_of_few_queries_and_many_keys_keep_their_shape(browser, tmp_path):
    "Every query looks at the first of 20 keys: the thumbnail is dark along its left edge and nowhere else."
    import xarray as xr
    x = np.zeros((1, 1, 4, 20)); x[..., 0] = 1
    page = ready(new_page(browser, offline=True), AttentionExplorer.from_patterns(xr.DataArray(x, dims=("layer", "head", "query", "key"), attrs=dict(cross=1))).to_html(tmp_path/"x.html"))
    red = page.evaluate("""() => { const c = document.querySelector('.wb-overview'), g = c.getContext('2d'), at = (x, y) => g.getImageData(x, y, 1, 1).data[0];
      return [8, 24, 40, 60].map(y => [at(25, y), at(40, y), at(80, y)]); }""")
    assert all(left < 80 and middle > 200 and right > 200 for left, middle, right in red), red
    page.context.close()


def test_linked_widgets_in_one_page(browser, micro, tmp_path):
    a, b = AttentionExplorer(micro, PROMPT), AttentionExplorer(micro, PROMPT, weighting="output"); Selection().join(a, b)
    (tmp_path/"two.html").write_text("<!doctype html><meta charset=utf-8>" + a.fragment() + b.fragment())
    page = ready(new_page(browser, offline=True), tmp_path/"two.html")
    page.locator(".wb-plot").first.focus(); page.keyboard.press("}"); page.keyboard.press("]")
    for i in range(2): expect(page.locator(".wb-main").nth(i).locator(".wb-note").first).to_contain_text("L1.H1")
    assert quiet(page); page.context.close()


def test_without_scripts_the_picture_stays(browser, page_file):
    page = new_page(browser, java_script_enabled=False); page.goto(page_file.as_uri())
    assert page.locator(".wb-host img").is_visible() and page.locator(".wb-host details").count() == 1
    page.context.close()


# --- JupyterLab -------------------------------------------------------------------------------------------------------
CODE = f"""import workbench as wb
from workbench.widgets import AttentionExplorer
lm = wb.load("micro")
w = AttentionExplorer(lm, {PROMPT!r}, layer=2, head=0)
w"""
RUN_CELL = """async index => { const app = window.jupyterapp, nb = app.shell.currentWidget.content; nb.activeCellIndex = index; await app.commands.execute('notebook:run-cell');
  return nb.widgets[index].model.toJSON().outputs.map(o => o.text ?? o.data?.['text/plain']).join(''); }"""


def says(page, index, words):
    "Run a cell until it prints the words, and give all it said: what is clicked travels to the kernel beside what is run."
    for _ in range(60):
        if words in (said := page.evaluate(RUN_CELL, index)): return said
        page.wait_for_timeout(200)
    raise AssertionError(said)


def test_a_click_in_jupyterlab_is_read_in_python(lab):
    "Open, click a head and a token, read the selection in a later cell; set it from Python and see it; change a head; save, and open again without a kernel."
    nbformat.write(notebook("# Explorer", CODE, "print(w.selection)", "w.locked = [4]; w.head = 6; print('set')", "print(w.edits, w.outputs['kl'] > 0)"), lab.root/"explore.ipynb")
    page = lab.open("explore.ipynb"); page.wait_for_function("() => document.querySelector('.wb-plot')?.clientHeight > 130")
    page.locator(".wb-overview").click(position=heads_box(page, 3, 5)); page.locator(".wb-token").nth(10).click()
    assert says(page, 2, "{'layer': 3, 'head': 5, 'heads': [[3, 5]], 'locked': [10], 'side': 'query'}") and says(page, 3, "set"); page.wait_for_function("() => document.querySelectorAll('.wb-token')[4].getAttribute('aria-selected') === 'true'")
    expect(caption(page)).to_contain_text("L3.H6")
    page.locator(".wb-plot").focus(); page.keyboard.press("ArrowDown"); page.wait_for_function("() => / = /.test(document.querySelector('.wb-readout').textContent)")   # the kernel's exact value
    page.get_by_role("button", name="knock out").click(); page.locator(".wb-edits .wb-edit").wait_for()
    expect(page.locator(".wb-edits caption")).to_contain_text("1 change")             # the kernel has answered
    assert says(page, 4, "[{'stack': 'self', 'layer': 3, 'head': 6, 'factor': 0.0}] True")
    choose(page, "which", "difference"); page.wait_for_function("() => document.querySelector('.wb-main .wb-note').textContent.includes('A − B')")
    assert quiet(page), (page.errors, page.outside)
    page.evaluate("async () => { await window.jupyterapp.commands.execute('docmanager:save'); await window.jupyterapp.shell.currentWidget.sessionContext.shutdown(); }")
    page = lab.open("explore.ipynb", run=False); page.locator(".jp-OutputArea img").first.wait_for(timeout=30_000)
    assert "model not found" not in page.locator(".jp-Notebook").inner_text() and page.locator(".jp-OutputArea details").count() == 1


def test_jupyterlabs_own_dark_theme(lab):
    nbformat.write(notebook("# Explorer", CODE), lab.root/"dark.ipynb")
    page = lab.open("dark.ipynb"); page.wait_for_function("() => document.querySelector('.wb-plot')?.clientHeight > 130")
    assert page.locator(".wb-attention").get_attribute("data-theme") == "light"
    page.evaluate("async () => { await window.jupyterapp.commands.execute('apputils:change-theme', { theme: 'JupyterLab Dark' }); }")
    page.wait_for_function("() => document.querySelector('.wb-attention').dataset.theme === 'dark'")
    page.evaluate("async () => { await window.jupyterapp.commands.execute('apputils:change-theme', { theme: 'JupyterLab Light' }); }")
    page.wait_for_function("() => document.querySelector('.wb-attention').dataset.theme === 'light'")
    assert quiet(page)


@pytest.mark.parametrize("trusted", [False, True])
def test_an_executed_notebook_opened_in_jupyterlab(lab, micro, trusted):
    "Untrusted: the picture and the table inside. Trusted: alive without a kernel."
    nb = notebook("# Executed", "w"); html = AttentionExplorer(micro, PROMPT).fragment()
    nb.cells[1].outputs = [nbformat.v4.new_output("execute_result", {"text/html": html, "text/plain": "w"}, execution_count=1)]; nb.cells[1].metadata["trusted"] = trusted
    nbformat.write(nb, lab.root/f"executed-{trusted}.ipynb")
    if trusted:
        subprocess.run([sys.executable, "-m", "jupyter", "trust", str(lab.root/"executed-True.ipynb")], check=True, capture_output=True, env=lab.env)
    page = lab.open(f"executed-{trusted}.ipynb", run=False)
    if trusted:
        page.wait_for_function("() => document.querySelector('.wb-plot')?.clientHeight > 130")
        page.locator(".wb-token").nth(3).click(); expect(kept(page)).to_have_count(1)
    else:
        page.locator(".jp-OutputArea img").wait_for(); assert page.locator(".jp-OutputArea table").count() == 1 and page.locator(".wb-plot").count() == 0
    assert quiet(page)
