"""Graph, masked runs, path patching and circuit scores, against slow second implementations, axioms and files made elsewhere."""
import json

import numpy as np
import pytest
import torch

from workbench.lm import specimens
from workbench.lm.edits import patch
from workbench.lm.load import load
from workbench.lm.sites import Site
from workbench.patching.edges import EdgeRuns, masked_run
from workbench.patching.errors import PatchError
from workbench.patching.graph import Graph, circuit_json, load_circuit, save_circuit
from workbench.patching.pairs import Pairs

OPEN = {}
def opened(name):
    if name not in OPEN: OPEN[name] = load(specimens.build(name))
    return OPEN[name]

def twins_of(n=3, pos=7, seed=0):
    g = torch.Generator().manual_seed(seed); ids = torch.randint(3, 90, (n, pos), generator=g); other = ids.clone()
    other[:, 1:4] = torch.randint(3, 90, (n, 3), generator=g)
    return ids, other

def pairs_of(lm, **k):
    ids, other = twins_of(**k)
    return Pairs.of(lm, clean=ids, corrupt=other, answers=torch.arange(len(ids)) + 5, foils=torch.arange(len(ids)) + 20)

def random_mask(graph, share=.5, seed=0): return graph.allowed & (torch.rand(graph.allowed.shape, generator=torch.Generator().manual_seed(seed)) < share)
def gap(a, b): return float((a - b).abs().max())


# -- the graph ---------------------------------------------------------------------------------------------------------
def test_number_of_edges_by_counting():
    "Sequential and parallel, grouped and not: the sums that one writes by hand."
    for L, H, KV, parallel in ((3, 4, 4, False), (3, 4, 2, False), (3, 4, 4, True), (12, 12, 12, False)):
        want, before = 0, 1
        for _ in range(L):
            want += before * (H + 2 * KV) + before + (0 if parallel else H); before += H + 1
        g = Graph(L, H, KV, 8, parallel)
        assert int(g.allowed.sum()) == want + before == len(g.edges)
    assert len(Graph(12, 12, 12, 768).edges) == 32491        # GPT-2 small in the literature


def test_names_both_ways_and_errors():
    g = Graph(2, 4, 2, 8)
    assert g.named(g.mask(["a0.h1->a1.g1<k>", "embed->logits"])) == ["embed->logits", "a0.h1->a1.g1<k>"]
    for wrong, said in (("a0.h9->m0", "a0.h"), ("a0.h1->a1.h0<k>", "no receiver"), ("m1->a0.h1<q>", "no edge"), ("nonsense", "no sender")):
        with pytest.raises(PatchError, match=said): g.mask([wrong])
    with pytest.raises(PatchError, match="sender=11"): g.named(torch.zeros(3, 3))
    with pytest.raises(PatchError, match="NaN"): g.top(torch.full(g.allowed.shape, torch.nan), 3)


def test_prune_is_reachability():
    "Against a search over single nodes, on random sparse masks; grouped receivers reach all heads of their group."
    g = Graph(3, 4, 2, 8)
    for seed in range(20):
        m = random_mask(g, .06, seed); edges = [(s, r) for s, r in g.edges if m[g.pair((s, r))]]
        while True:
            fed = {"embed"} | {h for _, r in edges for h in g.members(r)}
            left = [(s, r) for s, r in edges if s in fed and (r == "logits" or any(h in {x for x, _ in edges} for h in g.members(r)))]
            if left == edges: break
            edges = left
        assert sorted(g.named(g.prune(m))) == sorted(f"{s}->{r}" for s, r in edges)


def test_mib_form(tmp_path):
    "A file as EAP-IG writes it (per query head, no K/V groups) is read; ours comes back unchanged; K/V edges of a group add up."
    g = Graph(2, 4, 2, 16, model="m"); scores = torch.randn(g.allowed.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * g.allowed
    keep = g.top(scores, 15); path = save_circuit(tmp_path / "c.json", g, keep, scores, {"m0": 1.5})
    back = load_circuit(path)
    assert back[0] == g and bool((back[1] == keep).all()) and bool((back[2] == scores).all()) and back[3] == {"m0": 1.5}
    full = Graph(2, 4, 4, 16); foreign = circuit_json(full, full.allowed, torch.ones(full.allowed.shape) * full.allowed)
    assert set(foreign["cfg"]) >= {"n_layers", "n_heads", "parallel_attn_mlp", "d_model"} and foreign["nodes"]["input"] == {"in_graph": True} and "input->a0.h3<k>" in foreign["edges"]
    del foreign["cfg"]["n_kv_heads"]; lm = opened("llama")                       # 3 layers, 4 heads in 2 groups
    with pytest.raises(PatchError, match="n_layers=2"): load_circuit(foreign, lm)
    three = Graph(3, 4, 4, 32); foreign = circuit_json(three, three.allowed, torch.ones(three.allowed.shape) * three.allowed); del foreign["cfg"]["n_kv_heads"]
    graph, _, added, _ = load_circuit(foreign, lm)
    assert float(added[graph.pair("embed->a1.g0<k>")]) == 2 and float(added[graph.pair("embed->a1.h0<q>")]) == 1
    foreign["edges"].pop("m0->logits")
    with pytest.raises(PatchError, match="m0->logits"): load_circuit(foreign, lm)


def test_models_without_a_graph():
    for name, why in (("bert", "post-norm"), ("bart", "encoder-decoder"), ("t5", "encoder-decoder")):
        with pytest.raises(PatchError, match=why): Graph.of(opened(name))


# -- masked runs: a slow second implementation ------------------------------------------------------------------------------
def rotate(x, cos, sin):
    half = x.shape[-1] // 2
    return x * cos + torch.cat([-x[..., half:], x[..., :half]], -1) * sin

class Slow:
    "Each receiver by itself: its own sum of senders, its own norm, its own projection. `ids` (prompt, pos) -> what each sender wrote."
    def __init__(self, lm): self.lm, self.m, self.g, self.llama = lm, lm.model, Graph.of(lm), lm.family == "llama"

    def embed(self, ids): return self.m.model.embed_tokens(ids) if self.llama else self.m.transformer.wte(ids) + self.m.transformer.wpe(torch.arange(ids.shape[1]))
    def block(self, l): return self.m.model.layers[l] if self.llama else self.m.transformer.h[l]
    def vector(self, l, which, head, x):
        b = self.block(l); x = b.input_layernorm(x) if self.llama else b.ln_1(x)
        if self.llama: out = getattr(b.self_attn, f"{which}_proj")(x)
        else: out = b.attn.c_attn(x).chunk(3, -1)["qkv".index(which)]
        d = self.lm.d_head; return out[..., head * d:(head + 1) * d]

    def head(self, l, h, xq, xk, xv):
        g = h // (self.lm.n_heads // self.lm.n_kv_heads); q, k, v = self.vector(l, "q", h, xq), self.vector(l, "k", g, xk), self.vector(l, "v", g, xv)
        if self.llama:
            cos, sin = self.m.model.rotary_emb(v, torch.arange(q.shape[1])[None]); q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        scores = q @ k.transpose(1, 2) / self.lm.d_head ** .5
        scores = scores.masked_fill(torch.ones(scores.shape[1:], dtype=torch.bool).triu(1), -torch.inf)
        return scores.softmax(-1) @ v @ self.lm.weight("O", l)[h]

    def run(self, ids, keep, other):
        "`(logits at the end, {sender: value})`; `other` {sender: value}, or None where everything is kept."
        sent = {"embed": self.embed(ids)}; bias = 0
        def read(r):
            col = self.g.receiver_index[r]
            return bias + sum(y if other is None or keep[self.g.sender_index[s], col] else other[s] for s, y in sent.items())
        for l in range(self.lm.n_layers):
            kv = "h" if self.lm.n_kv_heads == self.lm.n_heads else "g"; size = self.lm.n_heads // self.lm.n_kv_heads
            new = {f"a{l}.h{h}": self.head(l, h, read(f"a{l}.h{h}<q>"), *(read(f"a{l}.{kv}{h // size}<{w}>") for w in "kv")) for h in range(self.lm.n_heads)}
            sent |= new; b = self.block(l)
            if not self.llama: bias = bias + b.attn.c_proj.bias
            x = read(f"m{l}"); sent[f"m{l}"] = b.mlp(b.post_attention_layernorm(x) if self.llama else b.ln_2(x))
        x = read("logits"); x = self.m.model.norm(x) if self.llama else self.m.transformer.ln_f(x)
        return self.m.lm_head(x)[:, -1], sent

@torch.no_grad()
@pytest.mark.parametrize("name", ["gpt2", "llama"])
def test_masked_run_equals_each_receiver_computed_by_itself(name):
    lm = opened(name); slow = Slow(lm); pairs = pairs_of(lm); runs = EdgeRuns(lm, pairs)
    clean, corrupt = slow.run(pairs.clean.ids, None, None), slow.run(pairs.corrupt.ids, None, None)
    assert gap(clean[0], runs.base) < 1e-5 and gap(corrupt[0], runs.other) < 1e-5
    masks = torch.stack([random_mask(runs.graph, share, seed) for seed, share in enumerate((.1, .5, .5, .9, .98))])
    want = torch.stack([slow.run(pairs.clean.ids, m, corrupt[1])[0] for m in masks])
    assert gap(runs.logits(masks), want) < 1e-5 < .01 < gap(want[0], runs.base)              # together in one batch
    assert gap(torch.stack([runs.logits(m) for m in masks]), want) < 1e-5                    # one at a time
    zero = {s: torch.zeros_like(v) for s, v in clean[1].items()}
    assert gap(masked_run(lm, pairs, masks[1], ablation="zero"), slow.run(pairs.clean.ids, masks[1], zero)[0]) < 1e-5
    mean = {s: v.mean((0, 1)).expand_as(v) for s, v in clean[1].items()}
    assert gap(masked_run(lm, pairs, masks[1], ablation="mean"), slow.run(pairs.clean.ids, masks[1], mean)[0]) < 1e-5
    assert gap(masked_run(lm, pairs, masks[1], direction="denoising"), slow.run(pairs.corrupt.ids, masks[1], clean[1])[0]) < 1e-5


@torch.no_grad()
@pytest.mark.parametrize("name", [*specimens.CAUSAL, "olmo2"])
def test_axioms_on_every_family(name):
    "All kept: clean. None kept: corrupted. Nothing out of `embed`: corrupted. All edges of a node, or of a layer's heads: the node, or the layer, patched by plain hooks."
    lm = load(olmo2()) if name == "olmo2" else opened(name); pairs = pairs_of(lm); runs = EdgeRuns(lm, pairs); g = runs.graph
    without = lambda *nodes: g.allowed & ~torch.tensor([s in nodes for s in g.senders])[:, None]
    heads = [f"a1.h{h}" for h in range(lm.n_heads)]
    got = runs.logits(torch.stack([g.allowed, torch.zeros_like(g.allowed), without("embed"), without("m1"), without(*heads), without("a1.h2")]))
    twin = lm.run(pairs.corrupt, keep=["attn_out", "mlp_out", "z"]); clean = lm.run(pairs.clean)
    by_hook = lambda *where: lm.run(pairs.clean, edits=[patch(Site(where[0], layer=1, **(where[1] if where[1:] else {})), twin)]).last_logits
    want = [clean.last_logits, twin.last_logits, twin.last_logits, by_hook("mlp_out"), by_hook("attn_out"), by_hook("z", dict(head=2))]
    errors = [gap(a, b) for a, b in zip(got, want)]
    assert max(errors[:5]) < 1e-5 and gap(want[0], want[1]) > .05 and gap(want[0], want[5]) > 1e-3
    assert (errors[5] < 1e-5) == (name not in ("gemma2", "gemma3", "olmo2"))     # there a patched head also moves the norm's scale: said in the notebook


def olmo2():
    import transformers
    torch.manual_seed(0)
    return transformers.Olmo2ForCausalLM(transformers.Olmo2Config(vocab_size=96, hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, pad_token_id=0)).eval()


@torch.no_grad()
def test_shares_of_normalised_heads_add_up():
    "Gemma 2: heads, MLPs and embedding sum to the final state, although a norm stands behind the heads."
    lm = opened("gemma2"); ids, _ = twins_of(); record = EdgeRuns(lm, pairs_of(lm)).groups[0][1]
    assert gap(record.sent.sum(0), lm.run(ids, keep="resid_post").tensor(Site("resid_post", layer=2))) < 1e-5


@torch.no_grad()
def test_prompts_of_different_length_places_and_chunks():
    lm = opened("gpt2"); (a, b), (c, d) = twins_of(2, 7), twins_of(2, 5, seed=3)
    mixed = Pairs.of(lm, clean=[*a.tolist(), *c.tolist()][::-1], corrupt=[*b.tolist(), *d.tolist()][::-1]); runs = EdgeRuns(lm, mixed)
    masks = torch.stack([random_mask(runs.graph, .6, s) for s in range(4)])
    alone = torch.cat([EdgeRuns(lm, Pairs.of(lm, clean=x.flip(0), corrupt=y.flip(0))).logits(masks) for x, y in ((c, d), (a, b))], 1)
    assert gap(runs.logits(masks), alone) < 1e-5 and gap(EdgeRuns(lm, mixed, budget=1).logits(masks), alone) < 1e-5      # one prompt and one mask at a time
    whole = runs.logits(masks[0])
    some = EdgeRuns(lm, mixed, positions=[1, 2]).logits(masks[0]); rest = EdgeRuns(lm, mixed, positions=[0]).logits(masks[0])
    assert gap(rest, runs.base) < 1e-5 < gap(some, whole)                                     # the first token is the same in both twins
    assert gap(EdgeRuns(lm, Pairs.of(lm, clean=a, corrupt=b), positions=[0, 1, 2, 3, 4, 5, 6]).logits(masks[0]), EdgeRuns(lm, Pairs.of(lm, clean=a, corrupt=b)).logits(masks[0])) == 0


def test_bad_requests_are_said():
    lm = opened("gpt2"); pairs = pairs_of(lm)
    with pytest.raises(PatchError, match="sender=16"): masked_run(lm, pairs, torch.ones(2, 2))
    with pytest.raises(PatchError, match="no ablation 'mena'"): masked_run(lm, pairs, Graph.of(lm).allowed, ablation="mena")
    with pytest.raises(PatchError, match="noising"): masked_run(lm, pairs, Graph.of(lm).allowed, ablation="mean", direction="denoising")
    with lm.edited(patch(Site("z", layer=0), torch.zeros(()))), pytest.raises(PatchError, match="edited"): masked_run(lm, pairs, Graph.of(lm).allowed)
