"""The report engine from the outside: parameters on hard cases, the real command line, what a run leaves behind."""
import json, shlex, signal, subprocess, sys, time
from pathlib import Path
from unittest.mock import patch

import nbformat
import pytest

from workbench.lm.errors import WorkbenchError
from workbench.reporting.catalogue import describe, names
from workbench.reporting.params import Misfit, fit, read_params, settle
from workbench.reporting.key import plan
from workbench.reporting.result import save_data
from workbench.reporting.run import ReportFailed, open_run, run, runs

from conftest import WORKBENCH, notebook


# --- the parameters cell ----------------------------------------------------------------------------------------------
def params(source): return read_params(notebook((source, "parameters")), "small")


HARD = '''
# a comment on a line of its own
from typing import Literal, Optional
import typing, pathlib
model: str = "micro"        # a name  # or a folder
note = "has a # and a = in it"
scale: "Literal['prob', 'logit']" = "prob"
limit: typing.Optional[int] = None
share: float | None = .5
items: list[str] = [
    "a",  # not this one
    "b",
]  # the items
low, high = -1, 2.5
one = two = 3; three = 4    # behind a semicolon
flag = False
area = 2 * 3
folder: pathlib.Path = "data"
shape: tuple[int, ...] = (2, 3)
weights: dict[str, float] = {"a": 1}
anything = None
needed: int
'''


def test_hard_cell():
    found = params(HARD)
    assert list(found) == ["model", "note", "scale", "limit", "share", "items", "low", "high", "one", "two", "three", "flag", "area",
                           "folder", "shape", "weights", "anything", "needed"]
    assert found["model"].help == "a name  # or a folder"
    assert found["note"].default == "has a # and a = in it" and found["note"].help == ""
    assert found["items"].help == "the items" and found["items"].default == ["a", "b"]
    assert (found["low"].default, found["high"].default, found["low"].kind) == (-1, 2.5, int)
    assert found["three"].help == "behind a semicolon" and found["flag"].kind is bool
    assert found["area"].default == "2 * 3" and not found["area"].literal
    assert found["needed"].required


@pytest.mark.parametrize("name, text, value", [
    ("model", " on, [it] sat 1e3 # yes ", " on, [it] sat 1e3 # yes "), ("model", "", ""), ("note", "none", "none"),
    ("scale", "logit", "logit"), ("limit", "none", None), ("limit", "7", 7), ("share", "1", 1.0), ("share", "1e-3", .001),
    ("items", '["on", "no"]', ["on", "no"]), ("flag", "yes", True), ("flag", "OFF", False), ("shape", "[4]", (4,)),
    ("weights", '{"b": 2}', {"b": 2.0}), ("folder", "a b/c", "a b/c"), ("anything", "[1]", [1]), ("anything", "word", "word"),
    ("low", "-12", -12)])
def test_text_is_read_by_type(name, text, value):
    got = settle(params(HARD), {name: text, "needed": "1"}, text=True)[name]
    assert got == value and type(got) is type(value)


@pytest.mark.parametrize("name, text", [
    ("limit", "three"), ("limit", "1.5"), ("limit", "True"), ("share", "nan"), ("share", "inf"), ("scale", "Prob"), ("items", "a,b"), ("items", "[1]"),
    ("flag", "2"), ("flag", ""), ("shape", "[1.5]"), ("weights", '{"a": "x"}'), ("low", "")])
def test_text_that_does_not_fit_is_refused(name, text):
    with pytest.raises(WorkbenchError, match=f"Parameter '{name}' of report small must be"):
        settle(params(HARD), {name: text, "needed": "1"}, "small", text=True)


def test_values_from_python_are_strict():
    for kind, value in ((int, True), (int, "5"), (float, "5"), (str, 5), (bool, 1)):
        with pytest.raises(Misfit): fit(kind, value)
    assert fit(float, 2) == 2.0 and fit(str, Path("a")) == "a"


@pytest.mark.parametrize("source, says", [
    ("a = 2\nb = a + 1", "computed from 'a'"), ("n: int = 'x'", "declared int but its default is 'x'"), ("x: np.ndarray = None", "annotated `np.ndarray`"),
    ("a = (", "not plain Python"), ("%matplotlib inline\na = 1", "not plain Python")])
def test_cells_that_could_lie_are_refused(source, says):
    with pytest.raises(WorkbenchError, match=says): params(source)


def test_exactly_one_cell_is_tagged():
    for cells in ([("a = 1", "parametres")], [("a = 1", "parameters"), ("b = 1", "parameters")]):
        with pytest.raises(WorkbenchError, match="tag exactly one"): read_params(notebook(*cells), "small")


def test_unknown_name_and_missing_value():
    with pytest.raises(WorkbenchError, match="Did you mean 'model'"): settle(params(HARD), {"modle": "x", "needed": 1})
    with pytest.raises(WorkbenchError, match="needs a value for 'needed'"): settle(params(HARD), {})


def test_every_shipped_report_describes_itself():
    assert "tour" in names()
    for name in names():
        report = describe(name)
        assert report.line and report.params and all(p.help for p in report.params.values())


# --- runs -------------------------------------------------------------------------------------------------------------
HOSTILE = """It's "q" </script><script>alert(1)</script> \\ {x} 👑 on"""


def test_a_run_leaves_four_files_and_can_be_read_back(write_report, tmp_path):
    path = write_report("text: str = 'a'  # some text\nn: int = 2  # a number\nseed: int = 3", "half = n / 2", result="{'half': half, 'text': text}")
    done = run(path, {"text": HOSTILE, "n": 5}, out=tmp_path/"out {x}")
    assert done.result == {"half": 2.5, "text": HOSTILE}
    assert {p.name for p in done.folder.iterdir()} == {"report.ipynb", "report.html", "run.json", "result.json"} and json.loads((done.folder/"result.json").read_text()) == done.result
    record = open_run(done.folder).record
    assert record["status"] == "done" and record["given"] == {"text": HOSTILE, "n": 5} and record["seed"] == 3
    assert record["versions"]["torch"] and record["versions"]["plotly"] and record["seconds"] > 0 and record["cpu_seconds"] > 0 and 2 ** 24 < record["peak_memory_bytes"] < 2 ** 31 and record["host"] and record["key"] == done.folder.name[-16:]
    assert [r.folder for r in runs(tmp_path/"out {x}")] == [done.folder]
    assert "<script>alert(1)" not in done.page.read_text("utf-8")


def test_the_same_run_is_made_once(write_report, tmp_path):
    "What decides the outcome decides the key: values, cells, files named; spelling out a default does not."
    path = write_report("n: int = 2\nfrom typing import Annotated\nfile: Annotated[str, 'path'] = ''", "import os", result="{'n': n, 'process': os.getpid()}"); out = tmp_path/"o"
    first, again, spelt = run(path, out=out), run(path, out=out), run(path, {"n": 2}, out=out); assert (first.cached, again.cached) == (False, True) and again.result == first.result
    assert spelt.cached and spelt.folder == first.folder
    forced = run(path, out=out, force=True); assert not forced.cached and forced.folder == first.folder and forced.result["process"] != first.result["process"] and len(runs(out)) == 1
    keys = {plan(path, {"n": 3}, out).key, first.key}; (tmp_path/"a.txt").write_text("a"); keys.add(plan(path, {"file": str(tmp_path/"a.txt")}, out).key); (tmp_path/"a.txt").write_text("b"); keys.add(plan(path, {"file": str(tmp_path/"a.txt")}, out).key)
    edited = json.loads(path.read_text()); edited["cells"][-1]["source"] = "{'n': -n}"; path.write_text(json.dumps(edited)); keys.add(plan(path, {}, out).key); assert len(keys) == 5


def test_models_are_part_of_the_key():
    given = [plan("tour", {"model": m}) for m in ("micro", "micro-llama")]; assert len({p.key for p in given}) == 2 and [p.models[0][:2] for p in given] == [("model", "micro"), ("model", "micro-llama")] and all(p.models[0][2] for p in given)
    before = plan("tour").key
    with patch("workbench.reporting.key.package_hash", lambda: "other"): assert plan("tour").key != before
    with patch("workbench.reporting.key.surroundings", lambda: {"torch": "0"}): assert plan("tour").key != before


@pytest.mark.parametrize("name, value, says", [("model", "micr", "Did you mean 'micro'"), ("model", "./nothing", "not a local folder"), ("file", "/no/such", "no file or folder"), ("model", "x" * 5000, "characters"), ("file", "a\0b", "no file or folder")])
def test_what_is_named_must_be_there(name, value, says):
    declared = params('from typing import Annotated\nmodel: Annotated[str, "model"] = "micro"\nfile: Annotated[str, "path"] = ""')
    with pytest.raises(WorkbenchError, match=says) as e: settle(declared, {name: value}, "small")
    assert len(str(e.value)) < 700 and "\n" not in str(e.value)
    assert settle(declared, {"model": "someone/a-model", "file": ""}) == {"model": "someone/a-model", "file": ""}
    with pytest.raises(WorkbenchError, match="annotated"): params('a: Annotated[str, "modle"] = ""')


def test_tables_and_arrays_come_back(write_report, tmp_path):
    "Written by the kernel beside the notebook, read back as what they were; a name cannot lead out of the folder."
    import pandas as pd, xarray as xr
    made = "import pandas as pd, xarray as xr; t = pd.DataFrame({'a': [1, 2], 'b': ['x', None]}, index=pd.MultiIndex.from_tuples([(0, 'u'), (1, 'v')], names=['i', None])); g = xr.DataArray([[1., float('nan')]], dims=('layer', 'pos'), coords={'token': ('pos', ['</b>', ' b'])}, name='g', attrs={'model': 'micro'})"
    done = run(write_report("n: int = 0", made, "from workbench.reporting.result import Result", result="Result(n=n, t=t, g=g, both=xr.Dataset({'g': g}))"), out=tmp_path/"o"); space = {}; exec(made, space)
    back = open_run(done.folder); assert back["n"] == 0 and set(back.data) == {"t", "g", "both"} and {p.name for p in (done.folder/"data").iterdir()} == {"t.parquet", "g.nc", "both.nc"}
    pd.testing.assert_frame_equal(back["t"].rename_axis(["i", None]), space["t"], check_dtype=False); xr.testing.assert_identical(back["g"], space["g"]); assert back["both"].g.dims == ("layer", "pos") and "</b> b" not in done.page.read_text()
    with pytest.raises(WorkbenchError, match="has no 'x'; it has n, both, g, t"): back["x"]
    with pytest.raises(WorkbenchError, match="letters, digits"): save_data(tmp_path, "../x", space["t"])
    with pytest.raises(WorkbenchError, match="two columns 'a'"): save_data(tmp_path, "x", pd.DataFrame([[1, 2]], columns=["a", "a"]))


def test_its_printed_command_runs_it_again(write_report, cli):
    path = write_report("text: str = 'a'\nitems: list = []", result="{'text': text, 'items': items}")
    first = cli("report", path, "-p", f"text={HOSTILE}", "-p", 'items=[1, "two"]')
    assert first.returncode == 0, first.stderr
    words = shlex.split(open_run(Path(first.stdout.strip()).parent).record["command"])
    again = cli(*words[1:])
    results = [open_run(Path(done.stdout.strip()).parent).result for done in (first, again)]
    assert results[0] == results[1] == {"text": HOSTILE, "items": [1, "two"]}


def left(tmp_path): return sorted(str(p.relative_to(tmp_path)) for p in (tmp_path/"_runs").rglob("*")) if (tmp_path/"_runs").exists() else None


def test_failing_report_keeps_the_partial_notebook(write_report, cli, tmp_path):
    path = write_report("n: int = 0", "print('so far')", "## The hard part", "1 / n", "print('never')")
    done = cli("report", path)
    assert done.returncode == 1 and "Traceback" not in done.stdout
    assert "ZeroDivisionError" in done.stderr and "The hard part" in done.stderr and "1 / n" in done.stderr and done.stdout == ""
    [folder] = (tmp_path/"_runs"/"small").iterdir()
    assert folder.name.endswith("-failed") and open_run(folder).status == "failed"
    nb = nbformat.read(folder/"report.ipynb", 4)
    texts = [o.text for c in nb.cells for o in c.get("outputs", []) if o.output_type == "stream"]
    assert texts == ["so far\n"]
    assert "did not finish" in (folder/"report.html").read_text("utf-8")


@pytest.mark.parametrize("cell, says", [
    ("import sys; sys.exit(0)", "SystemExit"), ("import os; os._exit(0)", "died")])
def test_an_early_end_is_not_a_finished_run(write_report, tmp_path, cell, says):
    with pytest.raises(ReportFailed, match=says) as failed: run(write_report("n: int = 0", cell), out=tmp_path/"o")
    assert failed.value.run.status == "failed" and failed.value.run.folder.name.endswith("-failed")


@pytest.mark.parametrize("result", ["None", "3", "print({'n': 1})", "{'n': object()}"])
def test_without_a_result_a_run_does_not_count(write_report, tmp_path, result):
    with pytest.raises(ReportFailed, match="holds no dict"): run(write_report("n: int = 0", result=result), out=tmp_path/"o")


def test_a_cell_may_not_take_longer_than_the_timeout(write_report, tmp_path):
    with pytest.raises(ReportFailed, match="[Tt]ime"): run(write_report("n: int = 0", "import time; time.sleep(60)"), out=tmp_path/"o", timeout=2)


# --- bad input through the real command line --------------------------------------------------------------------------
BAD = [(["report", "toor"], "Did you mean 'tour'"), (["report", "none.ipynb"], "no notebook at none.ipynb"), (["raport"], "Did you mean 'report'"),
       (["report", "tour", "-p", "modle=micro"], "Did you mean 'model'"), (["report", "tour", "-p", "top_k=three"], "must be int"),
       (["report", "tour", "-p", "top_k=0"], "from 1 to 50"), (["report", "tour", "-p", "top_k"], "NAME=VALUE"), (["report"], "Which report?"), (["check"], "required"), (["report", "tour", "--timeout", "x"], "invalid int"),
       (["report", "tour", "--no-such"], "nrecognized")]


@pytest.mark.parametrize("words, says", BAD, ids=[" ".join(w) for w, _ in BAD])
def test_bad_words_are_one_sentence(cli, tmp_path, words, says):
    done = cli(*words)
    assert done.returncode == 2 and says in done.stderr and done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1 and left(tmp_path) is None


def test_input_that_only_the_notebook_can_judge(write_report, cli, tmp_path):
    path = write_report("n: int = 0", "from workbench.lm.errors import WorkbenchError", "class ModelError(WorkbenchError): pass", "raise ModelError('There is no model micr.')")
    done = cli("report", path, "--quiet")
    assert (done.returncode, done.stderr, done.stdout) == (2, "workbench: There is no model micr.\n", "") and left(tmp_path) is None


@pytest.mark.parametrize("text", ["", "{}", "not json", '{"cells": 3}', "[]"])
def test_a_file_that_is_no_notebook(cli, tmp_path, text):
    (tmp_path/"odd.ipynb").write_text(text)
    done = cli("report", "odd.ipynb")
    assert done.returncode == 2 and len(done.stderr.strip().splitlines()) == 1 and left(tmp_path) is None


def test_a_report_without_tags(cli, tmp_path):
    nbformat.write(notebook("# T", "n = 1"), tmp_path/"bare.ipynb")
    assert "tagged 'result'" in cli("report", "bare.ipynb").stderr and left(tmp_path) is None


def test_a_folder_that_cannot_be_written(write_report, cli, tmp_path):
    (tmp_path/"file").write_text("")
    done = cli("report", write_report("n: int = 0"), "--out", "file")
    assert done.returncode == 2 and "cannot be written" in done.stderr


def test_interrupt_leaves_no_finished_run(write_report, tmp_path):
    path = write_report("n: int = 0", "print('so far')", "open('started', 'w').close(); import time; time.sleep(120)")
    process = subprocess.Popen([*WORKBENCH, "report", str(path)], cwd=tmp_path, stderr=subprocess.PIPE, text=True,
                               preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler))   # a test run in the background has inherited "ignore"
    deadline = time.monotonic() + 120
    while not (tmp_path/"started").exists() and time.monotonic() < deadline: time.sleep(.1)
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in messages
    assert [r.status for r in runs(tmp_path/"_runs")] == ["interrupted"]
    [folder] = (tmp_path/"_runs"/"small").iterdir()
    assert folder.name.endswith("-interrupted")


def test_a_killed_run_is_not_a_run(write_report, tmp_path):
    path = write_report("n: int = 0", "open('started', 'w').close(); import time; time.sleep(120)")
    process = subprocess.Popen([*WORKBENCH, "report", str(path)], cwd=tmp_path, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (tmp_path/"started").exists() and time.monotonic() < deadline: time.sleep(.1)
    process.kill(); process.wait()
    [left] = (tmp_path/"_runs"/"small").iterdir(); assert runs(tmp_path/"_runs") == [] and left.name.startswith(".")
    done = run(write_report("n: int = 0"), out=tmp_path/"_runs"); assert [p for p in (tmp_path/"_runs"/"small").iterdir()] == [done.folder]      # what was left is gone


def test_a_success_takes_the_place_of_a_failure(write_report, tmp_path):
    path = write_report("n: int = 0", f"if not __import__('os').path.exists({str(tmp_path/'fine')!r}): raise ValueError('not yet')"); out = tmp_path/"o"
    for _ in (0, 1):
        with pytest.raises(ReportFailed): run(path, out=out)
    assert [r.status for r in runs(out)] == ["failed"]; (tmp_path/"fine").write_text(""); done = run(path, out=out)
    assert not done.cached and [r.folder for r in runs(out)] == [done.folder] and len(list(done.folder.parent.iterdir())) == 1


TOUR = [("model=micr", "Did you mean 'micro'"), ("prompt=", "empty"), ("answer=Mary and", "2 tokens")]


@pytest.mark.parametrize("given, says", TOUR, ids=[g[:20] for g, _ in TOUR])
def test_the_tour_refuses_in_one_sentence(cli, tmp_path, given, says):
    done = cli("report", "tour", "-p", given, "--quiet", HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path/"hub"))
    assert done.returncode == 2 and says in done.stderr and done.stdout == "" and left(tmp_path) is None
    assert len(done.stderr.strip().splitlines()) == 1 and done.stderr.startswith("workbench: ")


# --- words that only read ---------------------------------------------------------------------------------------------
def test_help_of_a_report_shows_its_parameters(cli):
    done = cli("report", "tour", "--help")
    assert done.returncode == 0 and all(name in done.stdout for name in describe("tour").params)
    assert cli("reports").stdout == cli("report", "--list").stdout and "tour" in cli("reports").stdout


def test_the_command_line_starts_without_torch():
    code = "import sys, workbench.reporting.cli as c; c.main(['report', 'tour', '--help']); sys.exit(bool({'torch', 'transformers', 'papermill'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0
