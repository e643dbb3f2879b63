"""Report pages in a real Chromium from `file://` without any network, and the tour in a real JupyterLab."""
import json, shutil

import nbformat
import pytest

from conftest import LOCAL, ROOT, new_page, notebook
from workbench.reporting.run import run

pytestmark = pytest.mark.browser

HOSTILE = """It's <b>bold</b> "q" </script><script>window.hit = 1</script><img src=x onerror="window.hit = 1"> &amp; 👑"""

FIGURE = """import plotly.graph_objects as go
go.Figure(go.Heatmap(z=[[1, 2], [3, 4]], x=[0, 1]), dict(title=prompt, height=240, xaxis=dict(tickvals=[0, 1], ticktext=["&lt;bos&gt;", "a"])))"""

WIDGET = '''import anywidget, traitlets
class Counter(anywidget.AnyWidget):
    _esm = """export default { render({ model, el }) {
      const b = document.createElement("button"); b.dataset.testid = model.get("name");
      const draw = () => { b.textContent = model.get("value") + " of " + new Uint8Array(model.get("data").buffer).length; };
      b.onclick = () => { model.set("value", model.get("value") + 1); model.save_changes(); };
      model.on("change:value", draw); draw(); el.append(b); } }"""
    _css = "button { font-weight: bold }"
    name, value, data = traitlets.Unicode().tag(sync=True), traitlets.Int(0).tag(sync=True), traitlets.Bytes(b"abc").tag(sync=True)
Counter(name="first")'''

OUTSIDE = """from IPython.display import HTML
HTML('<img src="http://example.com/a.png"><script src="http://example.com/a.js"></script><link rel=stylesheet href="http://example.com/a.css">')"""


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    "The page of a report that shows a bit of everything, and a prompt that tries to break out."
    root = tmp_path_factory.mktemp("everything")
    cells = ["## First figure", FIGURE, "## Second figure", FIGURE, "## Text", "print(prompt)\nprompt", "import pandas\npandas.set_option('display.max_colwidth', None)\npandas.DataFrame({'prompt': [prompt]})",
             "## Widgets", WIDGET, 'Counter(name="second", value=5)', "import ipywidgets\nipywidgets.IntSlider()"]
    conclude = "from workbench.reporting.result import Result\nResult(prompt=prompt)"
    nbformat.write(notebook("# Everything\n\n> All kinds of output", ('prompt: str = "a"  # a prompt', "parameters"), *cells, (conclude, "result")), root/"everything.ipynb")
    return run(root/"everything.ipynb", {"prompt": HOSTILE}, out=root/"_runs").page


@pytest.fixture
def shown(offline_page, everything):
    offline_page.goto(everything.as_uri())
    offline_page.wait_for_selector("html[data-ready=true]", timeout=60_000)
    return offline_page


def quiet(page): return page.errors == [] and page.outside == []


def test_page_is_alive_without_network(shown):
    assert quiet(shown), (shown.errors, shown.outside)
    assert shown.locator(".wb-figure .main-svg").count() >= 2 and shown.locator(".wb-figure .hm image, .wb-figure .hm").count() >= 2
    assert shown.get_by_test_id("first").inner_text() == "0 of 3" and shown.get_by_test_id("second").inner_text() == "5 of 3"
    shown.get_by_test_id("first").click()
    assert shown.get_by_test_id("first").inner_text() == "1 of 3" and shown.get_by_test_id("second").inner_text() == "5 of 3"
    assert "needs a running kernel" in shown.locator(".wb-note").inner_text()


def test_one_copy_of_every_script(shown, everything):
    data = json.loads(shown.locator("#wb-data").text_content())
    assert len(data["figures"]) == 2 and shown.locator("#wb-plotly").count() == 1
    assert sum("_esm" in m["state"] for m in data["models"].values()) == 2 and len(data["code"]) == 2, "two widgets, one module and one style"
    assert everything.stat().st_size < 3_000_000


def test_the_page_itself_forbids_outside_requests(browser, write_report, tmp_path):
    done = run(write_report("n: int = 0", OUTSIDE), out=tmp_path/"o")
    context = browser.new_context()
    page, asked = context.new_page(), []
    page.on("requestfailed", lambda r: asked.append(r.failure))
    page.on("requestfinished", lambda r: asked.append(r.url) if not r.url.startswith(LOCAL) else None)
    page.goto(done.page.as_uri())
    page.wait_for_selector("html[data-ready=true]")
    assert asked == ["csp"] * 3
    context.close()


def test_a_hostile_prompt_is_text_everywhere(shown):
    assert shown.evaluate("window.hit") is None
    texts = [shown.locator(s).first.inner_text() for s in (".wb-chip dd", ".wb-result td", "pre.wb-text", "table.dataframe td")]
    assert all(HOSTILE == t.strip() for t in texts), texts
    assert "<bos>" in shown.locator(".wb-figure .xtick text").all_text_contents()


def test_code_is_folded_away_and_unfolds(shown):
    code = shown.locator(".wb-code").first
    assert not code.is_visible()
    shown.get_by_role("button", name="Show code").click()
    assert code.is_visible() and "plotly" in code.inner_text()
    shown.get_by_role("button", name="Hide code").click()
    assert not code.is_visible()


def test_themes(browser, everything):
    grounds = []
    for scheme in "light", "dark":
        page = new_page(browser, color_scheme=scheme, offline=True)
        page.goto(everything.as_uri())
        page.wait_for_selector("html[data-ready=true]")
        ink = page.evaluate("getComputedStyle(document.querySelector('.wb-figure .xtick text')).fill")
        grounds.append((page.evaluate("getComputedStyle(document.body).backgroundColor"), ink))
        page.get_by_role("button", name="Theme: auto").click()
        page.get_by_role("button", name="Theme: dark").click()
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == grounds[0][0] and quiet(page)
        page.wait_for_function("ink => getComputedStyle(document.querySelector('.wb-figure .xtick text')).fill === ink", arg=grounds[0][1])
        page.context.close()
    assert grounds[0][0] != grounds[1][0] and grounds[0][1] != grounds[1][1]


def test_narrow_page_does_not_scroll_sideways(browser, everything):
    page = new_page(browser, viewport={"width": 420, "height": 900}, offline=True)
    page.goto(everything.as_uri())
    page.wait_for_selector("html[data-ready=true]")
    assert page.evaluate("document.documentElement.scrollWidth") <= 420 and quiet(page)
    page.context.close()


def test_contents_lead_to_their_parts(shown):
    links = shown.locator("nav a")
    assert links.all_inner_texts() == ["First figure", "Second figure", "Text", "Widgets"]
    links.nth(3).click()
    shown.wait_for_function("() => { const top = document.getElementById('widgets').getBoundingClientRect().top; return top >= 0 && top < innerHeight }")


# --- the tour ---------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def tour(tmp_path_factory): return run("tour", out=tmp_path_factory.mktemp("tour"))


def test_tour_page(offline_page, tour):
    offline_page.goto(tour.page.as_uri())
    offline_page.wait_for_selector("html[data-ready=true]", timeout=60_000)
    figures = offline_page.locator(".wb-figure")
    assert quiet(offline_page) and figures.count() >= 4
    assert all(figures.nth(i).locator(".main-svg").count() for i in range(figures.count()))
    assert offline_page.locator("table.wb-result").count() == 1


def test_tour_runs_in_jupyterlab(lab):
    shutil.copy(ROOT/"reports"/"tour.ipynb", lab.root/"tour.ipynb")
    page = lab.open("tour.ipynb")
    assert page.locator(".jp-RenderedPlotly .main-svg, .js-plotly-plot .main-svg").count() >= 4
    assert quiet(page), (page.errors, page.outside)


def test_finished_run_opens_in_jupyterlab_without_a_kernel_run(lab, tour):
    shutil.copy(tour.notebook, lab.root/"finished.ipynb")
    page = lab.open("finished.ipynb", run=False)
    page.wait_for_selector(".js-plotly-plot .main-svg", timeout=60_000)
    assert quiet(page), (page.errors, page.outside)
