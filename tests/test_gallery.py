"""The gallery: what is written, what a browser shows of it from `file://` without a network, and pages that name their pictures and print."""
import base64, gzip, json, os, re, shutil, subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from conftest import ROOT, new_page, until
from workbench.lm.errors import WorkbenchError
from workbench.reporting.gallery import gallery, pictures, tables
from workbench.reporting.page import page as report_page
from workbench.reporting.result import save_data
from workbench.reporting.stills import smaller, still

STATIC = ROOT/"workbench"/"reporting"/"static"
HOSTILE = """It's <b>bold</b> "q" </script><script>window.hit = 1</script><img src=x onerror="window.hit = 1"> &amp; 👑 שלום\u2028"""
PLOTLY, WIDGET = "application/vnd.plotly.v1+json", "application/vnd.jupyter.widget-view+json"


# --- runs of the real format, made up ---------------------------------------------------------------------------------
def heatmap(seed, title): return json.loads(go.Figure(go.Heatmap(z=np.random.default_rng(seed).random((4, 6)).astype("f4")), dict(title=title, height=300)).to_json())


def executed(seed: int, prompt: str) -> dict:
    "An executed notebook: a figure, a picture and a table."
    import io
    from PIL import Image
    out = io.BytesIO(); Image.new("RGB", (40, 30), (seed % 255, 90, 90)).save(out, "png")
    shown = lambda **data: new_output("display_data", {k.replace("__", "/"): v for k, v in data.items()})
    frame = pd.DataFrame({"effect": [.5, .25 + seed], "said": [prompt, "b"]}, index=["L0H1", "L1H0"])
    return new_notebook(cells=[new_markdown_cell("# Heads\n\n> What heads do"), new_code_cell("n: int = 1", metadata={"tags": ["parameters"]}), new_markdown_cell("## Grid"),
        new_code_cell("draw()", outputs=[new_output("display_data", {PLOTLY: heatmap(seed, f"effect of {prompt}")})]), new_markdown_cell("## Picture *two*"),
        new_code_cell("show()", outputs=[shown(image__png=base64.b64encode(out.getvalue()).decode())]), new_markdown_cell("## Table"), new_code_cell("frame", outputs=[shown(text__html=frame._repr_html_())])])


def make_run(out: Path, report: str, n: int, prompt="a prompt", model="micro", status="done", notebook=None, page=True, **result) -> Path:
    record = dict(report=report, title=report.title(), line="What it shows", status=status, key=f"{n:012x}", started=f"2026-{n // 28 % 12 + 1:02d}-{n % 28 + 1:02d}T10:00:00+00:00", seconds=float(n), cpu_seconds=1.5,
        peak_memory_bytes=2 ** 28, given={"layer": n}, parameters=dict(model=model, layer=n, prompt=prompt, seed=0), seed=0, models=[dict(parameter="model", name=model, hash="ab12")], git=dict(commit="1234567890ab", dirty=n % 2 == 1),
        versions={"workbench": "0.1.0", "torch": f"2.{n}"}, platform="Linux", host="here", command=f"workbench report {report} -p layer={n}", result=dict(accuracy=n / 8, nested=dict(words=["x", prompt]), **result),
        data={})
    if status == "failed": record["failure"] = dict(cell=2, heading="Grid", source="x", error=f"ValueError: {prompt}", trace="")
    folder = out/report/(f"layer-{n}-{record['key']}" + ("" if status == "done" else f"-{status}")); folder.mkdir(parents=True)
    record["data"] = {"rows": save_data(folder, "rows", pd.DataFrame({"head": ["L0H1", "L1H0"], "score": [.5, 1. + n]}))}
    made = executed(n, prompt) if notebook is None else notebook
    (folder/"report.ipynb").write_text(json.dumps(made), "utf-8"); (folder/"run.json").write_text(json.dumps(record), "utf-8"); (folder/"result.json").write_text(json.dumps(record["result"]), "utf-8")
    if page: (folder/"report.html").write_text(report_page(made, record), "utf-8")
    return folder


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    "Thirteen runs of three reports; one failed, one is hostile in every text, one has no picture, one is being written, one is broken."
    out = tmp_path_factory.mktemp("gallery")/"runs # 1"; empty = new_notebook(cells=[new_markdown_cell("# Bare")])
    for n in range(1, 9): make_run(out, "lens", n, model=("micro", "micro-llama")[n % 2], page=n < 4)
    make_run(out, "patching", 10, prompt=HOSTILE); make_run(out, "patching", 11, prompt="x" * 100_000, page=False); make_run(out, "patching", 12, status="failed", page=False); make_run(out, "bare", 13, notebook=empty, page=False)
    make_run(out, "bare", 14, notebook=empty, page=False).rename(out/"bare"/".layer-14"); shutil.copytree(out/"lens"/"layer-1-000000000001", out/"lens"/"broken"); (out/"lens"/"broken"/"run.json").write_text('{"sta')
    return gallery(out)


def index_of(page: Path) -> dict: return json.loads(re.search(r'id="wb-index">(.*?)</script>', page.read_text("utf-8"), re.S)[1])
def unpacked(file: Path): return json.loads(gzip.decompress(base64.b64decode(file.read_text().split('"')[3])))


# --- what is written --------------------------------------------------------------------------------------------------
def test_index_holds_every_whole_run_and_no_markup(site):
    data, text = index_of(site), site.read_text("utf-8")
    assert len(data["runs"]) == 12 and data["broken"] == ["lens/broken"] and set(data["reports"]) == {"lens", "patching", "bare"}
    assert text.count("</script>") == 2 and "<img" not in text and "window.hit" in text and "\u2028" not in text
    assert max(len(json.dumps(r)) for r in data["runs"]) < 2500, "a prompt of 100,000 characters is cut"
    assert sorted(p.name for p in site.parent.iterdir()) == ["_gallery", "bare", "index.html", "lens", "patching"]


def test_a_packed_run_holds_what_a_comparison_needs(site):
    name = next(r[0] for r in index_of(site)["runs"] if r[1].endswith("00a"))
    file = site.parent/"_gallery"/"runs"/f"{name}.js"; made = unpacked(file)
    assert re.fullmatch(r'workbenchRun\("[0-9a-f]{10}","[A-Za-z0-9+/=]+"\)\n', file.read_text()), "nothing of a run stands in a script as code"
    assert [(p["heading"], p["kind"], p["alt"]) for p in made["pictures"]] == [("Grid", "plotly", "effect of It's bold \"q\" window.hit = 1 & 👑 שלום"), ("Picture *two*", "image", "Picture *two*")]
    assert made["tables"][0] | dict(columns=0) == dict(title="rows", heading="Data", columns=0, rows=[["L0H1", "0.5"], ["L1H0", "11.0"]], of=2)
    assert made["tables"][1]["columns"] == ["", "effect", "said"] and [r[0] for r in made["tables"][1]["rows"]] == ["L0H1", "L1H0"]
    assert ["accuracy", 1.25] in made["result"] and "template" not in made["pictures"][0]["figure"]["layout"]


def test_only_what_changed_is_written_again(tmp_path):
    out = tmp_path/"o"; kept, gone = make_run(out, "lens", 1, page=False), make_run(out, "lens", 2, page=False); page = gallery(out)
    before = {p.name: p.stat().st_mtime_ns for p in out.glob("_gallery/*/*")}; shutil.rmtree(gone); new = make_run(out, "lens", 3, page=False); gallery(out)
    after = {p.name: p.stat().st_mtime_ns for p in out.glob("_gallery/*/*")}; same = [n for n in after if before.get(n) == after[n]]
    assert len(before) == len(after) == 4 and len(same) == 2 and {r[1] for r in index_of(page)["runs"]} == {f"lens/{kept.name}", f"lens/{new.name}"}
    away = gallery(out, tmp_path/"site"/"all.html"); assert away.name == "all.html" and index_of(away)["runs"][0][1] == f"../o/lens/{new.name}" and (away.parent/"_gallery"/"thumbs").is_dir()
    with pytest.raises(WorkbenchError, match="There is no folder"): gallery(tmp_path/"nowhere")


def test_an_empty_folder_is_a_gallery_too(tmp_path): assert index_of(gallery(tmp_path))["runs"] == []


def test_tables_of_html():
    found = tables("<table><thead><tr><th></th><th colspan=2>a</th></tr><tr><th>k</th><th>x</th><th>y</th></tr></thead><tr><th rowspan=2>r</th><td>1</td><td>&lt;b&gt;</td></tr><tr><td>2<style>p{}</style></td><td>3</td></tr></table>")
    assert found == [dict(columns=["k", "a / x", "a / y"], rows=[["r", "1", "<b>"], ["r", "2", "3"]], of=2)]
    big = "<table>" + "<tr><td>a</td><td>1</td></tr>" * 1000 + "</table>"
    assert len(tables(big)[0]["rows"]) == 300 and tables(big)[0]["of"] == 1000 and tables("<table><tr><td>") == []


# --- stills -----------------------------------------------------------------------------------------------------------
def test_a_still_shows_the_largest_cell_where_it_is():
    import io
    from PIL import Image
    z = np.zeros((3, 5)); z[2, 1] = 1; z[0, 4] = np.nan
    for reversed_ in (False, True):
        svg = still(dict(data=[dict(type="heatmap", z=z.tolist(), colorscale="Greys", reversescale=False)], layout=dict(yaxis=dict(autorange="reversed")) if reversed_ else {}))
        pixels = np.array(Image.open(io.BytesIO(base64.b64decode(re.search("base64,([^\"]+)", svg)[1]))))
        row = (lambda r: r) if reversed_ else (lambda r: 2 - r)       # plotly draws row 0 at the bottom
        assert pixels.shape == (3, 5, 4) and (pixels[row(2), 1, :3] < 60).all() and (pixels[row(1), 1, :3] > 200).all() and pixels[row(0), 4, 3] == 0


def test_bars_and_lines_have_their_lengths():
    heights = [float(h) for h in re.findall(r'<rect x="[\d.]+" y="[\d.]+" width="[\d.]+" height="([\d.]+)" fill="#0072b2"', still(dict(data=[dict(type="bar", x=["a", "b", "c"], y=[1, 2, 4])])))]
    assert np.allclose(np.array(heights) / heights[0], [1, 2, 4], rtol=.02)
    path = re.search(r'<path d="(M[^"]+)" fill="none" stroke="#0072b2"', still(dict(data=[dict(type="scatter", mode="lines", x=[0, 1, 2, 3], y=[0, 1, None, 3])])))[1]
    assert path.count("M") == 2, "a gap stays a gap"
    beside = still(dict(data=[dict(type="bar", x=[1], y=[1]), dict(type="bar", x=[1], y=[1], xaxis="x2", yaxis="y2")], layout=dict(xaxis=dict(domain=[0, .4]), xaxis2=dict(domain=[.6, 1]))))
    left, right = (float(x) for x in re.findall(r'<rect x="([\d.]+)" y="[\d.]+" width="[\d.]+" height="[\d.]+" fill="#[0-9a-f]{6}"', beside))
    assert left < 130 and right > 190


@pytest.mark.parametrize("figure", [{}, dict(data=None), dict(data=[dict(type="box", y=[1])]), dict(data=[dict(type="heatmap", z=[])]), dict(data=[dict(type="heatmap", z=[[None]])]), dict(data=[dict(type="scatter")], layout=None)])
def test_nothing_to_draw_is_no_still(figure): assert still(figure) in (None, still(dict(data=[dict(type="scatter", x=[], y=[])])))


def test_no_text_of_a_figure_gets_into_its_still():
    bad = '"/><script>x</script>'
    svg = still(dict(data=[dict(type="scatter", x=[bad, "b"], y=[1, 2], name=bad, mode="lines+markers", line=dict(color=bad, dash=bad), marker=dict(color=[bad]), fill="toself", fillcolor=bad),
                           dict(type="bar", x=[1], y=[2], marker=dict(color=[bad])), dict(type="heatmap", z=[[1, 2]], colorscale=[[0, bad], [1, bad]])], layout=dict(title=bad)))
    assert "script" not in svg and len(svg) < 5000 and smaller(b"\x89PNG\r\n\x1a\n broken") is None


# --- the page of a run: words for pictures, paper ---------------------------------------------------------------------
def one(data, metadata=None, heading="## What <b>heads</b> do & why"): return report_page(new_notebook(cells=[new_markdown_cell(heading), new_code_cell("x", outputs=[new_output("display_data", data, metadata=metadata or {})] * 2)]))


def test_every_picture_has_words():
    names = lambda text: re.findall(r'(?:alt|aria-label)="([^"]*)"', text.split("<main>")[1].split("</main>")[0])
    png = {"image/png": "iVBORw0KGgo="}
    assert names(one(png)) == ["What heads do &amp; why", "What heads do &amp; why, 2"] and names(one(png, heading="text")) == ["Figure", "Figure, 2"]
    assert names(one(png, {"image/png": {"alt": 'a "b" <c>\n'}}))[0] == "a &quot;b&quot; &lt;c&gt;" == names(one(png, {"alt": 'a "b" <c>'}))[0]
    assert names(one({PLOTLY: dict(data=[], layout=dict(title=dict(text="&lt;bos&gt; <i>x</i><br><sup>y</sup>")))}))[0] == "&lt;bos&gt; x y"
    assert names(one({"image/svg+xml": "<svg></svg>"}))[0] == "What heads do &amp; why" and names(one({"text/html": "<p><img src='data:,'><IMG alt='' src='data:,'>"})) == ["What heads do &amp; why"] * 2


def test_html_of_an_output_is_left_alone_and_its_pictures_get_words(offline_page, tmp_path):
    "A text that looks like a picture inside an attribute stays a text."
    odd = '<table><td title="<img src=x onmouseover=hit()//">a</td></table><img src="data:,"><img alt="mine" src="data:,">'; (tmp_path/"p.html").write_text(one({"text/html": odd}))
    page = offline_page; page.goto((tmp_path/"p.html").as_uri())
    assert page.eval_on_selector_all(".wb-html img", "a => a.map(i => i.alt)") == ["What heads do & why", "mine"] * 2 and page.get_attribute(".wb-html td", "title") == "<img src=x onmouseover=hit()//" and page.evaluate("document.querySelectorAll('[onmouseover]').length") == 0


def test_alt_keeps_what_was_written(): assert one({"text/html": '<img class=a alt="mine" src="data:,">'}).count('alt="mine"') == 2


def test_the_foot_says_where_a_run_came_from(tmp_path):
    text = (make_run(tmp_path, "lens", 3, prompt=HOSTILE)/"report.html").read_text("utf-8")
    for said in ("1234567890ab-dirty", "1.5 s of processor time", "at most 256 MiB", "micro ab12", 'href="data/rows.parquet"', "here, Linux", "000000000003"): assert said in text, said
    assert "<script>window.hit" not in text and "<img src=x" not in text


# --- rules ------------------------------------------------------------------------------------------------------------
def test_pure_functions_in_node():
    node = shutil.which("node")
    if not node: pytest.fail("node is not installed") if os.environ.get("CI") else pytest.skip("node is not installed (Debian: apt-get install nodejs)")
    done = subprocess.run([node, "--test", str(ROOT/"tests"/"js"/"compare.test.mjs")], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"pass (\d+)", done.stdout)[1]) == (ROOT/"tests"/"js"/"compare.test.mjs").read_text().count("\ntest(")


@pytest.mark.parametrize("name", ["gallery.js", "compare.js", "shades.js", "page.js"])
def test_text_enters_a_page_as_text(name):
    source = (STATIC/name).read_text()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|\beval\(|new Function|https?://", source)


@pytest.mark.parametrize("name", ["gallery.css", "page.css"])
def test_styles_ask_for_nothing(name): assert not re.search(r"url\(|@import|https?:", (STATIC/name).read_text())


def test_both_scripts_fit_into_one():
    names = [n for f in ("shades.js", "compare.js", "gallery.js") for n in re.findall(r"^(?:export )?(?:async )?(?:function|const|let|class) (\w+)", (STATIC/f).read_text(), re.M)]
    assert len(names) == len(set(names)) and len((STATIC/"gallery.js").read_text()) < 40_000


# --- in a browser -----------------------------------------------------------------------------------------------------
@pytest.fixture
def shown(offline_page, site):
    offline_page.goto(site.as_uri()); offline_page.wait_for_selector("html[data-ready=true]")
    yield offline_page
    assert offline_page.errors == [] and offline_page.outside == [] and offline_page.evaluate("window.hit") is None


def said(page): return page.locator("p.said").inner_text()
def titles(page): return page.locator(".card h2").all_inner_texts()


@pytest.mark.browser
def test_search_filter_sort_and_the_address(shown, site):
    assert said(shown) == "12 runs" and len(titles(shown)) == 12 and "lens/broken" in shown.locator("p.error").first.inner_text()
    search = shown.get_by_role("searchbox", name="Search"); search.fill("LENS micro-llama"); until(shown, "() => document.querySelector('p.said').textContent === '4 of 12 runs'")
    assert "q=LENS+micro-llama" in shown.url
    shown.get_by_label("Filter", exact=True).select_option("layer"); shown.get_by_role("combobox", name="layer").fill(">2"); until(shown, "() => document.querySelector('p.said').textContent === '3 of 12 runs'")
    shown.get_by_label("Sort", exact=True).select_option("p:layer"); shown.get_by_role("button", name="Descending").click()
    layers = lambda: shown.locator(".card .chip.param:first-child dd").all_inner_texts()
    assert layers() == ["3", "5", "7"]
    shown.goto("about:blank"); shown.go_back(); shown.wait_for_selector("html[data-ready=true]")
    assert layers() == ["3", "5", "7"] and search.input_value() == "LENS micro-llama"
    shown.get_by_role("button", name="Clear all").click(); assert said(shown) == "12 runs"
    shown.get_by_label("Report", exact=True).select_option("patching"); shown.get_by_label("Status", exact=True).select_option("failed"); assert said(shown) == "1 of 12 runs" and "ValueError" in shown.locator(".card .error").inner_text()
    shown.get_by_role("button", name="Clear all").click(); shown.get_by_label("From", exact=True).fill("2026-01-12"); shown.get_by_label("To", exact=True).fill("2026-01-13"); assert said(shown) == "2 of 12 runs"
    search.fill("nothing has this"); shown.get_by_text("No run has all of this").wait_for()


@pytest.mark.browser
def test_a_table_of_runs_sorts_by_a_result(shown):
    shown.get_by_label("Report", exact=True).select_option("lens"); shown.get_by_role("button", name="Table", exact=True).click(); shown.get_by_role("button", name="accuracy").click()
    assert shown.locator("th[aria-sort=descending]").inner_text().startswith("accuracy")
    found = [float(t) for t in shown.locator("tbody tr td:last-child").all_inner_texts()]; assert found == sorted(found, reverse=True) and len(found) == 8


@pytest.mark.browser
def test_a_run_opens_with_keys_alone(shown):
    shown.get_by_label("Search", exact=True).fill("lens"); until(shown, "() => document.querySelectorAll('.card').length === 8"); shown.locator(".card a").first.focus()
    shown.keyboard.press("End"); shown.keyboard.press("c"); shown.keyboard.press("ArrowLeft"); shown.keyboard.press("c")
    assert shown.locator(".picked h2").count() == 2 and shown.get_by_role("button", name="Compare these two").is_enabled()
    shown.keyboard.press("/"); assert shown.evaluate("document.activeElement.type") == "search"
    shown.locator(".card a").last.focus(); shown.keyboard.press("Enter"); shown.wait_for_url("**/report.html"); assert shown.locator("h1").inner_text() == "Heads"


@pytest.mark.browser
def test_two_runs_side_by_side(shown, site):
    for n in (10, 1): shown.locator(".card", has_text=f"patching · 2026-01-{n + 1:02d}" if n == 10 else f"lens · 2026-01-{n + 1:02d}").get_by_text("Compare").click()
    shown.get_by_role("button", name="Compare these two").click(); shown.wait_for_selector("main[data-state=ready]", timeout=60_000)
    rows = {r.locator("th").inner_text(): r.locator("td").all_inner_texts() for r in shown.locator("section[aria-labelledby=d-parameters] tr.differs").all()}
    assert rows["layer"] == ["10", "1", "−9 (−90 %)"] and rows["prompt"][:2] == [HOSTILE.replace("\u2028", rows["prompt"][0][-1]), "a prompt"] and rows["model"][:2] == ["micro", "micro-llama"] and "seed" not in rows
    text = lambda name: shown.locator(f"section[aria-labelledby=d-{name}]").inner_text()
    assert "accuracy" in text("results") and "−1.125 (−90 %)" in text("results") and "2.10" in text("provenance") and "git · dirty" in text("provenance")
    assert "11.0 → 2.0" in text("tables") and "−9 (−81.8 %)" in text("tables") and "10.25 → 1.25" in text("tables")
    pictures_ = shown.locator("section[aria-labelledby=d-pictures]")
    assert pictures_.locator(".plot .main-svg").count() >= 3 and pictures_.locator(".plot .hm image, .plot .hm").count() >= 3 and pictures_.locator("img").count() == 2 and "B − A" in pictures_.inner_text()
    limits = shown.evaluate("[...document.querySelectorAll('.plot')].slice(0, 2).map(el => [el._fullData[0].zmin, el._fullData[0].zmax])"); assert limits[0] == limits[1]
    gap = shown.evaluate("document.querySelectorAll('.plot')[2].data[0].z"); truth = np.array(np.random.default_rng(1).random((4, 6)).astype("f4"), float) - np.random.default_rng(10).random((4, 6)).astype("f4"); assert np.allclose(gap, truth)
    shown.get_by_role("button", name="Show both pages").click(); until(shown, "() => document.querySelectorAll('iframe').length === 2")
    for frame in shown.frames[1:]: frame.wait_for_selector(".wb-figure .main-svg", timeout=60_000)
    shown.get_by_role("button", name="Swap").click(); shown.wait_for_selector("main[data-state=ready]"); assert shown.locator("tr.differs", has_text="layer").locator("td").first.inner_text() == "1"
    shown.keyboard.press("Escape"); assert said(shown) == "12 runs" and shown.locator(".picked").count() == 2


@pytest.mark.browser
def test_narrow_and_dark(browser, site):
    grounds = set()
    for scheme in ("light", "dark"):
        page = new_page(browser, viewport={"width": 420, "height": 900}, color_scheme=scheme, offline=True); page.goto(site.as_uri()); page.wait_for_selector("html[data-ready=true]")
        assert page.evaluate("document.documentElement.scrollWidth") <= 420 and page.errors == []; grounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        ids = [r[0] for r in index_of(site)["runs"]][:2]; page.goto(f"{site.as_uri()}#diff={'~'.join(ids)}"); page.wait_for_selector("main[data-state=ready]", timeout=60_000)
        assert page.evaluate("document.documentElement.scrollWidth") <= 420 and page.errors == []; page.context.close()
    assert len(grounds) == 2


@pytest.mark.browser
def test_a_page_prints_light_whole_and_without_buttons(browser, tmp_path):
    folder = make_run(tmp_path, "lens", 2); page = new_page(browser, color_scheme="dark", offline=True); page.goto((folder/"report.html").as_uri()); page.wait_for_selector("html[data-ready=true]")
    page.evaluate("addEventListener('beforeprint', () => { window.seen = [getComputedStyle(document.body).backgroundColor, document.querySelector('.wb-figure')._fullLayout.width] })")
    sheet = page.pdf(format="A4"); assert sheet.startswith(b"%PDF") and page.evaluate("window.seen") == ["rgb(255, 255, 255)", 680]
    page.emulate_media(media="print"); assert not page.locator(".wb-bar").is_visible() and not page.locator("nav").is_visible() and page.evaluate("getComputedStyle(document.querySelector('.wb-output')).overflowX") == "visible"
    assert page.evaluate("document.documentElement.dataset.theme") is None and page.errors == []; page.context.close()


@pytest.mark.browser
def test_a_thousand_runs_stay_light(offline_page, tmp_path):
    "Bytes and nodes; the time it takes is a row of the bench."
    out, first = tmp_path/"o", make_run(tmp_path/"o", "lens", 0, page=False, notebook=new_notebook(cells=executed(0, "a")["cells"][:4])); record = json.loads((first/"run.json").read_text())
    for n in range(1, 1000):
        folder = out/("abcde"[n % 5] * 5)/f"n-{n}"; folder.mkdir(parents=True)
        made = record | dict(report="abcde"[n % 5] * 5, started=f"2026-{n % 12 + 1:02d}-01T00:{n // 60:02d}:{n % 60:02d}+00:00", parameters=record["parameters"] | dict(layer=n), given={"layer": n}, result=dict(accuracy=n / 1000, **{f"r{k}": n * k / 7 for k in range(12)}), data={})
        (folder/"run.json").write_text(json.dumps(made)); os.link(first/"report.ipynb", folder/"report.ipynb")
    page = gallery(out); assert len(index_of(page)["runs"]) == 1000 and page.stat().st_size < 1_000_000
    offline_page.goto(page.as_uri()); offline_page.wait_for_selector("html[data-ready=true]")
    nodes = lambda: offline_page.evaluate("document.querySelectorAll('*').length")
    assert said(offline_page) == "1000 runs" and nodes() < 4000 and offline_page.errors == []
    assert offline_page.evaluate("performance.getEntriesByType('resource').length") <= 48, "pictures out of sight are not loaded"
    offline_page.get_by_role("button", name="Later").click(); assert "page 2 of 21" in offline_page.locator(".pager").inner_text() and nodes() < 4000
    offline_page.get_by_label("Search", exact=True).fill("DDDDD layer"); until(offline_page, "() => document.querySelector('p.said').textContent === '200 of 1000 runs'"); assert "page 1 of 5" in offline_page.locator(".pager").inner_text()
    offline_page.get_by_role("button", name="Table", exact=True).click(); assert nodes() < 4000
