"""What is defended: values are never code, files never leave their folder, foreign text is text in every page, nothing is unpickled, no network unasked, no secret in what a run leaves. nbs/safety.ipynb says what is not."""
import ast, hashlib, json, os, pickle, random, re, signal, subprocess, sys, time
from pathlib import Path

import nbformat
import numpy as np
import pytest

from conftest import ROOT, WORKBENCH, new_page, notebook
from workbench.lm.errors import WorkbenchError
from workbench.reporting.literals import cell_source, literal
from workbench.reporting.params import read_params, settle
from workbench.reporting.run import ReportFailed, run

os.environ.setdefault("OMP_NUM_THREADS", "1")


# --- nothing is unpickled, and no text is run -------------------------------------------------------------------------------
LOADERS = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "jsonpickle", "hickle"}
RUNNERS = {"eval", "exec", "compile", "__import__", "execfile"}


MAYBE = re.compile(r"pickle|dill|joblib|shelve|marshal|hickle|eval\(|exec|compile\(|__import__|os\.(system|popen)|torch\.load|(np|numpy)\.load|yaml\.|shell|trust_remote_code|reload")   # a file without such a word is not parsed


def name_of(node) -> str: return f"{name_of(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def unsafe(call: ast.Call) -> bool:
    "Whether a call could run what it reads."
    name, given = name_of(call.func), {k.arg: getattr(k.value, "value", None) for k in call.keywords}
    last = name.rsplit(".", 1)[-1]
    if name in RUNNERS or name in ("os.system", "os.popen", "pd.eval", "yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "importlib.reload") or last in ("read_pickle", "to_pickle", "Unpickler"): return True
    if name == "torch.load": return given.get("weights_only") is not True
    if name in ("np.load", "numpy.load"): return given.get("allow_pickle") is not False
    return given.get("allow_pickle") is True or given.get("shell") is True or given.get("trust_remote_code") is True


def offences(source: str) -> list:
    "Lines of Python that import what unpickles, or call what runs text."
    found = []
    for node in ast.walk(ast.parse(source)):
        modules = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        if LOADERS & {m.split(".")[0] for m in modules} or isinstance(node, ast.Call) and unsafe(node): found.append(f"{node.lineno}: {ast.unparse(node)[:90]}")
    return found


@pytest.mark.parametrize("line", ["import pickle", "from joblib import load", "torch.load(p)", "torch.load(p, weights_only=False)", "np.load(p)", "np.load(p, allow_pickle=True)", "yaml.load(t)", "pd.read_pickle(p)", "eval(t)",
                                  "subprocess.run(t, shell=True)", "AutoModel.from_pretrained(n, trust_remote_code=True)"])
def test_the_search_for_unpickling_finds_it(line): assert MAYBE.search(line) and offences(line)


def test_nothing_in_the_package_unpickles_or_runs_text():
    code = {p.relative_to(ROOT): p.read_text("utf-8") for p in [*ROOT.glob("workbench/**/*.py"), *ROOT.glob("reports/*.py")]}
    for p in ROOT.glob("reports/*.ipynb"): code[p.relative_to(ROOT)] = "\n".join("".join(c["source"]) for c in json.loads(p.read_text("utf-8"))["cells"] if c["cell_type"] == "code")
    assert len(code) > 200 and not offences("\n".join(["torch.load(p, weights_only=True)", "np.load(p, allow_pickle=False)", "yaml.safe_load(t)", "model.eval()", "re.compile(t)"]))
    found = {str(p): bad for p, text in code.items() if MAYBE.search(text) and (bad := offences(text))}
    assert all("<result>" in bad for bad in found.pop("workbench/tutorials/report.py")) and found == {}    # one judge runs the cell that its reader wrote, where he wrote it


class Bomb:
    "What writes a file when it is unpickled."
    def __init__(self, at): self.at = str(at)
    def __reduce__(self): return os.mkdir, (self.at,)


@pytest.mark.parametrize("kind", ["pt", "npz", "model"])
def test_a_file_that_holds_code_is_refused_and_not_run(tmp_path, kind):
    import torch
    from workbench.features.formats import _tensors
    from workbench.lm.load import load
    sign, bomb = tmp_path/"it ran", Bomb(tmp_path/"it ran"); file = tmp_path/f"dictionary.{kind}"
    if kind == "pt": torch.save({"W_dec": torch.ones(2, 2), "b": bomb}, file)
    if kind == "npz": np.savez(file, W_dec=np.array([bomb], dtype=object))
    if kind == "model":
        file.mkdir(); (file/"config.json").write_text(json.dumps(dict(architectures=["GPT2LMHeadModel"], model_type="gpt2", n_embd=8, n_layer=1, n_head=1, vocab_size=5, n_positions=4)))
        torch.save({"transformer.wte.weight": bomb}, file/"pytorch_model.bin")
    with pytest.raises(WorkbenchError): load(file) if kind == "model" else _tensors(file)
    assert not sign.exists()
    if kind == "pt": pickle.loads(pickle.dumps(bomb)); assert sign.exists(), "the bomb works where it is not stopped"


# --- parameters are data ----------------------------------------------------------------------------------------------------
PIECES = ["'", '"', '"""', "\\", "\\n", "\n", "\r\n", "\x00", "\x1b[31m", "{", "}", "{{}}", "{x!r}", "%s", "$(id)", "`id`", "#", ";", "\u2028", "\u202e", "שלום", "👑", "é", "e\u0301", "\N{BULLET}", "\\N{BULLET}", "\\u0041", "\\x41", "True", "None", "nan",
          "__import__('os')", "exit()", "%%bash", "!id", "?", "<script>", "import os", "=", "-p", "--", " ", "\t", "\ufeff", "\U0010ffff"]


def anything(r: random.Random, depth=0):
    kind = r.randrange(9 if depth < 4 else 6)
    if kind == 0: return "".join(r.choice(PIECES) for _ in range(r.randrange(6)))
    if kind == 1: return "".join(chr(c) for c in (r.randrange(0x110000) for _ in range(r.randrange(8))) if not 0xd800 <= c < 0xe000)
    if kind == 2: return r.choice([0, -1, 10 ** 30, r.getrandbits(200), -2 ** 63])
    if kind == 3: return r.choice([-0.0, 5e-324, 1.7976931348623157e308, .1, r.uniform(-1e9, 1e9), 1e22])
    if kind == 4: return r.choice([True, False, None])
    if kind == 5: return r.choice(PIECES)
    if kind == 6: return [anything(r, depth + 1) for _ in range(r.randrange(4))]
    if kind == 7: return tuple(anything(r, depth + 1) for _ in range(r.randrange(4)))
    return {"".join(r.choice(PIECES) for _ in range(r.randrange(3))): anything(r, depth + 1) for _ in range(r.randrange(4))}


def exact(value) -> str: return ascii(value)     # tells 1 from 1.0 and True, -0.0 from 0.0, a tuple from a list


def test_a_literal_means_its_value():
    r = random.Random(0); values = [anything(r) for _ in range(3000)] + ["x" * 10 ** 6, "\\" * 10 ** 5, ["'\""] * 10 ** 4]
    assert len({exact(v) for v in values}) > 1000 and all(exact(ast.literal_eval(literal(v))) == exact(v) for v in values)
    cell = ast.parse(cell_source({f"v{i}": v for i, v in enumerate(values)})).body; assert len(cell) == len(values)
    assert all(isinstance(n, ast.Assign) and n.targets[0].id == f"v{i}" and exact(ast.literal_eval(n.value)) == exact(v) for i, (n, v) in enumerate(zip(cell, values)))
    deep = []
    for _ in range(50): deep = [deep]
    assert ast.literal_eval(literal(deep)) == deep


@pytest.mark.parametrize("value, says", [(float("nan"), "finite"), ([float("-inf")], "finite"), ("\ud800", "half of a character"), ({"\udcff": 1}, "half of a character"), ({1: 2}, "keys must be text"), (b"x", "bytes"),
    ({"s": {1}}, "set"), (np.float64(1), "float64"), (Path("x"), "Path"), (10 ** 5000, "digits"), (eval, "builtin"), ([[[]]] * 1 and __import__("functools").reduce(lambda x, _: [x], range(500), 0), "inside each other")], ids=lambda v: str(type(v).__name__))
def test_what_no_notebook_can_hold_is_refused_in_a_sentence(value, says):
    with pytest.raises(WorkbenchError, match=says) as e: literal(value)
    assert "\n" not in str(e.value) and len(str(e.value)) < 300
    with pytest.raises(WorkbenchError): cell_source({"a b": 1})


# --- one hostile run: what arrives, what the page and the gallery show ---------------------------------------------------------
EVIL = ["</script><script>window.hit=1</script>", "<img src=x onerror=window.hit=1>", '"><svg onload=window.hit=1>', "<a href=\"javascript:window.hit=1\">x</a>", "<!--<script>", "]]>", "\u2028", "$x^$ \\frac{", "&lt;b&gt;", "<s>", "'-alert(1)-'",
        "${window.hit=1}", "{{7*7}}", "\u202eRTL", "<base href=http://192.0.2.1/>", "<iframe srcdoc='<script>parent.hit=1</script>'>"]
ALL = " ".join(EVIL)
SHOW = """import html, json, sys
import pandas as pd, plotly.graph_objects as go, xarray as xr
from workbench.lm.results import figure_text, headline, token_labels
print(text); print(text, file=sys.stderr)
display(pd.DataFrame({text: [text]}, index=[text]), xr.DataArray([1.], dims="t", coords={"t": [text]}, attrs={"model": text}))
go.Figure(go.Bar(x=token_labels(words), y=list(range(len(words))), name=figure_text(text)), dict(title=headline(text, text), height=300))"""
CONCLUDE = "from workbench.reporting.result import Result\nResult(seen=[ascii(v) for v in values], text=ascii(text), table=ascii(table), pair=ascii(pair), **{text: text})"
PARAMS = "values: list = []\nwords: list[str] = []\ntext: str = 'a'\ntable: dict = {}\npair: tuple = ()\nfail: bool = False"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("evil")
    def write(name, *cells, params=PARAMS, result=CONCLUDE):
        nbformat.write(notebook("# Odd\n\n> Odd values", (params, "parameters"), *cells, (result, "result")), root/f"{name}.ipynb"); return root/f"{name}.ipynb"
    return write


@pytest.fixture(scope="module")
def odd(written):
    "A run with odd values of every type, and one that fails with an odd text."
    path = written("odd", "## What is shown", "if fail: raise ValueError(text)", SHOW); r = random.Random(1)
    values = [json_value(r) for _ in range(60)] + EVIL; given = dict(values=values, words=EVIL, text=ALL, table={ALL: {"a": [1, 2.5, None, True]}, "'": ALL})
    done = run(path, given, out=path.parent/"_runs")
    with pytest.raises(ReportFailed) as e: run(path, dict(words=EVIL, text=ALL, fail=True), out=path.parent/"_runs")
    return given, done, e.value.run


def test_values_arrive_in_the_notebook_as_they_were_given(odd):
    given, done, _ = odd
    assert done.result["seen"] == [exact(v) for v in given["values"]] and [done.result[k] for k in ("text", "table")] == [exact(given[k]) for k in ("text", "table")]
    for name in ("run.json", "result.json"): json.loads((done.folder/name).read_text("utf-8"), parse_constant=lambda c: pytest.fail(f"{c} is not JSON"))
    assert done.record["given"]["text"] == ALL


def test_a_million_characters_arrive(written):
    path = written("long", params="text: str = ''", result="import hashlib; {'n': len(text), 'sum': hashlib.sha256(text.encode()).hexdigest()}"); text = "'\"\\{👑" * 200_000
    assert run(path, {"text": text}, out=path.parent/"_long").result == dict(n=10 ** 6, sum=hashlib.sha256(text.encode()).hexdigest())


def test_text_of_a_command_line_is_the_same_value():
    params = read_params(notebook((PARAMS, "parameters"))); r = random.Random(2)
    for _ in range(500):
        text, value = anything_text(r), json_value(r); got = settle(params, {"text": text, "values": json.dumps([value]), "table": json.dumps({text: value})}, text=True)
        assert got["text"] == text and exact(got["values"]) == exact([value]) and exact(got["table"]) == exact({text: value}) and exact(ast.literal_eval(literal(got["values"]))) == exact([value])


def anything_text(r): return "".join(r.choice(PIECES) for _ in range(r.randrange(8)))
def json_value(r, depth=0):
    v = anything(r, depth + 2)
    return json.loads(json.dumps(v))     # a tuple is a list there


@pytest.mark.parametrize("ending", [".json", ".yaml"])
def test_a_value_in_a_file_is_the_same_value(tmp_path, ending):
    import yaml
    from workbench.reporting.param_files import given
    params = read_params(notebook((PARAMS, "parameters"))); r = random.Random(3); file = tmp_path/f"p{ending}"; arrived = 0
    for _ in range(120):
        want = dict(text=anything_text(r), values=[json_value(r)], table={anything_text(r): json_value(r)}); file.write_text(json.dumps(want) if ending == ".json" else yaml.safe_dump(want, allow_unicode=r.random() < .5, sort_keys=False), "utf-8")
        try: got = given(params, [file], {}); arrived += 1
        except WorkbenchError as e: assert "\n" not in str(e); continue
        assert exact({k: got[k] for k in want}) == exact(want), file.read_text("utf-8")
    assert arrived > 60


used = pytest.mark.xfail("literals" not in (ROOT/"workbench"/"reporting"/"run.py").read_text("utf-8"), strict=True, reason="the engine hands values to papermill's own translator")


@used
def test_a_tuple_is_data(written, tmp_path):
    bomb = (f'"; __import__("os").mkdir({str(tmp_path/"it ran")!r}) #'.replace("'", '"'), ("b",)); path = written("pair")
    try: done = run(path, dict(pair=bomb), out=path.parent/"_pair")
    except ReportFailed: done = None
    assert not (tmp_path/"it ran").exists() and done.result["pair"] == exact(bomb)


@used
@pytest.mark.parametrize("kind, value", [("text", "\udcff"), ("values", "[NaN]"), ("values", "[1e999]"), ("values", '["\\ud800"]'), ("values", [float("nan")]), ("table", {1: 2}), ("values", [{1, 2}]), ("pair", (b"x",))])
def test_the_engine_refuses_what_it_cannot_hand_over(written, kind, value):
    path = written("refused")
    with pytest.raises(WorkbenchError) as e: run(path, {kind: value}, out=path.parent/"_none", text=isinstance(value, str))
    assert "\n" not in str(e.value) and not (path.parent/"_none").exists()


# --- files stay where they belong -------------------------------------------------------------------------------------------
def below(folder): return {p for p in Path(folder).rglob("*")}


@pytest.mark.parametrize("text", ["../../x", "/etc/passwd", "..", "a/../../b", "\\..\\x", "~", "x" * 5000, "con", ".hidden", "-rf", "a\x00b", "{x}", "{{}}", "👑/..", "%2e%2e%2f"])
def test_a_run_stays_below_its_folder(written, tmp_path, text):
    from workbench.reporting.key import plan
    planned = plan(written("where"), {"text": text, "words": [text]}, out=tmp_path/"_runs")
    assert planned.folder.parent == tmp_path/"_runs"/"where" and planned.folder.resolve() == planned.folder and len(planned.folder.name) < 100 and re.fullmatch(r"[A-Za-z0-9][\w.-]*", planned.folder.name)


def test_names_of_reports_and_files_cannot_climb(tmp_path, written):
    from workbench.reporting.catalogue import find
    from workbench.reporting.key import file_stem
    from workbench.reporting.result import Data, save_data
    import pandas as pd
    for name in ("../reports/tour", "/etc/passwd", "tour.ipynb/..", "..", "", "tour\x00", "no/such.ipynb"):
        with pytest.raises(WorkbenchError): find(name)
    assert all(re.fullmatch(r"[A-Za-z0-9][\w.-]*", file_stem(n)) for n in ("../x", "/", "..", "a/b", "\x00", "👑", " ", ".-", "{x}"))
    for name in ("../x", "/x", "a/b", "", ".", "..", "a\x00", "a b", "x" * 200):
        with pytest.raises(WorkbenchError): save_data(tmp_path/"run", name, pd.DataFrame({"a": [1]}))
    (tmp_path/"secret.parquet").write_bytes(b"x"); (tmp_path/"run"/"data").mkdir(parents=True, exist_ok=True)
    with pytest.raises(Exception) as e: Data(tmp_path/"run", {"a": dict(file="../../secret.parquet", kind="table")})["a"]
    assert "run/data" in str(e.value) and below(tmp_path) == {tmp_path/"secret.parquet", tmp_path/"run", tmp_path/"run"/"data"}, "a record that was edited is read inside its folder only"


def test_a_link_is_not_followed_out(written, tmp_path):
    "Old runs are removed when a new one takes their place: what a link in them points to stays."
    path = written("link", params="n: int = 0", result="{'n': n}"); out = tmp_path/"_runs"; done = run(path, out=out); keep = tmp_path/"keep"; keep.mkdir(); (keep/"it").write_text("x")
    (done.folder/"data").mkdir(exist_ok=True); (done.folder/"data"/"away").symlink_to(keep); (out/"link"/".dead.link").symlink_to(keep)
    run(path, out=out, force=True); assert (keep/"it").read_text() == "x" and len([p for p in (out/"link").iterdir() if not p.name.startswith(".")]) == 1


# --- foreign text is text in every page -------------------------------------------------------------------------------------
SEEN = """() => ({hit: window.hit ?? null, odd: [...document.querySelectorAll('[onerror], [onload], [onclick], img[src="x"], a[href^="javascript" i], iframe, object, embed, base, form, meta[http-equiv=refresh]')].map(e => e.outerHTML.slice(0, 99)),
                scripts: [...document.scripts].filter(s => s.textContent.includes('window.hit=1') && !/json/.test(s.type)).map(s => s.textContent.slice(0, 99))})"""
WORDS = ["</script><script>window.hit=1</script>", "<img src=x onerror=window.hit=1>", "<svg onload=window.hit=1>", "javascript:window.hit=1", "<!--<script>", "]]>", "&lt;b&gt;", "<s>", "{{7*7}}"]


def looked_at(browser, file, ready, *places):
    "Open a page, touch what can be touched; nothing of the hostile text ran or became an element, and all of it can be read."
    page, dialogs = new_page(browser, offline=True), []
    page.on("dialog", lambda d: (dialogs.append(d.message), d.dismiss()))
    page.goto(file.as_uri()); page.wait_for_selector(ready, timeout=60_000)
    page.evaluate("() => { document.querySelectorAll('details').forEach(d => d.open = true); for (const e of document.querySelectorAll('summary, [role=option], canvas, td, li')) for (const t of ['mouseover', 'mousemove', 'focus']) e.dispatchEvent(new MouseEvent(t, {bubbles: true, clientX: 60, clientY: 60})); }")
    page.wait_for_timeout(150); seen, text = page.evaluate(SEEN), page.evaluate("places => places.map(s => [...document.querySelectorAll(s)].map(e => e.textContent).join(' '))", list(places) or ["body"])
    assert seen == dict(hit=None, odd=[], scripts=[]) and not dialogs and page.errors == [] and page.outside == [], (file.name, seen, dialogs, page.errors, page.outside)
    page.context.close(); return [(w, place) for place, t in zip(places or ["body"], text) for w in WORDS if w not in t.replace("·", " ")]


@pytest.fixture(scope="module")
def widgets(tmp_path_factory):
    "Every widget over hostile tokens, names, labels, descriptions and dialogues, as pages of their own."
    import torch; torch.set_num_threads(1)
    from test_dialogue_widget import CLAIM, agents
    from test_explain_chat import OPTIONS, PROMPT, plans
    from test_feature_widget import store_of
    from test_grid_widget import planted
    from test_training_room import trainer
    from test_widgets import given
    from workbench import load
    from workbench.dialogue.explain import Explainer
    from workbench.dialogue.play import Said
    from workbench.dialogue.scenario import open_scenario
    from workbench.tasks import make
    from workbench.widgets.attention_explorer import AttentionExplorer
    from workbench.widgets.dialogue_simulator import DialogueSimulator
    from workbench.widgets.explain_chat import ExplainChat
    from workbench.widgets.feature_browser import FeatureBrowser
    from workbench.widgets.patching_grid import PatchingGrid
    from workbench.widgets.training_room import TrainingRoom
    root, n = tmp_path_factory.mktemp("widgets"), len(EVIL); x = np.tril(np.random.default_rng(0).random((1, 2, n, n))); x /= x.sum(-1, keepdims=True)
    store = store_of(root/"store", load("micro"), make("ioi", n=8)); store.describe(int(store.features()[0]), ALL, ALL, .5)
    room = TrainingRoom(trainer(steps=20), beside=True).wait(60); room.meta = room.meta | {"title": ALL}
    chat = ExplainChat(Explainer(load("opinions-shallow"), OPTIONS, plans(8, 1)), PROMPT, [f"{ALL} Why?"])
    talk = DialogueSimulator(open_scenario(CLAIM), {**agents(), "observer": lambda v: Said(ALL, note=ALL, meaning=dict(argument=0.))}, runs=1, title=ALL); talk.edit(2, text=ALL, meaning=dict(argument=-1.5))
    made = dict(attention=AttentionExplorer.from_patterns(given(x, EVIL, causal=1, model=ALL), title=ALL), patching=PatchingGrid.of(planted(texts=[EVIL] * 2, n=2, length=n, model=ALL)), features=FeatureBrowser(store, title=ALL), training=room, dialogue=talk, explain=chat)
    pages = {k: (w.to_html(root/f"{k}.html", title=ALL), w._fallback()) for k, w in made.items()}; room.close(); return pages


@pytest.mark.browser
@pytest.mark.parametrize("name", ["attention", "patching", "features", "training", "dialogue", "explain"])
def test_hostile_text_in_a_widget_is_text(browser, widgets, tmp_path, name):
    page, still = widgets[name]; lost = looked_at(browser, page, ".wb-host[data-alive] > div")
    assert lost == []
    (tmp_path/"still.html").write_text(f"<!doctype html><meta charset=utf-8><body><p id=there>{still}", "utf-8"); looked_at(browser, tmp_path/"still.html", "#there")    # what a reader without scripts sees


@pytest.mark.browser
def test_hostile_text_in_a_report_is_text(browser, odd):
    _, done, failed = odd
    assert looked_at(browser, done.page, "html[data-ready=true]", ".wb-chip dd", ".wb-result", "pre.wb-text", "table.dataframe", ".wb-stderr", ".xr-wrap", ".wb-figure .gtitle", ".wb-figure .xtick") == []
    assert looked_at(browser, failed.page, "html[data-ready=true]", ".wb-banner", ".wb-error", "footer") == []


# --- the network ------------------------------------------------------------------------------------------------------------
GUARD = """import os, sys
def _seen(event, args):
    if not event.startswith(("socket.", "http.", "urllib.", "ftplib.", "smtplib.")): return
    where = {"socket.connect": 1, "socket.sendto": 1, "socket.sendmsg": 1, "socket.getaddrinfo": 0, "socket.gethostbyname": 0, "socket.gethostbyaddr": 0, "http.client.connect": 1, "urllib.Request": 0}.get(event)
    if where is None: return
    to = args[where][0] if isinstance(args[where], tuple) else args[where]
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg") and not isinstance(args[where], tuple): return          # a socket that is a file
    if str(to) in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "", "None", os.uname().nodename): return
    with open(os.environ["GUARD_LOG"], "a") as f: f.write(f"{event} {to}\\n")
    raise OSError(f"no network: {event} {to}")
sys.addaudithook(_seen)
with open(os.environ["GUARD_LOG"], "a") as f: f.write(f"guard {' '.join(sys.orig_argv)[:300]}\\n")
"""
DOORS = """import workbench as wb
lm = wb.load("micro"); lm.run(["When Mary and John went to the store"])
from workbench.tasks import make
from workbench import zoo
cards = [zoo.card(n)["name"] for n in zoo.names()]; task = make("ioi", n=4)
from workbench.widgets import AttentionExplorer, PatchingGrid
a = AttentionExplorer(lm, task.prompts[0]); g = PatchingGrid(lm, task, sites="resid_pre", preview=False); display(a); pages = [a.to_html(), g.to_html()]
import plotly.graph_objects as go; display(go.Figure(go.Bar(y=[1])))
known = open(__import__("os").environ["GUARD_LOG"]).read().count("socket.") + open(__import__("os").environ["GUARD_LOG"]).read().count("http.")
try: wb.load("nobody/no-such-model")
except Exception as e: asked = str(e)
"""


def test_no_network_is_touched_until_a_hub_name_is_given(written, tmp_path):
    "In a process of its own and in the kernel that it starts, every address but this machine's is refused and noted."
    (tmp_path/"sitecustomize.py").write_text(GUARD); log = tmp_path/"log"; path = written("doors", DOORS, params="n: int = 0", result="{'known': known, 'asked': asked, 'cards': len(cards), 'pages': sum(map(len, pages))}")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_"))} | dict(PYTHONPATH=str(tmp_path), GUARD_LOG=str(log), HF_HOME=str(tmp_path/"hub"), OMP_NUM_THREADS="1")
    words = [["reports"], ["report", str(path), "-o", str(tmp_path/"_runs"), "--quiet"]]
    done = [subprocess.run([*WORKBENCH, *w], capture_output=True, text=True, timeout=400, cwd=tmp_path, env=env) for w in words]
    assert [d.returncode for d in done] == [0, 0], [d.stderr[-600:] for d in done]
    told = log.read_text().splitlines(); result = json.loads(next((tmp_path/"_runs").glob("*/*/result.json")).read_text())
    assert sum(t.startswith("guard") for t in told) >= 3 and any("ipykernel" in t for t in told), told
    assert result["known"] == 0 and result["cards"] > 10 and "could not be fetched" in result["asked"]
    asked = [t for t in told if not t.startswith("guard")]; assert asked and all("huggingface" in t for t in asked), "the guard sees what does ask, and a hub name asks the hub only"


# --- secrets ----------------------------------------------------------------------------------------------------------------
SECRET, LINES = "sk-planted/\"quoted\"&<b>é 9f3a", "-----BEGIN KEY-----\nplantedMIIEvQIBADANBgkq\nplantedhkiG9w0BAQEFAASC\n-----END KEY-----"
LEAK = """import html, json, logging, os, sys
import pandas as pd
s, lines = os.environ["OPENAI_API_KEY"], os.environ["DEPLOY_KEY"]
print(s); print(lines); print(s, file=sys.stderr); logging.warning("key %s", s); print(json.dumps({"key": s}), [s], html.escape(s))
display(pd.DataFrame({s: [s]}), {"key": s}); display({"application/vnd.plotly.v1+json": {"data": [{"type": "bar", "x": [s], "y": [1]}], "layout": {"title": s}}}, raw=True)"""
ENDS = """import time
if how == "fail": raise ValueError(f"the server at {s} said no")
if how == "hang": print("now"); time.sleep(600)"""


def leaks(folder) -> list:
    "Files, and names of files, that hold a planted secret in a form in which it can be read."
    import base64, duckdb, html
    forms = {f.encode() for v in (SECRET, *LINES.split("\n")[1:3]) for f in (v, html.escape(v), html.escape(v, quote=False), json.dumps(v)[1:-1], json.dumps(v, ensure_ascii=False)[1:-1], json.dumps(json.dumps(v))[1:-1], repr(v)[1:-1], base64.b64encode(v.encode()).decode()[:-2])}
    files = [p for p in below(folder) if p.is_file()]; found = [str(p.relative_to(folder)) for p in files if any(f in p.read_bytes() for f in forms) or "planted" in p.name or "planted" in str(p.parent.relative_to(folder))]
    return found + [str(p.name) for p in files if p.suffix == ".parquet" and "planted" in duckdb.sql(f"SELECT * FROM read_parquet('{p}')").df().to_csv()]


@pytest.fixture(scope="module")
def leaky(written):
    return written("leaky", "## Leaks", LEAK, ENDS, params="how: str = ''\nsaid: str = ''", result="from workbench.reporting.result import Result\nResult(said=s, lines=lines)")


def in_process(path, out, *words, **more):
    return subprocess.Popen([*WORKBENCH, "report", str(path), "-o", str(out), *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True, env=os.environ | dict(OPENAI_API_KEY=SECRET, DEPLOY_KEY=LINES) | more)


def test_a_search_for_secrets_finds_them(tmp_path):
    import html
    for i, form in enumerate((SECRET, html.escape(SECRET), json.dumps(SECRET), "plantedMIIEvQIBADANBgkq")): (tmp_path/f"f{i}").write_text(f"x{form}y", "utf-8")
    assert len(leaks(tmp_path)) == 4


@pytest.mark.xfail("splitlines" not in (ROOT/"workbench"/"reporting"/"secrets.py").read_text("utf-8"), strict=True, reason="lines of longer secrets, and a secret in a folder's name")
@pytest.mark.parametrize("how", ["", "fail", "hang"])
def test_no_secret_in_what_a_run_leaves(leaky, tmp_path, how):
    p = in_process(leaky, tmp_path/"_runs", "-p", f"how={how}", "-p", f"said={SECRET}")
    if how == "hang":
        for _ in range(1200):
            if any(t.count("[secret ") + t.count("sk-planted") > 8 for t in (f.read_text("utf-8", "replace") for f in (tmp_path/"_runs").rglob("report.ipynb"))) or p.poll() is not None: break      # the cell before was saved
            time.sleep(.1)
        os.killpg(p.pid, signal.SIGKILL)
    said = "".join(p.communicate(timeout=300)); files = [f for f in below(tmp_path/"_runs") if f.is_file()]
    assert p.returncode == {"": 0, "fail": 1, "hang": -9}[how], said[-800:]
    assert leaks(tmp_path) == [] and SECRET not in said and "planted" not in said
    held = "".join(f.read_text("utf-8", "replace") for f in files if f.suffix in (".ipynb", ".json", ".html")); assert held.count("[secret OPENAI_API_KEY]") > (5 if how == "hang" else 10)
