"""The patching grid without a browser: what is shown is what the engine computed, what is refused, what a copied line gives, filling and stopping, pages and pictures."""
import json, os, re, subprocess, time

import numpy as np
import pytest
import torch
import xarray as xr

from conftest import ROOT
from test_front_end import node
from workbench import load
from workbench.lm.edits import apply, patch as write
from workbench.lm.errors import WorkbenchError
from workbench.lm.sites import Site
from workbench.lm.specimens import build
from workbench.patching.pairs import Pairs
from workbench.patching.patch import base_of, patch, summary
from workbench.tasks import make
from workbench.widgets import AttentionExplorer, PatchingGrid, Selection, WidgetError
from workbench.widgets.base import css, esm, files_of, static
from workbench.widgets.packing import unpack
from workbench.widgets.patching_data import COMPUTED, KNOWN, NOWHERE, PENDING, PREVIEW, UNDEFINED
from workbench.widgets.patching_picture import scale_end

CLEAN, TWIN = "When Mary and John went to the store, John gave a drink to", "When Mary and John went to the store, Mary gave a drink to"


@pytest.fixture(scope="module")
def micro(): return load("micro")
@pytest.fixture(scope="module")
def task(micro): return make("ioi", n=6)
@pytest.fixture(scope="module")
def done(micro, task): return PatchingGrid(micro, task)
@pytest.fixture(scope="module")
def heads(micro): return PatchingGrid(micro, CLEAN, TWIN, " Mary", " John", by=("layer", "head"), preview=False)


def planted(n=5, layers=4, length=6, sites=("resid_pre", "attn_out", "mlp_out"), seed=0, texts=None, **attrs):
    "A result of known numbers: zero before position 2, one cell of 1."
    rng = np.random.default_rng(seed); x = rng.normal(0, .05, (len(sites), n, layers, length)); x[..., :2] = 0; x[0, :, 2, 3] = 1
    clean, corrupt = np.full(n, 3.), np.full(n, -2.); token = texts or [[f" w{j}" for j in range(length)]] * n; twin = [[t if j < 2 else f" v{j}" if j == 2 else t for j, t in enumerate(row)] for row in token]
    return xr.Dataset(dict(logit_difference=(("site", "prompt", "layer", "pos"), corrupt[:, None, None] + 5 * x), recovery=(("site", "prompt", "layer", "pos"), x)),
                      dict(site=list(sites), layer=range(layers), pos=range(length), prompt=range(n), token=(("prompt", "pos"), token), corrupt_token=(("prompt", "pos"), twin), clean_logit_difference=("prompt", clean), corrupt_logit_difference=("prompt", corrupt)),
                      dict(direction="denoising: clean -> corrupted run", ablation="patch", metric="logit_difference", model="planted", exactness="growing batch", n=n, complete=1) | attrs)


# --- what is shown is what the engine computed ---------------------------------------------------------------------------
def test_maps_are_the_engines_own(micro, task, done):
    want = patch(micro, task.for_model(micro), ("resid_pre", "attn_out", "mlp_out")); told = summary(want)
    assert np.allclose(done.result.recovery, want.recovery, atol=1e-4, equal_nan=True)
    mean, low, high = (done.data.map("A", "recovery", w) for w in ("change", "low", "high"))
    assert np.allclose(mean, told["mean"].transpose("site", "layer", "pos"), atol=1e-4) and np.allclose(unpack(done.chunk(("A", "recovery", "change", "all"))), mean, atol=2e-3)
    assert np.nanmax(np.abs(low - told.low.transpose("site", "layer", "pos"))) < .05 and np.nanmax(np.abs(high - told.high.transpose("site", "layer", "pos"))) < .05
    raw = done.data.map("A", "logit_difference", "change")
    assert np.allclose(raw, (want.logit_difference - base_of(want, "logit_difference")).mean("prompt"), atol=1e-3)
    assert np.allclose(done.data.prompts("A", "recovery").reshape(6, 3, 4, -1), want.recovery.transpose("prompt", "site", "layer", "pos"), atol=1e-4, equal_nan=True)


def test_noising_and_ablations_show_the_change(micro, task):
    w = PatchingGrid(micro, task, sites="resid_pre", direction="noising", preview=False); base = w.meta["metrics"][0]
    assert base["base"] == 1 and base["clean"] == 1 and "noising: clean → corrupted" in w.meta["title"] and np.allclose(w.data.map("A", "recovery", "change"), w.data.map("A", "recovery", "value") - 1)
    z = PatchingGrid(micro, task, by=("layer", "head"), ablation="zero"); assert "noising: clean → zero" in z.meta["title"] and "zero" in z.meta["explain"] and z.data.a.shape == (1, 4, 8)
    assert not (z.data.map("A", z.metric, "state") == KNOWN).any()


def test_empty_cells_say_why():
    half = planted(); half = half.assign({m: half[m].where(half.layer % 2 == 0) for m in half.data_vars}); half.attrs["complete"] = 0
    half.recovery[:, :, 2, 4] = np.nan; half.token[:, 5] = half.corrupt_token[:, 5] = ""; half.recovery[..., 5] = half.logit_difference[..., 5] = np.nan
    s = PatchingGrid.of(half).data.map("A", "recovery", "state")[0]
    assert (s[0, :2] == KNOWN).all() and s[1, 3] == PENDING and s[2, 4] == UNDEFINED and (s[:, 5] == NOWHERE).all() and s[2, 3] == COMPUTED
    early = PatchingGrid.of(half, preview=planted()).data; assert early.map("A", "recovery", "state")[0, 1, 3] == PREVIEW and early.map("A", "recovery", "change")[0, 1, 3] == pytest.approx(planted().recovery[0, :, 1, 3].mean())
    nopair = planted(exactness="full passes: x is masked, and earlier positions see later ones"); assert not (PatchingGrid.of(nopair).data.map("A", "recovery", "state") == KNOWN).any()


def test_zero_by_construction_is_zero(done):
    x, s = (done.data.map("A", "recovery", w) for w in ("change", "state"))
    assert (s == KNOWN).sum() >= 3 * 4 * 8 and np.abs(x[s == KNOWN]).max() == 0


def test_a_and_b_and_their_difference():
    a, b = planted(), planted(seed=1); w = PatchingGrid.of(a, b, which="difference"); d = (a.recovery - b.recovery).mean("prompt").values
    assert np.allclose(w.data.map("difference", "recovery", "change"), d) and w.data.paired
    low, high = (w.data.map("difference", "recovery", x) for x in ("low", "high")); assert (low <= d + 1e-9).all() and (high >= d - 1e-9).all() and np.isfinite(low).all()
    other = PatchingGrid.of(a, planted(n=7)); assert not other.data.paired and np.isnan(other.data.map("difference", "recovery", "low")).all()
    with pytest.raises(WidgetError, match="different prompts"): other.data.map("difference", "recovery", "change", 1)
    with pytest.raises(WidgetError, match="layers"): PatchingGrid.of(a, planted(layers=3))


# --- looking into cells -----------------------------------------------------------------------------------------------------
def rerun(line, **names):
    "Execute a copied line as a notebook would, and give its value."
    before, last = line.rsplit("; ", 1); exec(before, names); return eval(last, names)


@pytest.mark.parametrize("where", [dict(site="resid_pre", layer=1, pos=10), dict(site="mlp_out", layer=0, pos=11), dict(site="resid_pre", layer=(1, 2), pos=(10, 12))])
def test_the_copied_line_gives_the_number(micro, done, where):
    done.select(**where); got = rerun(done.line(), lm=micro); assert done.detail.get("error") is None
    want = done.result.recovery.sel(site=where["site"], layer=where["layer"], pos=where["pos"]).mean() if not isinstance(where["pos"], tuple) else np.mean(done.detail["values"]["recovery"])
    assert got == pytest.approx(float(want), abs=1e-4) and "make('ioi'" in done.line()
    done.region = []


def test_the_line_of_a_prompt_and_of_a_head(micro, heads):
    heads.select(layer=3, head=5); got = rerun(heads.line(), lm=micro)
    assert got == pytest.approx(heads.result.recovery.sel(layer=3, head=5).item(), abs=1e-4) and heads.detail["hook"].endswith("[head 5]")
    named = PatchingGrid(micro, Pairs.of(micro, clean=[CLEAN], corrupt=[TWIN], answers=" Mary", foils=" John", spans=dict(subject=[10])), sites="resid_pre", positions=["subject", "end"], preview=False)
    named.select("resid_pre", layer=1, pos="subject"); assert rerun(named.line(), lm=micro) == pytest.approx(named.result.recovery.sel(layer=1, pos="subject").item(), abs=1e-4)


def test_what_a_click_says_is_what_plain_hooks_say(micro, heads):
    grid = PatchingGrid(micro, CLEAN, TWIN, " Mary", " John", sites="resid_pre", preview=False); grid.select("resid_pre", layer=(1, 2), pos=(9, 10))
    clean = micro.run(CLEAN, keep="resid_pre"); done = micro.run(TWIN, edits=[write(Site("resid_pre", layer=l, pos=(9, 10)), clean) for l in (1, 2)]).last_logits[0]
    p, before = done.softmax(-1), micro.run(TWIN).last_logits[0]
    for token, *_, patched, logits in grid.detail["tokens"][0]:
        i = micro.answer_id(token); assert patched == pytest.approx(float(p[i]), abs=1e-5) and logits["patched"] - logits["corrupt"] == pytest.approx(float(done[i] - before[i]), abs=1e-3)
    assert grid.detail["cells"] == 4 and "and 3 more" in grid.detail["hook"]


def test_a_linked_explorer_moves_with_the_grid(heads, done):
    heads.select(layer=2, head=3); w = heads.explorer(); assert isinstance(w, AttentionExplorer) and (w.layer, w.head) == (2, 3) and "B" in dict(w.meta["which"])
    w.selection = {"layer": 1, "head": 6}; assert heads.region == [0, 1, 6, 1, 6]
    heads.select(layer=0, head=4); assert (w.layer, w.head) == (0, 4)
    done.select("attn_out", layer=3, pos=15); e = done.explorer(); e.locked = [11]; assert done.region == [1, 3, 11, 3, 11] and e.layer == 3
    done.region = []; assert e.locked == [11]


def test_attention_of_a_clicked_head(micro, heads):
    x = unpack(heads.chunk(("@attention", 2, 3, 0))); want = [micro.run(t, keep="pattern")["pattern"].isel(prompt=0).sel(layer=2, head=3).values for t in (CLEAN, TWIN)]
    assert np.abs(x - np.stack(want)).max() < 1e-3


# --- selection, state, refusals -----------------------------------------------------------------------------------------------
def test_selection_state_and_links():
    a, b = PatchingGrid.of(planted()), PatchingGrid.of(planted(seed=2)); Selection().join(a, b); seen = []; a.observe(lambda c: seen.append(c["new"]), "selection")
    a.select("attn_out", layer=(1, 2), pos=3); assert a.region == [1, 1, 3, 2, 3] == b.region and seen[-1]["locked"] == [3] and seen[-1]["layer"] == 1
    a.pins = [a.region, [0, 2, 3, 2, 3]]; a.prompt, a.cone = 2, False; kept = json.loads(json.dumps(a.state()))
    again = PatchingGrid.of(planted()).restore(kept); assert again.state() == kept and set(again.to_frame().site) == {"attn_out"} and len(again.to_frame()) == 2


@pytest.mark.parametrize("name, value, words", [("region", [0, 9, 0, 9, 0], "4 layers"), ("region", [1, 2], "[facet, row"), ("metric", "recvery", "recovery"), ("which", "B", "PatchingGrid.of(a, b)"), ("prompt", 5, "5 prompts"), ("layer", 7, "[0, 1, 2, 3]"), ("pins", [[5, 0, 0, 0, 0]], "3 facets")])
def test_what_does_not_exist_is_refused(name, value, words):
    w = PatchingGrid.of(planted()); before = w.state()
    with pytest.raises(WidgetError, match=re.escape(words)): setattr(w, name, value)
    assert w.state() == before


def test_bad_beginnings(micro):
    flat = planted().recovery
    for do, words in ((lambda: PatchingGrid.of(flat), "Dataset"), (lambda: PatchingGrid.of(planted().isel(pos=0)), "layers against positions"), (lambda: PatchingGrid.of(planted(), colour="red"), "colour"), (lambda: PatchingGrid(micro, CLEAN, TWIN, " Mary", " John", sites="resid_prre"), "resid_p"),
                      (lambda: PatchingGrid(micro, CLEAN, "When Mary", " Mary", " John"), "line up"), (lambda: PatchingGrid.of(planted()).inspect([0, 0, 0, 0, 0]), "lm=lm"), (lambda: PatchingGrid.of(planted()).select("resid_pre", layer=9), "no layer 9"), (lambda: PatchingGrid.of(planted()).explorer(), "needs the model")):
        with pytest.raises(WorkbenchError, match=words): do()


# --- filling ---------------------------------------------------------------------------------------------------------------------
def test_stop_leaves_a_valid_part_and_go_on_completes_it(micro, task):
    w = PatchingGrid(micro, task, sites=("resid_pre", "mlp_out"), beside=True, shade="change"); seen = []; w.observe(lambda c: (seen.append(c["new"]["state"]), c["new"].get("cells") and w.stop()), "status")
    for _ in range(600):
        if w.status.get("state") == "stopped": break
        time.sleep(.02)
    part = w.result; got = int(np.isfinite(part.recovery).any("prompt").sum()); assert "stopped" in seen and 0 < got < part.recovery[:, 0].size and w.data.map("A", "recovery", "state").max() >= PENDING
    w.select("resid_pre", layer=0, pos=10)                                          # clicks are answered while it stands still
    for _ in range(300):
        if w.detail: break
        time.sleep(.02)
    assert len(w.detail["changes"]["recovery"]) == 6
    w.unobserve_all("status"); w.go_on().wait(60); whole = patch(micro, task.for_model(micro), ("resid_pre", "mlp_out"))
    for _ in range(200):
        if w.status["state"] == "done": break
        time.sleep(.02)
    assert w.status["state"] == "done" and np.allclose(w.result.recovery, whole.recovery, atol=1e-4, equal_nan=True) and np.allclose(part.recovery, whole.recovery.where(np.isfinite(part.recovery)), atol=1e-4, equal_nan=True)
    w.close()


def test_a_cell_that_runs_beside_the_grid_is_not_touched(micro, task):
    "While the grid patches in its thread, the notebook's own runs give their own numbers."
    want = micro.run(CLEAN).last_logits; w = PatchingGrid(micro, task, beside=True); runs = 0
    while not w.worker.finished.is_set() and runs < 200: assert torch.equal(micro.run(CLEAN).last_logits, want); runs += 1
    w.wait(60); assert runs > 3; w.close()


def test_the_preview_comes_first(micro):
    w = PatchingGrid(micro, CLEAN, TWIN, " Mary", " John", beside=True); w.wait(60); assert w._previews is not None and "Spearman" in w.note and not (w.data.map("A", "recovery", "state") == PREVIEW).any(); w.close()
    rank = PatchingGrid(micro, CLEAN, TWIN, " Mary", " John", metrics="rank", sites="resid_pre"); assert "no preview" in rank.meta["said"] and rank.status["state"] == "done"


def test_every_kind_of_model_fills(monkeypatch):
    for name in ("llama", "bert", "t5"):
        made = build(name); lm = load(*made) if isinstance(made, tuple) else load(made); ids = [[5, 6, 7, 8, 9]], [[5, 9, 7, 8, 9]]
        if lm.kind == "masked": ids = tuple([[*x[0][:4], lm.mask_id]] for x in ids) if lm.mask_id is not None else None
        if ids is None: continue
        w = PatchingGrid(lm, Pairs.of(lm, clean=ids[0], corrupt=ids[1], answers=[3], foils=[4], targets=[[3]] if lm.kind == "seq2seq" else None), sites="encoder.resid_pre" if lm.kind == "seq2seq" else "resid_pre")
        assert w.status["state"] == "done" and w.meta["causal"] == (lm.kind == "causal") and w.to_png()[:4] == b"\x89PNG"


# --- pages, pictures, sizes ----------------------------------------------------------------------------------------------------
def test_what_travels_is_small():
    assert len(esm("patching")) <= 25_000 and len(css("patching")) <= 6_000
    names = [n for f in files_of("patching.js") for n in re.findall(r"^(?:export )?(?:async )?(?:function|const|let|class) (\w+)", static(f), re.M)]; assert len(names) == len(set(names))
    big = planted(n=1, layers=32, length=256); w = PatchingGrid.of(big); assert len(w.chunk(("A", "recovery", "change", "all")).data) == 32 * 256 * 3 * 2 < 50_000 and len(w.to_html()) < 400_000


def test_pages_and_pictures(done, tmp_path):
    page = done.to_html(tmp_path/"g.html").read_text(); assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page) and "denoising: corrupted → clean" in page and "<table>" in page
    assert done.to_png() != done.to_png(dark=True) and "<svg" in done.to_svg() and len(done.rows()) == 11
    hostile = planted(texts=[["<script>window.hit=1</script>", "</script>", "$x^2$", "👑", "שלום", "\n"]] * 5); assert "<script>window" not in PatchingGrid.of(hostile).to_html() and PatchingGrid.of(hostile).to_png()


def test_a_live_still_is_small(monkeypatch, done):
    monkeypatch.setenv("WORKBENCH_WIDGETS", "live"); data = PatchingGrid.of(planted())._repr_mimebundle_()[0]
    assert "application/vnd.jupyter.widget-view+json" in data and len(data["text/html"]) < 64_000 and "<script" not in data["text/html"]


# --- the front end's pure functions ---------------------------------------------------------------------------------------------
SITES = ("resid_pre", "q", "k", "v", "z", "attn_out", "resid_mid", "mlp_post", "mlp_out", "resid_post")


def reach(name, layer=1, pos=3, head=1):
    "For each site of a tiny model: what really changes when one cell of it is changed, at every other site, layer and position."
    made = build(name); lm = load(*made) if isinstance(made, tuple) else load(made); prompt = [[5, 6, 7, 8, 9, 10]]; known = [s for s in SITES if not (s == "resid_mid" and lm.main.row.parallel)]; plain = lm.run(prompt, keep=known); out = []
    for site in known:
        units = Site(site).dims[2] in ("head", "kv_head"); unit = min(head, (lm.n_kv_heads if site in "kv" else lm.n_heads) - 1) if units else None
        done = lm.run(prompt, keep=known, edits=[apply(Site(site, layer=layer, pos=pos, head=unit), lambda v: v + torch.linspace(.5, 1.5, v.shape[-1]) * v.std().clamp(min=.1))]); changed = []
        for other in known:
            for l in range(lm.n_layers):
                d = (done.tensor(f"{other}.{l}") - plain.tensor(f"{other}.{l}"))[0].abs(); d = d.amax(-1)
                for p in (2, 3, 4):
                    for u in (range(d.shape[1]) if d.dim() == 2 else [None]):
                        if (other, l, p, u) != (site, layer, pos, unit): changed.append([dict(name=other, layer=l, pos=p, unit=u), bool((d[p] if u is None else d[p, u]) > 1e-6)])
        out.append(dict(model=name, options=dict(causal=lm.kind == "causal", parallel=bool(lm.main.row.parallel), groups=lm.n_heads // lm.n_kv_heads), **{"from": dict(name=site, layer=layer, pos=pos, unit=unit)}, changed=changed))
    return out


def test_pure_functions_in_node(tmp_path, done, heads):
    rng = np.random.default_rng(0); lines = []
    for w, regions in ((done, [[0, 1, 10, 1, 10], [2, 0, 3, 1, 4]]), (heads, [[0, 3, 5, 2, 5]])): lines += [dict(meta={k: w.meta[k] for k in ("facets", "layers", "axis", "unit_dim", "place_labels", "line")}, region=r, line=w.line(r)) for r in regions]
    scales = [dict(ends=e, values=v, how=how, top=scale_end(e, np.array(v), how)) for e in (dict(clean=1., corrupt=0.), dict(clean=3., corrupt=-2.), dict(clean=None, corrupt=None)) for v in ([.1, -.3], [2.], [99.]) for how in ("anchors", "view")]
    fixture = dict(reach=[*reach("llama"), *reach("gpt_neox"), *reach("gpt2")], scales=scales, lines=lines); (tmp_path/"f.json").write_text(json.dumps(fixture))
    run = subprocess.run([node(), "--test", str(ROOT/"tests"/"js"/"cells.test.mjs")], capture_output=True, text=True, env=os.environ | {"FIXTURE": str(tmp_path/"f.json")}, timeout=120)
    assert run.returncode == 0, (run.stdout + run.stderr)[-3000:]
    assert int(re.search(r"pass (\d+)", run.stdout)[1]) == (ROOT/"tests"/"js"/"cells.test.mjs").read_text().count("\ntest(")
