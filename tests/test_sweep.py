"""Sweeps: what is asked, what one bad member costs, what is never run again, what is left after a kill, and the page over all members."""
import json, os, subprocess, sys
from importlib import import_module
from pathlib import Path

import nbformat
import numpy as np
import pytest

from workbench.lm.errors import WorkbenchError
from workbench.reporting.catalogue import describe
from workbench.reporting.grid import grid_of, spread
from workbench.reporting.params import read_params
from workbench.reporting.kernel import MARK
from workbench.reporting.result import MIME
from workbench.reporting.run import run, runs
from workbench.reporting.secrets import write_text
from workbench.reporting.sweep import open_sweep, sweep, sweeps, told

from conftest import new_page, notebook, until

BENCH = Path(__file__).parent/"bench"


# --- the grid ---------------------------------------------------------------------------------------------------------
PARAMS = read_params(notebook(('''
from typing import Annotated, Any, Literal
layer: Annotated[int, range(6)] = 0
share: float = .5
limit: int | None = None
scale: Literal["prob", "logit"] = "prob"
steps: Literal[1, 2, 4] = 1
flag: bool = False
prompt: str = "Hi"
words: list[str] = ["a"]
shape: tuple[int, ...] = (2,)
table: dict[str, int] = {}
free: Any = None
''', "parameters")))


@pytest.mark.parametrize("typed, values", [
    ("layer=0..3", [0, 1, 2, 3]), ("layer=5..1..-2", [5, 3, 1]), ("layer=0..1,4", [0, 1, 4]), ("layer=*", [0, 1, 2, 3, 4, 5]), ("layer=2", [2]), ("layer=[1, 2]", [1, 2]), ("layer=1,1,01", [1]),
    ("share=0..0.3..0.1", [0.0, .1, .2, .3]), ("share=1e-3,.5", [.001, .5]), ("share=0..2", [0.0, 1.0, 2.0]), ("limit=none,1..2", [None, 1, 2]),
    ("scale=*", ["prob", "logit"]), ("scale=logit", ["logit"]), ("steps=1,4", [1, 4]), ("steps=1..2", [1, 2]), ("flag=*", [False, True]), ("flag=yes,no", [True, False]),
    ("prompt=a,b", ["a", "b"]), ("prompt=Hello\\, you,Bye", ["Hello, you", "Bye"]), ('prompt=["Hello, you", "Bye"]', ["Hello, you", "Bye"]), ("prompt=0..3", ["0..3"]), ("prompt=", [""]), ("prompt=*", ["*"]),
    ("prompt=x=y", ["x=y"]), ("prompt=[it", ["[it"]), ('words=["a", "b"]', [["a", "b"]]), ('words=[["a"], ["b", "c"]]', [["a"], ["b", "c"]]), ("words=[]", [[]]),
    ("shape=[2, 3]", [(2, 3)]), ("shape=[[2, 3], [4]]", [(2, 3), (4,)]), ('table={"a": 1}', [{"a": 1}]), ('table=[{"a": 1}, {}]', [{"a": 1}, {}]), ("free=1..2", [1, 2]), ("free=[1, 2]", [1, 2])])
def test_typed_values_are_read_as_the_report_declares_them(typed, values):
    name = typed.split("=")[0]; got = grid_of(PARAMS, spread(typed))[name]
    assert got == values and [type(v) for v in got] == [type(v) for v in values]


@pytest.mark.parametrize("given, values", [(range(2), [0, 1]), (np.arange(2), [0, 1]), ((1, 2), [1, 2]), (3, [3]), (np.int64(3), [3]), ([1, 1], [1])])
def test_values_from_python(given, values): assert grid_of(PARAMS, {"layer": given})["layer"] == values


def test_a_list_is_a_value_only_where_its_items_are_not():
    assert grid_of(PARAMS, dict(words=["a", "b"], shape=(2, 3), table={"a": 1}, prompt="a,b")) == dict(words=[["a", "b"]], shape=[(2, 3)], table=[{"a": 1}], prompt=["a,b"])


@pytest.mark.parametrize("wrong, says", [
    (spread("layr=1"), "no parameter 'layr'. Did you mean 'layer'"), (spread("layer=0..6"), "int from 0 to 5, not '6'"), (spread("layer=a..c"), "not 'a..c'"), (spread("layer="), "not ''"), (spread("share=0..1..0"), "steps of 0 never lead"),
    (spread("share=0..1e9"), "100,000 of one parameter"), (spread("shape=2,3"), "'shape' of report it must be tuple"), ({"layer": []}, "given no value at all"), ({"layer": ["1"]}, "not '1'"), ({"layer": [1, None]}, "not None"), ({"prompt": 3}, "not 3")])
def test_what_cannot_be_a_value_is_one_sentence(wrong, says):
    with pytest.raises(WorkbenchError, match=says) as e: grid_of(PARAMS, wrong)
    assert len(str(e.value)) < 300


def test_words_that_are_no_grid():
    for words, says in ((["layer"], "NAME=VALUES"), (["a=1", "a=2"], "given twice.*a=1,2")):
        with pytest.raises(WorkbenchError, match=says): spread(*words)


# --- an engine without kernels, for what is not about kernels ---------------------------------------------------------
@pytest.fixture
def quick(monkeypatch, tmp_path):
    "Runs are made by a function of the values instead of a kernel: `quick.result = f`; `quick.ran` lists the values of each run."
    class Quick: ran = []; result = staticmethod(lambda n, **_: {"n2": n * n}); printed = ""; during = staticmethod(lambda values: None)
    quick = Quick(); quick.ran = []
    def execute(report, given, target, show, timeout):
        values = {n: given.get(n, p.default) for n, p in report.params.items()}; quick.ran.append(values); quick.during(values)
        nb = json.loads(json.dumps(report.notebook)); cells = [c for c in nb["cells"] if c["cell_type"] == "code"]
        for c in cells: c["metadata"]["papermill"] = dict(start_time="now", duration=.1)
        cells[0]["outputs"] = [dict(output_type="stream", name="stdout", text=quick.printed)] if quick.printed else []
        try: cells[-1]["outputs"] = [dict(output_type="execute_result", metadata={}, execution_count=1, data={MIME: quick.result(**values), "text/plain": "{}"})]
        except (ValueError, WorkbenchError) as e: cells[-1]["outputs"] = [dict(output_type="error", ename="ValueError", evalue=str(e), traceback=[f"{MARK if isinstance(e, WorkbenchError) else 'ValueError: '}{e}"])]; write_text(target, json.dumps(nb)); raise
        write_text(target, json.dumps(nb))
    monkeypatch.setattr(import_module("workbench.reporting.run"), "execute", execute)
    for module in ("provenance", "sweep"): monkeypatch.setattr(import_module(f"workbench.reporting.{module}"), "git_state", lambda: None)
    return quick


def test_bad_input_runs_nothing_and_leaves_nothing(write_report, quick, tmp_path):
    path = write_report("n: int = 2")
    for grid, more in (({"n": [1, "x"]}, {}), ({"m": 1}, {}), ({"n": [1, 2]}, dict(jobs=0))):
        with pytest.raises(WorkbenchError): sweep(path, grid, out=tmp_path/"o", **more)
    assert not quick.ran and not (tmp_path/"o").exists()


def test_what_was_finished_by_anyone_is_found_and_said(write_report, quick, tmp_path, capsys):
    path, out = write_report("n: int = 2\nseed: int = 0"), tmp_path/"o"
    run(path, {"n": 1}, out=out)
    first = sweep(path, spread("n=0..3"), out=out, jobs=1, show=True)
    assert [v["n"] for v in quick.ran] == [1, 0, 2, 3] and [m["status"] for m in first.members] == ["done", "cached", "done", "done"] and first.status == "done"
    err = capsys.readouterr().err
    assert "small: 1 of 4 members were finished before and are not run again" in err and "small: 4/4 n=3: done in" in err
    again = sweep(path, {"n": range(4)}, out=out, jobs=1)
    assert len(quick.ran) == 4 and again.folder == first.folder and {m["status"] for m in again.members} == {"cached"}
    assert str(again) == "4 members of small: 4 finished before"
    wider = sweep(path, {"n": range(6)}, out=out, jobs=1)
    assert [v["n"] for v in quick.ran[4:]] == [4, 5] and wider.folder != first.folder
    sweep(path, {"n": [0, 1]}, out=out, jobs=1, force=True)
    assert [v["n"] for v in quick.ran[6:]] == [0, 1]
    assert len(runs(out)) == 6 and len(sweeps(out)) == 3


def test_one_member_that_fails_is_one_member(write_report, quick, tmp_path):
    def result(n, word):
        if n == 1: raise ValueError(f"no {n}\nsecond line")
        return {"half": n / 2, "inner": {"low": -n, "deep": {"x": word}}, "word": word * 2, "list": [n, n], "on": n > 1}
    quick.result = result; path = write_report("n: int = 2\nword: str = 'a'"); quick.printed = "said in a cell\n"
    made = sweep(path, {"n": range(3), "word": ["a", "b"]}, out=tmp_path/"o", jobs=1)
    assert made.status == "failed" and [m["status"] for m in made.members] == ["done", "done", "failed", "failed", "done", "done"]
    text = told(made)
    assert text.startswith("6 members of small: 4 done, 2 failed.") and "2 x cell 2: ValueError: no 1" in text and "second line" not in text
    log = (made.folder/made.members[2]["log"]).read_text()
    assert "n=1 word=a" in log and "said in a cell" in log and "ValueError: no 1" in log and log in [Path(line.strip()).read_text() for line in text.splitlines() if line.strip().endswith(".log")]
    assert len(list((made.folder/"logs").iterdir())) == 6

    table = made.table()
    assert list(table.columns) == ["n", "word", "half", "inner.low", "inner.deep.x", "result.word", "list", "on", "status", "seconds"]
    assert table.word.tolist() == list("ababab") and table.half.isna().tolist() == [False, False, True, True, False, False] and table["result.word"][5] == "bb" and table.list[4] == [2, 2]
    import pandas as pd, duckdb
    csv, parquet = pd.read_csv(made.folder/"summary.csv"), duckdb.read_parquet(str(made.folder/"summary.parquet")).df()
    for stored in (csv, parquet): assert stored.half.tolist()[4:] == [1, 1] and json.loads(stored.list[4]) == [2, 2] and stored["inner.low"][5] == -2 and stored.status.tolist() == table.status.tolist()
    assert made.at(n=2, word="b").result["half"] == 1.0 and len(made.runs) == 4
    for given, says in ((dict(n=1, word="a"), "did not finish"), (dict(n=2), "2 members"), (dict(n=9), "No members")):
        with pytest.raises(WorkbenchError, match=says): made.at(**given)

    quick.result = lambda n, word: {"half": n / 2}
    mended = sweep(path, {"n": range(3), "word": ["a", "b"]}, out=tmp_path/"o", jobs=1)
    assert mended.folder == made.folder and mended.status == "done" and len(quick.ran) == 8, "what failed is tried again, and nothing else"


def test_input_that_only_the_report_can_judge_is_its_sentence(write_report, quick, tmp_path):
    def result(n):
        if n == 1: raise WorkbenchError("One is not for this report.")
        return {"n2": n}
    quick.result = result; made = sweep(write_report("n: int = 2"), {"n": range(2)}, out=tmp_path/"o", jobs=1)
    assert [(m["status"], m["error"], m["folder"] is None) for m in made.members] == [("done", None, False), ("failed", "One is not for this report.", True)]


def test_ctrl_c_keeps_what_is_there_and_the_next_goes_on(write_report, quick, tmp_path):
    path = write_report("n: int = 2")
    def stop(values):
        if values["n"] == 2 and len(quick.ran) == 3: raise KeyboardInterrupt
    quick.during = stop
    with pytest.raises(KeyboardInterrupt) as e: sweep(path, {"n": range(5)}, out=tmp_path/"o", jobs=1)
    left = open_sweep(str(e.value))
    assert left.status == "interrupted" and str(left) == "5 members of small: 2 done, 3 not run" and "It was interrupted" in left.page.read_text()
    done = sweep(path, {"n": range(5)}, out=tmp_path/"o", jobs=1)
    assert done.folder == left.folder and done.status == "done" and [v["n"] for v in quick.ran] == [0, 1, 2, 2, 3, 4]


def test_a_planted_secret_is_nowhere(write_report, quick, tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("MY_API_KEY", "sk-planted-8c1f"); quick.printed = "the key is sk-planted-8c1f\n"; quick.result = lambda n, text: {"said": text + "sk-planted-8c1f", "n": n}
    path = write_report("n: int = 2\ntext: str = 'a'")
    made = sweep(path, {"n": [1, 2], "text": ["sk-planted-8c1f", "b"]}, out=tmp_path/"o", jobs=1, show=True)
    for file in (tmp_path/"o").rglob("*"): assert file.is_dir() or b"sk-planted" not in file.read_bytes() and "planted" not in file.name
    assert "sk-planted" not in "".join(capfd.readouterr()) + repr(made.record) and "[secret MY_API_KEY]" in (made.folder/made.members[0]["log"]).read_text()


def test_a_sweep_that_is_not_whole_is_said(tmp_path):
    with pytest.raises(WorkbenchError, match="holds no sweep"): open_sweep(tmp_path)
    (tmp_path/"sweep.json").write_text('{"report": "x"')
    with pytest.raises(WorkbenchError, match="not whole"): open_sweep(tmp_path)


# --- results put together ---------------------------------------------------------------------------------------------
def test_data_of_all_members_as_one(write_report, quick, tmp_path, monkeypatch):
    import pandas as pd, xarray as xr
    path = write_report("layer: int = 0\nword: str = 'a'\nseed: int = 3"); quick.result = lambda **_: {}
    made = sweep(path, {"layer": [2, 0, 1], "word": ["x", "a"], "seed": 5}, out=tmp_path/"o", jobs=1)
    held = {}
    def keep(of, name, value): held.setdefault(json.dumps(of), {})[name] = value
    for m in made.members:
        layer, word = m["given"]["layer"], m["given"]["word"]; of = m["given"]
        if (layer, word) != (0, "a"): keep(of, "heads", xr.DataArray(np.full((2, 3), 10. * layer + (word == "a")), dims=("layer", "head"), coords=dict(head=[4, 5, 6], token=("layer", [word, "."])), attrs=dict(metric="m", prompt=word)))
        keep(of, "grown", xr.DataArray(np.zeros(layer + 1), dims="pos")); keep(of, "labelled", xr.DataArray([0.], dims="pos", coords=dict(pos=[layer])))
        keep(of, "rows", pd.DataFrame(dict(word=[word, "y"], p=[layer, .5]))); keep(of, "odd", pd.DataFrame({f"c{layer}": [1]}))
    monkeypatch.setattr(type(made.runs[0]), "data", property(lambda r: held[json.dumps({n: r.params[n] for n in made.grid})]))
    heads = made.data("heads")
    assert heads.dims == ("swept_layer", "word", "layer", "head") and heads.swept_layer.values.tolist() == [2, 0, 1] and heads.word.values.tolist() == ["x", "a"] and heads.attrs == dict(metric="m")
    for layer in (2, 0, 1):
        for word in "xa":
            found = heads.sel(swept_layer=layer, word=word).values
            assert np.isnan(found).all() if (layer, word) == (0, "a") else (found == 10 * layer + (word == "a")).all()
    assert heads["head"].values.tolist() == [4, 5, 6] and heads.token.sel(swept_layer=2, word="a").values.tolist() == ["a", "."]
    rows = made.data("rows")
    assert list(rows.columns) == ["layer", "swept_word", "word", "p"] and rows.swept_word.tolist() == ["x", "x", "a", "a"] * 3 and rows.p.tolist()[:2] == [2, .5] and rows.index.tolist() == list(range(12))
    for name, says in (("grown", r"pos 1 for layer=0 word=x and pos 3 for layer=2 word=x"), ("labelled", "different labels"), ("odd", "other columns for layer=0"), ("none", "there is grown, heads, labelled, odd, rows")):
        with pytest.raises(WorkbenchError, match=says): made.data(name)


def test_one_swept_parameter_gives_one_dimension(write_report, quick, tmp_path, monkeypatch):
    import xarray as xr
    made = sweep(write_report("n: float = 0"), {"n": [.5, .25]}, out=tmp_path/"o", jobs=1)
    monkeypatch.setattr(type(made.runs[0]), "data", property(lambda r: {"v": xr.Dataset(dict(a=("pos", [r.params["n"]] * 2), b=r.params["n"] ** 2))}))
    found = made.data("v")
    assert found.a.dims == ("n", "pos") and found.b.sel(n=.25) == .0625 and found.n.values.tolist() == [.5, .25]


# --- the page ---------------------------------------------------------------------------------------------------------
def heights(page): return page.evaluate("[...document.querySelectorAll('table.wb-members tbody tr')].map(r => r.cells[0].textContent)")


@pytest.mark.browser
def test_the_page_in_a_browser(write_report, quick, tmp_path, browser):
    evil = "</script><img src=x onerror='window.hit = 1'><b>\"'"
    def result(n, word):
        if n == 3: raise ValueError(evil)
        return {"wave": float(np.sin(n)), "label": evil + word, "same": 7, "n2": n * n}
    quick.result = result; path = write_report("n: int = 2\nword: str = 'a'", title="# Small & <i>odd</i>\n\n> A <b>line</b>")
    made = sweep(path, {"n": [10, 9, 0, 3], "word": ["a", evil]}, out=tmp_path/"o", jobs=1)
    for context in (dict(color_scheme="dark"), dict(viewport={"width": 400, "height": 800})):
        page = new_page(browser, offline=True, **context); page.goto(made.page.as_uri()); until(page, "() => document.documentElement.dataset.ready === 'true'")
        assert page.evaluate("window.hit") is None and page.locator(".js-plotly-plot .heatmaplayer").count() == 2 and page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert not page.errors and not page.outside
        if "viewport" in context: page.context.close(); continue
        labels = [f.get_attribute("aria-label") for f in page.locator(".wb-figure").all()]
        assert labels == ["wave against n and word: from -0.544 to 0.4121", "n2 against n and word: from 0 to 100"]
        n2 = page.locator("table.wb-members thead button", has_text="n2"); n2.click(); up = heights(page); n2.click(); down = heights(page)
        assert up == ["4", "5", "2", "3", "0", "1", "6", "7"] and down == ["0", "1", "2", "3", "4", "5", "6", "7"], "numbers as numbers, what failed last"
        links = page.eval_on_selector_all("table.wb-members a, .wb-failed a, footer a", "all => all.map(a => decodeURIComponent(new URL(a.href).pathname))")
        assert len(links) == 8 * 2 + 1 + 3 and all(Path(link).is_file() for link in links)
        page.locator("table.wb-members a", has_text="open").first.click(); assert page.url.endswith("/report.html") and "/small/" in page.url
        page.context.close()


def figures(page_text): return json.loads(page_text.split('id="wb-data">')[1].split("</script>")[0])["figures"]


@pytest.mark.parametrize("grid, kinds", [({"n": [3, 1, 2]}, ["scatter"]), ({"word": ["a", "b"]}, ["bar"]), ({"n": [1, 2], "word": ["a", "b"]}, ["heatmap"]), ({"n": [1, 2], "word": ["a", "b", "c"], "seed": range(8)}, ["heatmap"] * 2), ({"n": [1]}, [])])
def test_the_picture_fits_what_was_swept(write_report, quick, tmp_path, grid, kinds):
    quick.result = lambda n, word, seed: {"v": n + 10 * ord(word) + .1 * seed, "w": "text"}
    made = sweep(write_report("n: int = 2\nword: str = 'a'\nseed: int = 0"), grid, out=tmp_path/"o", jobs=1); found = figures(made.page.read_text())
    assert [f["data"][0]["type"] for f in found] == kinds
    trace = found[0]["data"][0] if found else None
    if kinds == ["scatter"]: assert trace["x"] == [1, 2, 3] and trace["y"] == [971, 972, 973]
    if kinds == ["bar"]: assert trace["y"] == [972, 982] and found[0]["layout"]["xaxis"]["ticktext"] == ["a", "b"]
    if kinds == ["heatmap"]: assert trace["z"] == [[971, 972], [981, 982]]
    if len(kinds) == 2: assert [f["layout"]["title"]["text"] for f in found] == ["v, n 1", "v, n 2"] and len({(f["data"][0]["zmin"], f["data"][0]["zmax"]) for f in found}) == 1


# --- with kernels, in workers -----------------------------------------------------------------------------------------
def test_in_workers_a_member_that_kills_its_worker_costs_itself(write_report, tmp_path):
    work = """if n == 1: raise ValueError("one")
if n == 2:
    import os, signal
    with open(tries, "a") as f: f.write(".")
    os.kill(os.getppid(), signal.SIGKILL)
    import time; time.sleep(60)"""
    path = write_report("n: int = 0  # which\ntries: str = ''  # a file", "print('cell of', n)", work, result="{'n2': n + 5}")
    made = sweep(path, {"n": range(3), "tries": str(tmp_path/"tries")}, out=tmp_path/"o", jobs=2)
    assert [m["status"] for m in made.members] == ["done", "failed", "failed"] and (tmp_path/"tries").read_text() == ".."
    assert [m["error"] and m["error"][:38] for m in made.members] == [None, "cell 4: ValueError: one", "The process that worked on this ended "]
    assert [r.result for r in made.runs] == [{"n2": 5}] and made.page.is_file()
    assert "cell of 0" in (made.folder/made.members[0]["log"]).read_text() and "and so did the one" in (made.folder/made.members[2]["log"]).read_text()
    assert not [p for p in (tmp_path/"o").rglob(".*") if p.is_dir()], "nothing half-written is left"


# --- killed -----------------------------------------------------------------------------------------------------------
def kill(*words): return subprocess.run([sys.executable, str(BENCH/"kills.py"), *words], capture_output=True, text=True, timeout=600, env=os.environ | {"OMP_NUM_THREADS": "1"})


def test_killed_at_every_file_operation_it_goes_on_and_repeats_nothing():
    done = kill("every")
    assert done.returncode == 0 and int(done.stdout.split()[-1]) >= 50, done.stdout + done.stderr
