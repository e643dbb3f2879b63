"""The documentation site: what is on its pages is what the package has, its links lead somewhere, and a browser without a network can search it, use a widget and read it on a phone."""
import importlib, inspect, json, re, sys
from pathlib import Path

import pytest

from conftest import ROOT, new_page, until

sys.path.insert(0, str(ROOT/".ci"))
import docs  # noqa: E402
from manual.check import check  # noqa: E402
from manual.names import File, defined, package  # noqa: E402
from manual.page import Page, module_of, plain  # noqa: E402
from manual.prose import Site, linked_names, linked_pages, math  # noqa: E402
from manual.search import index  # noqa: E402
from manual.shell import Frame  # noqa: E402

PART = ["index.ipynb", "safety.ipynb", "guide", "lm/sites", "lm/edits", "lens/logit_lens", "patching/patch", "widgets/predict", "tutorials/tokens"]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    "A small part of the site, with one widget."
    out = tmp_path_factory.mktemp("site")/"docs"
    docs.build(out, PART, ["Predict"], [], tmp_path_factory.mktemp("cache"))
    return out


@pytest.fixture(scope="module")
def reader(browser, site):
    "A browser without a network on that part."
    page = new_page(browser, offline=True); page.site = f"file://{site}"
    yield page
    assert page.errors == [] and page.outside == []
    page.context.close()


def go(page, where): page.goto(f"{page.site}/{where}"); until(page, "() => document.documentElement.dataset.ready === 'true'")


# --- what the pages say -----------------------------------------------------------------------------------------------
def test_no_link_of_the_part_is_broken_and_a_broken_one_is_found(site, tmp_path):
    problems, pages, links = check(site)
    ours = [p for p in problems if not re.search(r"tutorials/.*\.ipynb|reports/.*is not there", p)]      # pages that are no part of this part
    assert ours == [] and pages > 20 and links > 800
    (tmp_path/"a.html").write_text('<h2 id="x">A</h2><h2 id="x">B</h2><a href="b.html#y">b</a><a href="c.html">c</a><a href="http://nowhere">d</a><a href="../../etc">e</a><a href="#x">f</a><a href="https://example.org/a">g</a><img src="p.png"><script src="https://example.org/x.js"></script>')
    (tmp_path/"b.html").write_text('<p id="z">')
    found = "\n".join(check(tmp_path)[0])
    for said in ("'x' stands twice", "no anchor #y", "c.html: is not there", "http://nowhere: no well-formed", "leads out of the site", "p.png: is not there", "a picture without a text", "needs a network"): assert said in found, said
    assert len(check(tmp_path)[0]) == 8


def test_the_reference_has_every_public_name_as_python_sees_it():
    modules = package()
    for name in ("lm.sites", "lm.edits", "lm.run", "lm.model", "patching.patch", "patching.pairs", "lens.logit_lens", "attention.patterns", "widgets.predict", "features.train"):
        module = importlib.import_module(f"workbench.{name}"); ours = modules[f"workbench.{name}"].names
        assert set(module.__all__) == set(ours), name
        for n, entry in ours.items():
            real = getattr(module, n)
            if entry.kind == "value": assert not inspect.isclass(real) and not inspect.isfunction(real); continue
            if inspect.isclass(real) and entry.kind == "class" and (issubclass(real, BaseException) or not entry.params): continue
            assert [p.name.lstrip("*") for p in entry.params] == [p for p in inspect.signature(real).parameters if p != "self"], n
            assert inspect.cleandoc(entry.doc) == inspect.cleandoc(real.__doc__ or "") or entry.kind == "class", n
            for m in entry.members:
                there = inspect.getattr_static(real, m.short); assert isinstance(there, property) == (m.kind == "property") or m.kind == "property", m.name
    assert "LanguageModel.top" in {m.name for m in modules["workbench.lm.model"].names["LanguageModel"].members}
    assert "Task.for_model" in {m.name for m in modules["workbench.tasks.task"].names["Task"].members}      # put into its class below it
    assert modules["workbench.widgets"].again["PatchingGrid"] == "workbench.widgets.patching_grid" and modules["workbench"].again["load"] == "workbench.lm.load"


def test_comments_beside_parameters_are_their_notes():
    source = '''
class Pair:
    "Two."
    def __init__(self, a: int, *, b=1): "Made of two."
    @property
    def size(self) -> int: return 2
    def _hidden(self): pass

def f(
    lm,               # a model
    x: int = 3,       # how many, in tokens
    *rest,
    y="a,b", z=1,     # of both, so of neither
    **more,
) -> dict:            # values, (layer, head)
    "What it does."
    return {}         # not this

def _given(self, n: int = 2): "Added below."
Pair.grown, Pair.made = _given, classmethod(_given)
SIZE = 3
'''
    found = defined(File(source, "workbench.x")); f = found["f"]
    assert {p.name: p.note for p in f.params} == {"lm": "a model", "x": "how many, in tokens", "*rest": "", "y": "", "z": "", "**more": ""} and f.returns.note == "values, (layer, head)"
    assert f.signature == 'f(lm, x: int = 3, *rest, y="a,b", z=1, **more) -> dict' and f.doc == "What it does."
    assert found["Pair"].signature == "class Pair(a: int, *, b=1)" and [(m.name, m.kind, m.signature) for m in found["Pair"].members] == [
        ("Pair.size", "property", "size: int"), ("Pair.grown", "method", "grown(n: int = 2)"), ("Pair.made", "method", "classmethod made(n: int = 2)")]
    assert found["SIZE"].kind == "value"


def test_links_between_notebooks_become_links_between_pages_and_names_lead_to_the_reference():
    modules = package(); site = Site(modules=modules, names={"AttentionExplorer": ["workbench.widgets.attention_explorer"], "run": ["workbench.lm.run"], "zero": ["workbench.lm.edits"]})
    site.pages = {"nbs/lm/05_edits.ipynb": "lm/edits.html", "nbs/lens/01_logit_lens.ipynb": "lens/logit_lens.html"}
    site.files = {*site.pages.values(), *(m.page for m in modules.values()), "images/tour.png"}
    at = lambda text: linked_pages(text, site, "lens/logit_lens.html", "nbs/lens/01_logit_lens.ipynb")
    assert at('<a href="../lm/05_edits.ipynb#Zero-and-mean">e</a>') == '<a href="../lm/edits.html#zero-and-mean">e</a>'
    assert at('<a href="../../Makefile">m</a>') == '<span class="file">m</span>'
    assert at('<a href="../lm/no.ipynb">n</a>') == '<a href="../lm/no.ipynb">n</a>'                 # left for the check to find
    assert at('<a href="https://example.org/x.ipynb">o</a>') == '<a href="https://example.org/x.ipynb">o</a>'
    named = lambda text: linked_names(text, site, "lens/logit_lens.html", "workbench.lens.logit_lens")
    assert 'href="../api/widgets/attention_explorer.html#AttentionExplorer"' in named("<p><code>AttentionExplorer</code></p>")
    assert named("<p><code>run</code></p>") == "<p><code>run</code></p>" and named("<pre><code>AttentionExplorer</code></pre>").count("href") == 0
    assert "<math" in math("$x^2$") and math("`$x$` and $5 or 6$ each") == "`$x$` and $5 or 6$ each".replace("$5 or 6$", math("$5 or 6$")) and math("from $3 to $4") == "from $3 to $4"


def test_a_tutorial_is_read_with_its_solutions_folded_and_without_the_teachers_notes(site):
    text = (site/"tutorials"/"tokens.html").read_text("utf-8"); source = json.loads(next((ROOT/"nbs"/"tutorials").glob("*_tokens.ipynb")).read_text("utf-8"))
    exercises = [c for c in source["cells"] if c["cell_type"] == "code" and "# BEGIN SOLUTION" in "".join(c["source"])]
    assert exercises and len(re.findall(r"<details><summary>Solution", text)) == len(exercises)
    assert "BEGIN SOLUTION" not in text and "lesson.rejects" not in text and "&lt;!-- teacher" not in text and "<!-- teacher" not in text
    assert "<details open><summary>Solution" not in text and "Hint 1" in text


def test_the_search_knows_every_name_and_is_small(site):
    import base64, gzip
    data = json.loads(gzip.decompress(base64.b64decode(re.search(r'"([^"]+)"', (site/"_static"/"search.js").read_text())[1])))
    names = {title for _, kind, _, title, _ in data["parts"] if kind == 2}
    for module in ("workbench.lm.sites", "workbench.lm.edits", "workbench.patching.patch", "workbench.lens.logit_lens"): assert set(package()[module].names) <= names
    assert {"attention head", "ablation"} <= {title for _, kind, _, title, _ in data["parts"] if kind == 1}      # terms of the glossary, which a cell wrote
    for page, _, anchor, _, _ in data["parts"]:
        file = (site/data["pages"][page][0]).read_text("utf-8"); assert not anchor or f'id="{anchor}"' in file, (data["pages"][page][0], anchor)
    assert len((site/"_static"/"search.js").read_bytes()) < 5 * len(data["parts"]) * 100


# --- in a browser, without a network ---------------------------------------------------------------------------------
@pytest.mark.browser
def test_search_by_keyboard(reader):
    go(reader, "index.html"); reader.keyboard.press("/"); reader.keyboard.type("logit lens"); until(reader, "() => document.querySelectorAll('#wb-results li').length > 3")
    texts = lambda: [" ".join(t.split()) for t in reader.locator("#wb-results li").all_inner_texts()]
    assert texts()[0].startswith("Logit lens") and any("reference" in t for t in texts()[:4])
    assert reader.locator("#wb-query").get_attribute("aria-activedescendant") == "wb-r0"
    reader.keyboard.press("ArrowDown"); reader.keyboard.press("ArrowDown"); reader.keyboard.press("ArrowUp")
    assert reader.locator("#wb-results [aria-selected=true]").get_attribute("id") == "wb-r1"
    reader.locator("#wb-query").fill("patch("); until(reader, "() => document.querySelector('#wb-results b')?.textContent.startsWith('patch')")
    reader.locator("#wb-query").fill("verify_cells"); until(reader, "() => /patch/.test(document.querySelector('#wb-results b')?.textContent)")   # a parameter
    reader.locator("#wb-query").fill("reveel"); until(reader, "() => /reveal/.test(document.querySelector('#wb-results b')?.textContent)")            # a slip of the finger
    assert "Nothing has" in reader.locator(".search .said").inner_text()
    reader.locator("#wb-query").fill("zzzzqqq"); until(reader, "() => document.querySelector('.search .said').textContent === 'Nothing found.'")
    reader.locator("#wb-query").fill("Predict.reveal"); until(reader, "() => /reveal/.test(document.querySelector('#wb-results b')?.textContent)"); reader.keyboard.press("Enter")
    reader.wait_for_url("**/api/widgets/predict.html#Predict.reveal")
    go(reader, "index.html"); reader.keyboard.press("/"); reader.keyboard.type("/x"); assert reader.locator("#wb-query").input_value() == "/x"
    reader.keyboard.press("Escape"); assert not reader.locator("dialog.search").is_visible()


@pytest.mark.browser
def test_a_widget_is_alive_on_its_page(reader):
    go(reader, "gallery/predict.html"); reader.get_by_text("at the last token", exact=True).click()
    until(reader, "() => document.querySelector('.stage input:checked, .stage [aria-checked=true], .stage [aria-pressed=true], .stage [aria-selected=true]')")
    go(reader, "gallery/index.html"); assert reader.locator(".card").count() == 1 and reader.evaluate("() => [...document.images].filter(i => i.offsetParent).every(i => i.naturalWidth > 0)")


@pytest.mark.browser
def test_folds_contents_and_the_next_page(reader):
    go(reader, "lm/sites.html"); fold = reader.locator("#wb-nav details[data-folder=patching]")
    assert fold.get_attribute("open") is None and fold.locator("a").count() == 1 and reader.locator("#wb-nav [aria-current=page]").inner_text().strip()
    fold.evaluate("f => f.open = true"); until(reader, "() => document.querySelectorAll('#wb-nav details[data-folder=patching] li').length > 1")
    reader.locator(".turn [rel=next]").click(); reader.wait_for_url("**/lm/edits.html"); reader.locator(".turn [rel=prev]").click(); reader.wait_for_url("**/lm/sites.html")
    assert reader.locator(".aside a").count() > 2


@pytest.mark.browser
def test_a_phone_and_the_dark(reader):
    go(reader, "index.html"); reader.set_viewport_size({"width": 420, "height": 860})
    try:
        for where in ("index.html", "tutorials/tokens.html", "guide/methods.html", "patching/patch.html", "api/lm/edits.html", "gallery/index.html", "gallery/predict.html"):
            go(reader, where); assert reader.evaluate("() => document.documentElement.scrollWidth - innerWidth") <= 0, where
        assert not reader.locator("#wb-nav").is_visible()
        reader.locator("#wb-menu").click(); assert reader.locator("#wb-nav").is_visible() and reader.evaluate("() => document.activeElement.closest('#wb-nav') !== null")
        reader.keyboard.press("Escape"); assert not reader.locator("#wb-nav").is_visible()
        ground = lambda: [int(x) for x in re.findall(r"\d+", reader.evaluate("() => getComputedStyle(document.body).backgroundColor"))[:3]]
        light = ground(); reader.locator("#wb-theme").click(); dark = ground(); assert min(light) > 200 and max(dark) < 60
        go(reader, "lm/sites.html"); assert max(ground()) < 60                         # it is remembered
        reader.emulate_media(media="print"); assert not reader.locator(".bar").is_visible() and not reader.locator("#wb-nav").is_visible()
    finally:
        reader.emulate_media(media="screen"); reader.evaluate("() => localStorage.clear()"); reader.set_viewport_size({"width": 1400, "height": 1000})
