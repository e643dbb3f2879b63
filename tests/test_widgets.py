"""The base of widgets and the attention explorer without a browser: what is computed, set, refused, saved and drawn."""
import json, re, subprocess, sys

import nbformat
import numpy as np
import pytest
import traitlets

from conftest import notebook
from workbench import load
from workbench.attention.patterns import patterns
from workbench.lm.edits import scale
from workbench.lm.errors import WorkbenchError
from workbench.lm.sites import Site
from workbench.lm.specimens import build
from workbench.widgets import AttentionExplorer, Selection, WidgetError
from workbench.widgets.packing import unpack

PROMPT = "When Mary and John went to the store, John gave a drink to"
HOSTILE = ["<script>window.hit=1</script>", "</script>", "\"'&", "👑", "שלום", "$x^2$", "\n"]


@pytest.fixture(scope="module")
def micro(): return load("micro")


@pytest.fixture
def explorer(micro): return AttentionExplorer(micro, PROMPT, layer=2, head=3)


def given(values, tokens=None, **attrs):
    import xarray as xr
    n = values.shape[-1]; tokens = tokens or [f"t{i}" for i in range(n)]
    return xr.DataArray(values, dims=("layer", "head", "query", "key"), coords=dict(query_token=("query", tokens), key_token=("key", tokens)), attrs=dict(weighting="pattern", **attrs))


# --- what is shown is what the methods computed -----------------------------------------------------------------------
@pytest.mark.parametrize("weighting", ["pattern", "value", "output", "dla"])
def test_layers_are_the_methods_own(micro, weighting):
    words = dict(answer=" Mary", foil=" John") if weighting == "dla" else {}
    w = AttentionExplorer(micro, PROMPT, answer=" Mary", foil=" John", weighting=weighting)
    want = patterns(micro, PROMPT, weighting, **words).isel(prompt=0)
    for layer in range(micro.n_layers):
        x = want.sel(layer=layer).values; top = np.abs(x).max((1, 2), keepdims=True)
        back = unpack(w.chunk(("self", "A", weighting, layer)))
        assert (np.abs(back - x) <= np.sqrt(np.abs(x) * top) / 120 + top / 6e4 + 1e-7).all()


@pytest.mark.parametrize("name", ["llama", "gpt_neox", "bert", "t5", "bart"])
def test_every_kind_of_attention(name):
    made = build(name); lm = load(*made) if isinstance(made, tuple) else load(made)
    prompt = [list(range(5, 14))]
    w = AttentionExplorer(lm, prompt[0], **(dict(targets=[6, 7, 8]) if lm.kind == "seq2seq" else {}))
    for stack, s in w.data.stacks.items():
        x = patterns(lm, prompt, targets=[[6, 7, 8]] if lm.kind == "seq2seq" else None, **s.where).isel(prompt=0)
        assert s.heads == x.sizes["head"] and np.abs(unpack(w.chunk((stack, "A", "pattern", s.layers - 1))) - x.isel(layer=-1).values).max() < .005
        assert [t[0] for t in w.data.tokens[stack]["key"]] == list(x.key_token.values) and w.data.tokens[stack]["query"] is not None
    assert w.to_png()[:4] == b"\x89PNG" and len(w.to_frame())


def test_difference_is_computed_before_it_is_packed(micro):
    "Two runs that differ by a hair: codes of each side would be equal, the difference must not be 0."
    w = AttentionExplorer(micro, PROMPT, edits=[dict(layer=0, head=0, factor=.999)])
    a, b = (patterns(micro, PROMPT, edits=e).isel(prompt=0).values for e in ((), [scale(Site("z", layer=0, head=0), .999)]))
    shown = np.stack([unpack(w.chunk(("self", "difference", "pattern", l))) for l in range(4)])
    assert 0 < np.abs(a - b).max() < .004 and np.abs(shown - (a - b)).max() < .02 * np.abs(a - b).max()


def test_edits_change_the_output_as_run_does(micro):
    w = AttentionExplorer(micro, PROMPT, edits=[dict(layer=2, head=h, factor=0) for h in range(8)])
    p = micro.run(PROMPT).last_logits[0].softmax(-1); q = micro.run(PROMPT, edits=[scale(Site("z", layer=2), 0)]).last_logits[0].softmax(-1)
    for token, before, after in w.outputs["rows"]:
        i = micro.answer_id(token)
        assert before == pytest.approx(float(p[i]), abs=1e-5) and after == pytest.approx(float(q[i]), abs=1e-5)
    assert w.outputs["kl"] == pytest.approx(float((p * (p.log() - q.log())).sum()), rel=1e-3)
    version = w.version; w.edits = []
    assert w.data.b is None and w.version > version and [x[0] for x in w.meta["which"]] == ["A"] and w.outputs["kl"] == 0


def test_entry_edits_reach_one_cell(micro):
    w = AttentionExplorer(micro, PROMPT, edits=[dict(layer=3, head=1, query=14, key=2, factor=0)])
    d = unpack(w.chunk(("self", "difference", "pattern", 3)))
    assert d[1, 14, 2] > 0 and np.count_nonzero(d) == 1


def test_models_of_one_shape_compare_and_others_are_refused(micro):
    other = load("micro-noln") if "micro-noln" in __import__("workbench").zoo.names() else micro
    w = AttentionExplorer(micro, PROMPT, against=other, which="difference"); assert w.chunk(("self", "difference", "pattern", 0)).meta["signed"]
    with pytest.raises(WidgetError, match="one shape"): AttentionExplorer(micro, PROMPT, against=load("induction"))


def test_a_generated_continuation_is_marked(micro):
    w = AttentionExplorer(micro, "Monday Tuesday Wednesday", generate=4)
    kinds = [k for _, k in w.data.tokens["self"]["query"]]
    assert w.meta["generated"] == len(kinds) - 4 and kinds[-4:] == [2] * 4 and kinds[0] == 1 and 2 not in kinds[:-4]
    prefix = AttentionExplorer(micro, "Monday Tuesday Wednesday")       # under a causal mask the steps before are the prefix's own
    n = len(kinds) - 4
    assert np.abs(unpack(w.chunk(("self", "A", "pattern", 2)))[:, :n, :n] - unpack(prefix.chunk(("self", "A", "pattern", 2)))).max() < .005


def test_rollout_and_aggregates(micro):
    from workbench.attention.rollout import rollout
    x = patterns(micro, PROMPT); w = AttentionExplorer(micro, PROMPT, combine="rollout", layer=3)
    assert np.allclose(w.shown().values, rollout(x).isel(prompt=0, layer=3).values, atol=1e-6)
    w = AttentionExplorer(micro, PROMPT, heads=[[0, 1], [3, 2]], combine="product")
    one = x.isel(prompt=0).values
    assert np.allclose(w.shown().values, one[0, 1] * one[3, 2], atol=1e-6)
    w.combine, w.hide_sink = "one", True
    assert "0" not in w.shown().coords["key"].values.astype(str) and np.allclose(w.shown().sum("key").values[1:], 1, atol=1e-5)


def test_missing_values_are_missing(): 
    x = np.tril(np.full((1, 1, 4, 4), .25)); x[0, 0, 2, 1] = np.nan
    w = AttentionExplorer.from_patterns(given(x, causal=1))
    assert np.isnan(unpack(w.chunk(("self", "A", "pattern", 0)))[0, 2, 1]) and w.picture() is not None


# --- selection and state ----------------------------------------------------------------------------------------------
def test_selection_is_two_way_and_observed(explorer):
    seen = []; explorer.observe(lambda c: seen.append(c["new"]), "selection")
    explorer.locked = [3]; explorer.selection = {"layer": 1, "head": 4}
    assert explorer.heads == [[1, 4]] and seen[-1] == {"layer": 1, "head": 4, "heads": [[1, 4]], "locked": [3], "side": "query"}
    assert set(explorer.to_frame()["query"]) == {3} and explorer.to_frame()["value"].iloc[0] == explorer.to_frame()["value"].max()


def test_state_survives_json(explorer, micro):
    explorer.locked, explorer.top_p, explorer.combine, explorer.edits = [5, 2], .5, "max", [dict(layer=0, head=1, factor=2.0)]
    kept = json.loads(json.dumps(explorer.state())); other = AttentionExplorer(micro, PROMPT).restore(kept)
    assert other.state() == explorer.state() and other.data.b is not None


def test_linked_explorers_move_together(micro):
    a, b, shared = AttentionExplorer(micro, PROMPT), AttentionExplorer(micro, "Mary gave a drink to John"), Selection()
    shared.join(a, b); a.selection = {"layer": 3, "head": 5}
    assert (b.layer, b.head, shared.layer) == (3, 5, 3)
    small = AttentionExplorer(load("induction"), "Mary gave", shared=Selection().join(a))     # two layers: what it cannot show it leaves alone
    assert small.layer == 0 and a.layer == 3
    a.selection = {"layer": 3, "head": 2}; assert (a.layer, a.head) == (3, 2) and (small.layer, small.head) == (0, 0)
    a.heads = [[0, 1], [3, 1]]; assert a.heads == [[0, 1], [3, 1]] == b.heads
    b.locked = [2]; assert a.locked == [2]


@pytest.mark.parametrize("name, value, words", [("layer", 4, "4 layers"), ("head", -1, "8 heads"), ("heads", [], "at least one"), ("heads", [[0, 9]], "8 heads"), ("locked", [15], "15 tokens"), ("which", "B", "nothing to compare"),
    ("weighting", "dla", "answer="), ("weighting", "vlaue", "pattern, value"), ("stack", "cross", "self"), ("edits", [dict(layer=0, head=0)], "factor"), ("edits", [dict(layer=9, head=0, factor=0)], "4 layers"), ("edits", [dict(layer=0, head=0, factor=0, key=1, hed=2)], "hed")])
def test_what_does_not_exist_is_refused(explorer, name, value, words):
    before = explorer.state()
    with pytest.raises((WidgetError, traitlets.TraitError), match=re.escape(words)): setattr(explorer, name, value)
    assert explorer.state() == before


def test_bad_beginnings(micro):
    for make, words in ((lambda: AttentionExplorer(micro, [PROMPT, PROMPT]), "one text at a time"), (lambda: AttentionExplorer(micro, PROMPT, laier=2), "laier"), (lambda: AttentionExplorer(load("micro-bert"), "The capital of France is [MASK]", answer="Paris"), "post-norm"), (lambda: AttentionExplorer(micro, PROMPT, against=PROMPT, edits=[dict(layer=0, head=0, factor=0)]), "cannot be changed"),
                        (lambda: AttentionExplorer.from_patterns(given(np.ones((1, 1, 2, 2))).rename(query="q")), "dims")):
        with pytest.raises(WorkbenchError, match=words): make()


def test_requests_of_a_page(explorer):
    sent = []; explorer.send = lambda content, buffers=None: sent.append((content, buffers))
    explorer._asked(explorer, {"kind": "chunk", "key": ["self", "A", "pattern", 1], "version": explorer.version}, [])
    explorer._asked(explorer, {"kind": "chunk", "key": ["self", "A", "pattern", 1], "version": explorer.version - 1}, [])      # asked before a change: no answer
    explorer._asked(explorer, {"kind": "chunk", "key": ["self", "B", "pattern", 1], "version": explorer.version}, [])
    explorer._asked(explorer, {"kind": "exact", "key": ["self", "A", "pattern", 1], "head": 2, "query": 5, "source": 3, "at": "x", "version": explorer.version}, [])
    for stale in (dict(version=-1), dict(query=99), dict(key=["self", "difference", "pattern", 1])): explorer._asked(explorer, {"kind": "exact", "key": ["self", "A", "pattern", 1], "head": 2, "query": 5, "source": 3, "at": "x", "version": explorer.version} | stale, [])
    assert len(sent) == 3 and len(sent[0][1][0]) == 2 * 8 * 15 * 16 // 2 and "nothing to compare" in sent[1][0]["missing"]
    assert sent[2][0]["value"] == float(explorer.data.values("self", "A", "pattern", 1)[2, 5, 3])


def test_kept_tokens_survive_what_is_hidden(micro):
    w = AttentionExplorer(micro, PROMPT, layer=2, head=0, side="key", locked=[2]); before = w.to_frame()
    w.hide_sink = True
    assert set(before.key) == set(w.to_frame().key) == {2} and AttentionExplorer(micro, PROMPT, locked=[14], hide_sink=True).to_png()
    w.locked = [0]; assert len(w.to_frame()) == 0                     # the hidden token has no entries


def test_locks_and_choices_follow_the_side(micro):
    w = AttentionExplorer(micro, PROMPT, against="Mary gave", locked=[14, 1]); w.which = "B"
    assert w.locked == [1] and len(w.to_frame()) and AttentionExplorer(micro, PROMPT, against="Mary gave").restore(w.state()).state() == w.state()
    made = build("t5"); t5 = load(*made) if isinstance(made, tuple) else load(made)
    w = AttentionExplorer(t5, list(range(5, 17)), targets=[6, 7, 8], side="key", locked=[11]); w.side = "query"; assert w.locked == []
    w.stack, w.combine = "encoder", "rollout"; w.stack = "cross"; assert w.combine == "one" and w.to_html()
    assert [t for t, _ in AttentionExplorer(t5, list(range(5, 17)), generate=3).data.tokens["decoder"]["query"]][1:] == [f"#{i}" for i in t5.generate([list(range(5, 17))], max_new_tokens=3).ids[0]]


def test_a_state_is_restored_whole_or_not_at_all(micro):
    w = AttentionExplorer(micro, PROMPT, edits=[dict(layer=0, head=1, factor=0)], which="difference", heads=[[0, 1], [2, 3]], locked=[3])
    other = AttentionExplorer(micro, PROMPT).restore(w.state()); assert other.state() == w.state() and other.which == "difference"
    before = other.state()
    with pytest.raises(WidgetError): other.restore({"layer": 1, "head": 2, "locked": [50]})
    assert other.state() == before
    with pytest.raises(WidgetError): other.locked = [99]
    other.set_state({"locked": [99]}); assert other.locked == [3]     # from the page: refused, and the page is told what holds


def test_arrays_are_labelled_as_they_are(micro):
    part = patterns(micro, PROMPT, layers=[2, 3]); w = AttentionExplorer.from_patterns(part, layer=1)
    assert "L3.H0" in repr(w) and w.meta["stacks"][0]["layer_labels"] == [2, 3]
    import xarray as xr
    bare = xr.DataArray(np.random.default_rng(0).normal(size=(1, 2, 3, 5)).astype("float16"), dims=("layer", "head", "query", "key"))
    assert AttentionExplorer.from_patterns(bare).to_html() and AttentionExplorer.from_patterns(bare).meta["weightings"][0][2]
    for make, words in ((lambda: AttentionExplorer.from_patterns(np.ones((1, 1, 2, 2))), "DataArray"), (lambda: AttentionExplorer.from_patterns(part, combine="rollout"), "rollout"), (lambda: AttentionExplorer(micro, PROMPT, edits=[dict(layer=0, head=0, factor=0, query=99)]), "15 tokens")):
        with pytest.raises(WidgetError, match=words): make()


def test_any_edit_is_shown_beside_the_original(micro):
    "A digit moved in the state of the successor model; a channel of micro that repairs a weak place of its lists."
    from workbench.attention.successor import digit_features, ordinals, places, start_states
    from workbench.lm.edits import add
    lm = load("successor"); s = next(s for s in ordinals(lm) if s.name == "number"); f = digit_features(start_states(lm, s.ids, 1), places(s.words), 10)
    w = AttentionExplorer(lm, "24 , next"); pos = w.tokens().index("24")
    w.change(add(Site("resid_post", layer=0, pos=pos), f[7] - f[4])); top = lambda i: max(w.outputs["rows"], key=lambda r: r[i])[0]
    assert (top(1), top(2)) == ("25", "28") and w.which == "A" and w.meta["changes"] and "B" in dict(w.meta["which"])
    w.change(); assert w.data.b is None and w.meta["changes"] == []


def test_a_repaired_channel_beside_the_original(micro):
    "The weak fifth place of micro's lists: what an early head says along one learnt direction, shifted, names the right word ten points more often."
    from workbench.attention import channel, edit_channel, learn_shift
    from workbench.tasks import make
    train = make("laundry", n=150, split="train", position="fifth").for_model(micro); test = make("laundry", n=100, position="fifth").for_model(micro)
    shift = learn_shift(micro, train.prompts, train.answer_ids, 0, 5, steps=30, lr=.15)
    edit = edit_channel(micro, channel(micro, 0, 5, direction=shift), "shift", float(shift.norm()), pos=-1)
    tables = [AttentionExplorer(micro, p, changes=edit).outputs["rows"] for p in test.prompts]
    right = [sum(max(rows, key=lambda r: r[side])[0] == micro.tokenizer.convert_ids_to_tokens(i) for rows, i in zip(tables, test.answer_ids.tolist())) for side in (1, 2)]
    assert right[1] >= right[0] + 10, right


def test_a_closed_explorer_leaves_its_selection(micro):
    shared = Selection(); a, b = AttentionExplorer(micro, PROMPT, shared=shared), AttentionExplorer(micro, PROMPT, shared=shared)
    b.close(); a.layer = 2; assert b.layer == 0 and shared.widgets == [a]


# --- pages, pictures, sizes -------------------------------------------------------------------------------------------
def test_a_page_is_alone_and_hostile_text_is_data(micro):
    x = np.tril(np.random.default_rng(0).dirichlet(np.ones(7), (1, 2, 7)))
    page = AttentionExplorer.from_patterns(given(x, HOSTILE, causal=1), title="<img src=x onerror=hit()>").to_html()
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page) and "<img src=x" not in page and "<script>window" not in page
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", page, re.S)
    data = json.loads(scripts[0]); assert len(scripts) == 2 and [t[0] for t in data["state"]["meta"]["stacks"][0]["tokens"]["A"]["query"]] == HOSTILE


def soft(heads, n):
    rng = np.random.default_rng(0); s = np.exp(np.where(np.tri(n, dtype=bool), rng.normal(0, 2, (heads, n, n)), -np.inf))
    return given((s / s.sum(-1, keepdims=True))[None].astype("float32"), causal=1)


@pytest.mark.parametrize("n, limit", [(64, 150_000), (256, 600_000), (1024, 9_000_000)])
def test_twelve_heads_fit(n, limit): assert len(AttentionExplorer.from_patterns(soft(12, n)).to_html()) <= limit


def test_a_still_is_small(micro, monkeypatch):
    "What a live widget leaves in the file for readers without a kernel."
    monkeypatch.setenv("WORKBENCH_WIDGETS", "live")
    data = AttentionExplorer(micro, PROMPT)._repr_mimebundle_()[0]
    assert "application/vnd.jupyter.widget-view+json" in data and len(data["text/html"]) < 64_000
    assert all(part in data["text/html"] for part in ("<table>", "<img", "<details>")) and "<script" not in data["text/html"]


def test_pictures(explorer, tmp_path):
    assert explorer.to_png(tmp_path/"a"/"x.png").read_bytes()[:4] == b"\x89PNG" and "<svg" in explorer.to_svg() and explorer.to_html(tmp_path/"x.html").exists()
    assert not list(tmp_path.rglob("*.part")) and explorer.to_png(dark=True) != explorer.to_png()


def test_an_executed_notebook_holds_html_only(tmp_path):
    "nbclient and papermill: no widget state, no view that nobody can show, and the page inside."
    code = f"import workbench as wb\nfrom workbench.widgets import AttentionExplorer\nAttentionExplorer(wb.load('micro'), {PROMPT!r})"
    nbformat.write(notebook("# t", code), tmp_path/"in.ipynb")
    subprocess.run([sys.executable, "-m", "papermill", "-k", "python3", "in.ipynb", "out.ipynb", "--no-progress-bar"], cwd=tmp_path, check=True, capture_output=True, timeout=200)
    nb = nbformat.read(tmp_path/"out.ipynb", 4); data = nb.cells[-1].outputs[0].data
    assert set(data) == {"text/plain", "text/html"} and not nb.metadata.get("widgets", {}).get("application/vnd.jupyter.widget-state+json", {}).get("state")


def test_nbconvert_of_a_saved_live_notebook_shows_the_still(micro, monkeypatch):
    from nbconvert import HTMLExporter
    monkeypatch.setenv("WORKBENCH_WIDGETS", "live")
    nb = notebook("# t", "w"); data = AttentionExplorer(micro, PROMPT)._repr_mimebundle_()[0]
    nb.cells[1].outputs = [nbformat.v4.new_output("execute_result", data, execution_count=1)]
    page, _ = HTMLExporter().from_notebook_node(nb)
    assert 'class="wb-snapshot"' in page
