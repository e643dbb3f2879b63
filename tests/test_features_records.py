"The feature store against a dense computation: lists, counts, bands, controls, company, logits; memory, kills, search, labels, refusals."
import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch

from workbench.features.dictionary import Sae, JumpReLU, random_dictionary
from workbench.features.errors import FeatureError
from workbench.features.gather import Gathered, chance, planned_bytes
from workbench.features.records import FILES, FeatureStore, flat_text
from workbench.features.store import contexts
from workbench.lm.sites import Site
from workbench.tasks.catalogue import make

SITE = Site("resid_post", layer=1)


@pytest.fixture(scope="module")
def lm():
    import workbench
    return workbench.load("micro")


@pytest.fixture(scope="module")
def text(lm):
    rows = contexts(lm, make("ioi", n=90)) + contexts(lm, make("capitals", n=60)); return rows + rows[5:25] + [r[::-1] for r in rows[:10]]      # some twice, some backwards: alike


@pytest.fixture(scope="module")
def world(lm, text, tmp_path_factory):
    "A store made in small steps, and f (context, pos, feature) in full, NaN past a context's end. 40 features, 4 of them dead."
    d = random_dictionary(lm.d_model, 40, k=3, seed=2, site=SITE); d.b_enc.data[:4] = -1e4
    store = FeatureStore(lm, d, text, tmp_path_factory.mktemp("s"), batch=16, top=6, bands=5, per_band=2, controls=4, window=4, partners=5).collect()
    run = lm.run(text, keep="resid_post.1"); f = d.encode(run.tensor("resid_post.1")).numpy(); f[~run.tokens.mask.bool().numpy()] = np.nan
    return store, d, f


def alike(row, p, reach=4): return tuple(sorted(row[max(0, p - reach):p + reach + 1]))


def test_counts_histogram_and_peaks(world):
    store, d, f = world; flat = f[~np.isnan(f[..., 0])]; c = store.columns()
    assert store.meta["tokens"] == len(flat) == store.record(0)["n"] and (c["fired"] == (flat > 0).sum(0)).all() and np.allclose(c["density"], (flat > 0).mean(0)) and set(store.features("dead")) == set(np.flatnonzero((flat > 0).sum(0) == 0)) >= {0, 1, 2, 3}
    for i in store.features("alive"):
        r, v = store.record(i), flat[:, i][flat[:, i] > 0]
        assert np.isclose(r["max"], v.max()) and np.isclose(r["mean"], v.mean(), rtol=1e-5) and (np.histogram(v, r["histogram"]["edges"])[0] == r["histogram"]["counts"]).all() and r["histogram"]["edges"][-1] > v.max()


def test_the_top_list_is_the_dense_one(world, text):
    store, d, f = world
    for i in store.features("alive"):
        seen = {}
        for c, row in enumerate(text):
            a = f[c, :len(row), i]; p = int(a.argmax())
            if a[p] > 0: seen.setdefault(alike(row, p), []).append((-a[p], c, p))
        want = sorted(min(v) for v in seen.values())[:6]; got = [e for e in store.record(i)["examples"] if e["band"] == 0]
        assert np.allclose([e["activation"] for e in got], [-w[0] for w in want], rtol=1e-5)
        for e in got:                                                    # places: equal but for ties within rounding
            group = seen[alike(text[e["context"]], e["pos"])]; assert any((c, p) == (e["context"], e["pos"]) for _, c, p in group) and e["similar"] <= len(group)
        assert got[0]["similar"] == len(seen[alike(text[got[0]["context"]], got[0]["pos"])]) or len(seen) > 6
    assert max(e["similar"] for i in store.features("alive") for e in store.record(i)["examples"]) > 1


def test_examples_show_the_models_own_activations(world, text):
    store, d, f = world
    for i in store.features("alive"):
        r = store.record(i)
        for e in r["examples"]:
            row = text[e["context"]]; a = max(0, e["pos"] - 4); b = min(len(row), e["pos"] + 5)
            assert e["ids"] == row[a:b] and e["at"] == e["pos"] - a and len(e["tokens"]) == len(e["ids"]) and np.allclose(e["activations"], f[e["context"], a:b, i], atol=1e-4)
            if e["band"] == -1: assert e["activation"] == 0 and np.nanmax(np.abs(f[e["context"], a:b, i])) == 0
            else: assert e["activations"][e["at"]] == e["activation"] > 0
            if e["band"] > 0: assert r["bands"][e["band"] - 1] < e["activation"] <= r["bands"][e["band"]]
        assert ("bands" in r["why"]) == (r["fired"] < 5) == (r["bands"] is None)


def test_bands_are_quantile_groups(lm, tmp_path, text):
    "All firings in the sample: edges are the quantiles themselves and groups hold equal numbers. A smaller sample: edges near them."
    d = random_dictionary(lm.d_model, 8, k=8, seed=0, site=SITE); f = d.encode(torch.cat([lm.run([r], keep="resid_post.1").tensor("resid_post.1")[0] for r in text])).numpy(); rank = lambda v, e: (v[:, None] <= np.asarray(e)[None, 1:-1]).mean(0)
    whole, small = (FeatureStore(lm, d, text, tmp_path / str(n), sample=n, top=2, controls=0).collect() for n in (2500, 100)); off = []
    for i in (f > 0).sum(0).argsort()[-4:]:
        v = f[f[:, i] > 0, i]; q = np.arange(1, 10) / 10; assert 400 < len(v) <= 2500
        assert np.allclose(whole.record(i)["bands"][1:-1], np.quantile(v.astype(float), q), rtol=1e-4) and np.isclose(whole.record(i)["bands"][-1], v.max()); off += [*(rank(v, small.record(i)["bands"]) - q)]
        assert {e["band"] for e in small.record(i)["examples"]} >= set(range(11))
    assert np.abs(off).max() < 4 * .05 and 0.005 < np.std(off) < .05       # the standard error of a rank is .05 at most with 100


def test_the_sample_is_uniform_over_firings():
    "One feature, 4000 firings, 40 kept: over many seeds each tenth of the text is drawn equally often."
    from workbench.features.gather import Firings
    hits = np.zeros(10)
    for seed in range(60):
        g = Gathered(1, np.zeros(4000, np.int32), np.arange(0, 4001, 100), top=1, sample=40, reach=0, seed=seed)
        for c in range(0, 40, 8): n = 800; g.update(Firings(np.zeros(n, np.int32), np.repeat(np.arange(c, c + 8), 100).astype(np.int32), np.tile(np.arange(100), 8).astype(np.int32), np.ones(n, np.float32)))
        assert len({*zip(g.sample.context[0], g.sample.pos[0])}) == 40; hits += np.bincount(g.sample.context[0] // 4, minlength=10)
    assert abs(((hits - 240) ** 2 / 240).sum() - 9) < 18                   # chi-square with 9 degrees of freedom


def test_company_neighbours_and_logits(world, lm):
    store, d, f = world; on = (f[~np.isnan(f[..., 0])] > 0).astype(int); both = on.T @ on; n = both.diagonal(); u = torch.nn.functional.normalize(d.directions, dim=-1); cos = (u @ u.T).fill_diagonal_(-2).numpy()
    from workbench.lens.project import Projection
    p = Projection(lm); x = torch.randn(1, lm.d_model, generator=torch.Generator().manual_seed(0)); s = torch.tensor([[1 / store.meta["inverse_scale"]]])
    assert store.meta["company"]["exact"] and store.meta["company"]["tokens"] == len(on)
    for i in range(0, 40, 3):
        r = store.record(i); j = np.where(np.arange(40) == i, -1, both[i] / np.maximum(n[i] + n - both[i], 1)); assert (r["together"] is None) == (n[i] == 0)
        if n[i]: assert np.allclose([t[2] for t in r["together"]], [v for v in np.sort(j)[::-1][:5] if v > 0]) and all(both[i, t[0]] == t[1] for t in r["together"])
        assert [t[0] for t in r["neighbours"]] == np.argsort(-cos[i], kind="stable")[:5].tolist() and np.allclose([t[1] for t in r["neighbours"]], np.sort(cos[i])[::-1][:5], atol=1e-5)
        with torch.no_grad(): change = (p(x + d.directions[i], s, cap=False) - p(x, s, cap=False))[0]
        change = (change - change.mean()).numpy(); got = r["positive"] + r["negative"]; assert np.allclose([change[t] for _, t, _ in got], [e for *_, e in got], atol=2e-4) and np.isclose(r["positive"][0][2], change.max(), atol=2e-4) and np.isclose(r["negative"][0][2], change.min(), atol=2e-4)


def test_the_scale_is_that_of_the_text(world, lm, text):
    run = lm.run(text, keep="ln_final_scale"); s = run.tensor("ln_final_scale")[..., 0][run.tokens.mask.bool()]; assert np.isclose(world[0].meta["inverse_scale"], float((1 / s).mean()), rtol=1e-5)


def test_company_of_a_part_says_how_large_it_is(lm, text, tmp_path, world):
    _, d, f = world; s = FeatureStore(lm, d, text, tmp_path, company=3000, controls=0, partners=4).collect(); m = s.meta["company"]; on = f > 0
    token = np.cumsum(~np.isnan(f[..., 0])).reshape(f.shape[:2]) - 1; part = (chance(0, 43, token.ravel()).reshape(token.shape) < m["share_of_tokens"]) & ~np.isnan(f[..., 0]); on = on[part].astype(int)
    assert not m["exact"] and m["tokens"] == part.sum() and on.sum() <= 3000 < 2 * 3000 and (f[(chance(0, 43, token.ravel()).reshape(token.shape) < 2 * m["share_of_tokens"]) & ~np.isnan(f[..., 0])] > 0).sum() > 3000      # the largest part that fits
    both = on.T @ on
    for i in s.features("alive")[:10]:
        for j, times, share in s.record(i)["together"]: assert times == both[i, j] and np.isclose(share, both[i, j] / (both[i, i] + both[j, j] - both[i, j]))


@pytest.mark.parametrize("kind", ["jumprelu", "pca", "neurons"])
def test_dense_dictionaries_and_other_sites(lm, text, tmp_path, kind):
    site = Site("mlp_post", layer=0) if kind == "neurons" else SITE; g = torch.Generator().manual_seed(1); text = text[:70]; run = lm.run(text, keep=site); mask = run.tokens.mask.bool(); x = run.tensor(site)[mask]
    from workbench.features.dictionary import fit_pca, neurons
    d = neurons(x.shape[1], site=site) if kind == "neurons" else fit_pca(x, 12, site=site) if kind == "pca" else Sae(torch.randn(lm.d_model, 30, generator=g), torch.zeros(30), torch.randn(30, lm.d_model, generator=g), torch.zeros(lm.d_model), JumpReLU(torch.full((30,), 12.)), site=site)
    s = FeatureStore(lm, d, text, tmp_path, top=3).collect(); f = d.encode(x).numpy(); c = s.columns(); ok = np.abs(f[f != 0]).min() < 1e-3                # an entry within rounding of 0 may fall either way
    assert np.abs(c["fired"] - (f > 0).sum(0)).max() <= 2 * ok and np.allclose(np.nan_to_num(c["max"]), np.maximum(f.max(0), 0), rtol=1e-4) and np.abs(c["below"] - (f < 0).sum(0)).max() <= 2 * ok and s.meta["signed"] == bool((f < 0).any())
    r = s.record(np.where(c["fired"] > 30, c["below"] + 1, 0).argmax()); assert (r["positive"] is None) == (kind == "neurons") == ("positive" in r["why"])
    if kind != "jumprelu": assert min(min(e["activations"]) for e in r["examples"]) < 0        # a window shows what is below 0 too


def test_a_first_position_can_be_left_out(lm, text, tmp_path, world):
    _, d, f = world; s = FeatureStore(lm, d, text, tmp_path, skip_first=1).collect(); g = f[:, 1:]; g = g[~np.isnan(g[..., 0])]; assert s.meta["counted"] == len(g) and (s.columns()["fired"] == (g > 0).sum(0)).all() and np.allclose(s.columns()["density"], (g > 0).mean(0))
    assert all(e["pos"] > 0 for i in s.features("alive") for e in s.record(i)["examples"])


def test_a_feature_that_never_fired_has_none_and_says_why(world):
    r = world[0].record(2); assert all(r[k] is None and "never fired" in r["why"][k] for k in ("max", "mean", "histogram", "bands", "together")) and r["fired"] == 0 == r["density"] and r["neighbours"] and r["positive"]
    assert [e["band"] for e in r["examples"]] == [-1] * 4 and np.isnan(world[0].columns([2])["max"][0]); json.dumps(r, allow_nan=False)


def test_half_a_checkpoint_and_a_listener_who_leaves(lm, tmp_path, world, text):
    _, d, _ = world; text = text[:70]; digest = lambda folder: [hashlib.sha256((folder / f).read_bytes()).hexdigest() for f in FILES]; FeatureStore(lm, d, text, tmp_path / "whole").collect()
    for done, _ in FeatureStore(lm, d, text, tmp_path / "left").steps(): break
    assert next(FeatureStore(lm, d, text, tmp_path / "left").steps())[0] > done; FeatureStore(lm, d, text, tmp_path / "left").collect()
    for done, _ in FeatureStore(lm, d, text, tmp_path / "cut").steps(): break
    file = tmp_path / "cut" / "pass.npz"; file.write_bytes(file.read_bytes()[:5000]); (tmp_path / "cut" / "features.parquet.part").write_bytes(b"PAR1"); s = FeatureStore(lm, d, text, tmp_path / "cut"); assert next(s.steps())[0] == done; s.collect()
    assert digest(tmp_path / "left") == digest(tmp_path / "cut") == digest(tmp_path / "whole")


def test_the_order_of_work_does_not_matter(lm, tmp_path, world, text):
    a, b = (FeatureStore(lm, world[1], text, tmp_path / str(n), batch=n, top=6, bands=5, window=4).collect() for n in (7, 200))
    for i in range(0, 40, 5):
        x, y = ({**v.record(i)} for v in (a, b)); where = lambda r: [(e["band"], e["context"], e["pos"]) for e in r["examples"] if e["band"]]; assert x["fired"] == y["fired"] and x["together"] == y["together"] and len(set(where(x)) ^ set(where(y))) <= 2


def test_a_folder_of_another_plan_is_refused(world, lm, text, tmp_path):
    store, d, _ = world; same = dict(batch=16, top=6, bands=5, per_band=2, controls=4, window=4, partners=5); FeatureStore(lm, d, text, store.folder, **same)
    for given, says in [((d, text, 7), "top"), ((d, text[1:], 6), "text"), ((random_dictionary(lm.d_model, 40, k=3, seed=3, site=SITE), text, 6), "dictionary")]:
        with pytest.raises(FeatureError, match=says): FeatureStore(lm, given[0], given[1], store.folder, **{**same, "top": given[2]})
    w = lm.model.get_output_embeddings().weight; old = float(w.data[5, 5])
    try:
        w.data[5, 5] += 1e-3
        with pytest.raises(FeatureError, match="weights"): FeatureStore(lm, d, text, store.folder, **same)
    finally: w.data[5, 5] = old
    from workbench.lm import edits
    with lm.edited(edits.zero("mlp_out.0")), pytest.raises(FeatureError, match="edits"): FeatureStore(lm, d, text, store.folder, **same)


def test_damage_is_refused(lm, tmp_path, world, text):
    FeatureStore(lm, world[1], text[:40], tmp_path).collect(); raw = (tmp_path / "examples.parquet").read_bytes(); (tmp_path / "examples.parquet").write_bytes(raw[:-40])
    with pytest.raises(FeatureError, match="examples.parquet is missing or not"): FeatureStore.open(tmp_path)
    (tmp_path / "examples.parquet").write_bytes(raw); FeatureStore.open(tmp_path); (tmp_path / "meta.json").write_text("{")
    with pytest.raises(FeatureError, match="not whole"): FeatureStore.open(tmp_path)
    with pytest.raises(FeatureError, match="no feature store"): FeatureStore.open(tmp_path / "none")


def test_bad_input_is_one_sentence(lm, tmp_path, world, text):
    store, d, _ = world; plain = random_dictionary(lm.d_model, 8, k=2)
    for call, says in [(lambda: FeatureStore(lm, plain, text, tmp_path), "where it reads"), (lambda: FeatureStore(lm, plain, text, tmp_path, site="resid_post"), "every layer"), (lambda: FeatureStore(lm, d, text, tmp_path, top=0), "top=0"), (lambda: FeatureStore(lm, d, [], tmp_path), "no tokens|No prompts"),
        (lambda: FeatureStore(lm, d, {"text": "  "}, tmp_path), "no tokens"), (lambda: FeatureStore(lm, d, {"text": "a b"}, tmp_path, context=1), "context=1"), (lambda: store.record(40), "0 to 39"), (lambda: store.context(999), "Contexts are numbered"), (lambda: store.describe(3, " "), "some words"), (lambda: FeatureStore(lm, plain, text, tmp_path / "mid", site="mlp_post.0").collect(), "needs \\(n, 128\\)"),
        (lambda: store.features("densty<1"), "density"), (lambda: store.features("/[/"), "pattern"), (lambda: store.features("", sort="size"), "cannot be sorted"), (lambda: store.features('"open'), "quotes")]:
        with pytest.raises(FeatureError, match=says) as e: call()
        assert "\n" not in str(e.value)


def test_search_finds_what_a_loop_finds(world):
    store, d, f = world; c = store.columns(); ids = np.arange(40); same = lambda q, want: set(store.features(q).tolist()) == set(ids[np.asarray(want, bool)].tolist())
    assert same("density<.05 max>=4", [x < .05 and y >= 4 for x, y in zip(c["density"], c["max"])]) and same("-max>4", [not y > 4 for y in c["max"]]) and same("#7", ids == 7) and same("fired!=0 mean<6", [n and m < 6 for n, m in zip(c["fired"], c["mean"])])
    word = c["tokens"][int(store.features("alive")[0])][0]; assert same(word, [any(word.lower() in t.lower() for t in [" ".join(ts)]) for ts in c["tokens"]]) and same(f"/^{word}( |$)/", [" ".join(ts).lower().split(" ")[:1] == [word.lower()] for ts in c["tokens"]])
    records = [store.record(i) for i in ids]; near = lambda w: [any(t == w for t, *_ in r["positive"]) or any(e["tokens"][e["at"]] == w for e in r["examples"] if e["band"] == 0) for r in records]
    for w in (word, "gave", "the"): assert same(f'tok:"{w}"', near(w)) and same(f"tok:{w}", near(w)) and same(f'tok:" {w}"', near(w))       # this vocabulary has no spaces
    for by in ("max", "density", "feature"):
        for down in (True, False): got = store.features(sort=by, descending=down); v = c[by][got].astype(float); v = v[~np.isnan(v)]; assert len(got) == 40 and (np.diff(v) * (-1 if down else 1) >= 0).all() and (by != "max" or np.isnan(c["max"][got[-4:]]).all())
    assert len(store.features("'; DROP TABLE base; --")) == 0 and len(store.features()) == 40


def test_labels_are_kept_side_by_side(lm, tmp_path, world, text):
    s = FeatureStore(lm, world[1], text[:40], tmp_path).collect(); s.describe(5, "first guess", "hand"); assert s.columns([5])["label"] == ["first guess"] and np.isnan(s.labels(5)[0]["score"]); s.describe(5, "Second", "prism", .4, .3, .5, cluster=2); s.describe(5, "last, unscored"); s.describe(6, "poor", score=float("nan"))
    with (tmp_path / "labels.jsonl").open("ab") as f: f.write(b'{"feature": 7, "te')            # somebody was killed while writing
    t = FeatureStore.open(tmp_path); t.describe(7, "after the cut"); assert [l["text"] for l in s.labels(5)] == ["first guess", "Second", "last, unscored"] and s.labels(5)[1]["cluster"] == 2 and s.labels(5)[1]["low"] == .3 and [l["text"] for l in s.labels(7)] == ["after the cut"]
    assert s.columns([5, 6])["label"] == ["Second", "poor"] and s.features("second").tolist() == [5] == s.features("score>=.4").tolist() and set(s.features("is:labelled")) == {5, 6, 7} and s.features("labels>=2").tolist() == [5] and s.features("first guess").tolist() == [5] and len(s.features("score<1")) == 1


def test_text_comes_in_shards_and_blocks(lm, tmp_path, monkeypatch):
    import workbench.features.records as m
    line = "Mary gave the book to John .\n\n"; (tmp_path / "a.txt").write_text(line * 37); (tmp_path / "b.txt").write_text(line * 5); path = tmp_path / "a.txt"; want = contexts(lm, path, 16)
    for block in (1, 50, 333, 2 ** 20): assert [r for rows in m._pieces(lm, path, 16, block) for r in rows] == want
    ids, starts = flat_text(lm, [path, tmp_path / "b.txt"], 16); assert ids.tolist() == sum(want + contexts(lm, tmp_path / "b.txt", 16), []) and len(starts) == len(want) + len(contexts(lm, tmp_path / "b.txt", 16)) + 1


CHILD = """
    import os, sys, tempfile, torch; torch.set_num_threads(1)
    import duckdb, scipy.sparse, workbench
    from workbench.features.dictionary import Dictionary, random_dictionary; from workbench.features.records import FeatureStore; from workbench.lm.sites import Site; from workbench.lm.specimens import build; from workbench.tasks.catalogue import make
    class Scattered(Dictionary):
        "k features of each vector, anywhere, so that nearly every one lives."
        def __init__(self, d, n, k): super().__init__(d, d, n); self.k = k; g = torch.Generator().manual_seed(0); self.register_buffer("rows", torch.randn(n, d, generator=g)); self.register_buffer("p", 1e3 * torch.randn(d, 2 * k, generator=g))
        l0_bound = property(lambda s: s.k); directions = property(lambda s: s.rows)
        def sparse_encode(self, x):
            z = x @ self.p; at = (z[:, :self.k].abs().frac() * self.n_features).long().clamp(max=self.n_features - 1).sort(-1).values; v = z[:, self.k:].abs().log1p(); v[:, 1:][at[:, 1:] == at[:, :-1]] = 0; return v, at
    n, tokens = 4096, 6400; lm = workbench.load(build("gpt2"), check=False); peak = lambda: 1024 * int(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])  # not ru_maxrss: a child inherits its parent's
    rows = torch.randint(1, lm.d_vocab, (tokens // 64, 64), generator=torch.Generator().manual_seed(0)).tolist(); lm.run(rows[:32]); before = int(open('/proc/self/statm').read().split()[1]) * os.sysconf('SC_PAGESIZE')
    s = FeatureStore(lm, Scattered(32, n, 24), rows, tempfile.mkdtemp(), site="resid_post.0", partners=4, controls=3).collect(); c = s.columns(); print(peak() - before, (c["fired"] >= 20).mean(), c["fired"].sum(), sum((s.folder / f).stat().st_size for f in ("features.parquet", "words.parquet", "tokens.parquet")) / n, s._made.execute("SELECT count(*) FROM base").fetchone()[0] / n, flush=True)
    lm = workbench.load("micro"); s = FeatureStore(lm, random_dictionary(lm.d_model, 64, k=4, site=Site("resid_post", layer=1)), make("ioi", n=96), sys.argv[1], batch=8, save_every=2)
    for done, total in s.steps(): print(done, flush=True)
"""


@pytest.fixture(scope="module")
def child(tmp_path_factory):
    "A process that makes a store of thousands of features, says how much memory it took, begins a small one, and is killed in the middle: (what it said, steps seen, folder)."
    folder = tmp_path_factory.mktemp("k") / "a"; p = subprocess.Popen([sys.executable, "-c", textwrap.dedent(CHILD), str(folder)], stdout=subprocess.PIPE, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    said = p.stdout.readline(); seen = [int(p.stdout.readline()) for _ in range(5)]; os.kill(p.pid, signal.SIGKILL); p.wait(); p.stdout.close(); return said, seen, folder


def test_memory_is_what_was_planned(child):
    "The peak of a process of its own with every list in use is below the plan; the plan grows with features, hardly with tokens, and stays below 2 GB at 65k features x 10M tokens."
    used, alive, fired, *_ = map(float, child[0].split()); plan = planned_bytes(4096, 6400); lists = sum(plan[k] for k in ("top", "sample", "histogram", "controls"))
    assert alive > .95 and fired > 140_000 and lists / 2 < used < sum(plan.values()), (used / 2 ** 20, {k: v / 2 ** 20 for k, v in plan.items()})
    big, small, more = (sum(planned_bytes(n, t).values()) for n, t in ((65536, 10 ** 7), (8192, 10 ** 7), (65536, 10 ** 6))); assert big < 2e9 and big / small < 8 and big - more < 60e6


def test_a_first_search_reads_little(child):
    "What opening and searching read, bytes per feature: at 65k features it is 26 MB at most, one row in memory per feature, and no table of examples."
    bytes_each, rows_each = map(float, child[0].split()[3:]); assert 10 < bytes_each < 400 and rows_each == 1


def test_a_kill_changes_nothing(lm, child, tmp_path):
    _, seen, a = child; assert not (a / "features.parquet").exists() and (a / "pass.npz").exists()
    with pytest.raises(FeatureError, match="not finished"): FeatureStore.open(a)
    d = random_dictionary(lm.d_model, 64, k=4, site=SITE); same = dict(batch=8, save_every=2); task = make("ioi", n=96); again = FeatureStore(lm, d, task, a, **same); steps = list(again.steps()); whole = FeatureStore(lm, d, task, tmp_path / "b", **same).collect()
    assert len(steps) < 12 and steps[0][0] > seen[0] and all((a / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in FILES) and json.loads((a / "meta.json").read_text()) == whole.meta and not list(a.glob("*.part")) and not (a / "pass.npz").exists()
