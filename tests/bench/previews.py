"""First-order previews of patching as each library makes them: every head at every position, and every edge between heads and MLPs."""
import contextlib
import io

import torch

import contenders
import grid
from grid import ANSWER, FOIL, SHARED, difference

HEADS, EDGES = "12 x 12 x 15 heads, first order", "32,491 edges, first order"


class Hooks:
    "Two forward passes and a backward pass with torch hooks on a transformers model: the reference for heads."
    def __init__(self, shape, exact=False): self.model = grid.Hooks(shape, exact).model

    def outputs(self, ids, grad):
        "Inputs of every attention output projection (z of all heads, side by side), and the answer's logit difference."
        kept = []
        def note(module, args):
            z = args[0] if args[0].requires_grad or not grad else args[0].detach().requires_grad_()
            kept.append(z); return (z,)
        handles = [b.attn.c_proj.register_forward_pre_hook(note) for b in self.model.transformer.h]
        try:
            with torch.set_grad_enabled(grad): return kept, difference(self.model(ids, use_cache=False).logits)
        finally:
            for h in handles: h.remove()

    def heads(self, clean, corrupt):
        other, _ = self.outputs(clean, False); base, value = self.outputs(corrupt, True)
        n = self.model.config.n_head
        return torch.stack([((o - b.detach()) * g).unflatten(-1, (n, -1)).sum(-1)[0].T for o, b, g in zip(other, base, torch.autograd.grad(value, base))])


class Workbench:
    "`attribution_patch` and `edge_attribution`, the whole calls with their labelled results."
    def __init__(self, shape): self.lm = contenders.Workbench(shape).lm

    def pairs(self, clean, corrupt):
        from workbench.patching.pairs import Pairs
        return Pairs.of(self.lm, clean=clean, corrupt=corrupt, answers=[ANSWER], foils=[FOIL])

    def heads(self, clean, corrupt):
        from workbench.patching.attribution import attribution_patch
        made = attribution_patch(self.lm, self.pairs(clean, corrupt), sites="z", by="layer head pos")
        return torch.as_tensor((made.logit_difference - made.corrupt_logit_difference).isel(site=0, prompt=0).transpose("layer", "head", "pos").values)

    def edges(self, clean, corrupt):
        from workbench.patching.eap import edge_attribution
        return edge_attribution(self.lm, self.pairs(clean, corrupt), method="eap", direction="denoising")


class Lens:
    "TransformerLens `attribution_patch` for nodes (its 2,160 heads and positions are compared; it also makes 195 nodes of MLPs and the embedding) and for edges (one for every position)."
    def __init__(self, shape): self.bridge = contenders.Lens(shape).bridge

    def __call__(self, clean, corrupt, granularity):
        from transformer_lens.tools.analysis.attribution_patching import EdgeAttributionConfig, attribution_patch
        first = next(self.bridge.original_model.parameters()); first.requires_grad_()       # it asks the weights for a graph; ours and the hooks' do not
        try:
            with contextlib.redirect_stderr(io.StringIO()): return attribution_patch(self.bridge, clean, corrupt, difference, EdgeAttributionConfig(granularity=granularity))
        finally: first.requires_grad_(False)

    def heads(self, clean, corrupt):
        out = torch.zeros(self.bridge.cfg.n_layers, self.bridge.cfg.n_heads, clean.shape[1])
        for node, score in self(clean, corrupt, "node").node_scores.items():
            if node.kind == "attn_head_out": out[node.layer, node.head, node.position] = score
        return out

    def edges(self, clean, corrupt): return self(clean, corrupt, "edge").edge_scores


SENDS = {"embed": "embed", "attn_head_out": "a{l}.h{h}", "mlp_out": "m{l}"}
RECEIVES = {"q_input": "a{l}.h{h}<q>", "k_input": "a{l}.h{h}<k>", "v_input": "a{l}.h{h}<v>", "mlp_in": "m{l}", "logits": "logits"}


def edge_scores(found) -> torch.Tensor:
    "Scores of all edges in one order, summed over positions, from our DataArray or from TransformerLens' dict."
    if not isinstance(found, dict): return torch.tensor([v for _, v in sorted((e, float(v)) for e, v in _named(found))], dtype=torch.float64)
    totals = {}
    for (sender, receiver), score in found.items():
        edge = (SENDS[sender.kind].format(l=sender.layer, h=sender.head), RECEIVES[receiver.kind].format(l=receiver.layer, h=receiver.head))
        totals[edge] = totals.get(edge, 0.) + score
    return torch.tensor([v for _, v in sorted(totals.items())], dtype=torch.float64)


def _named(scores):
    there = scores.notnull().values
    return [((s, r), scores.values[i, j]) for i, s in enumerate(scores.sender.values.tolist()) for j, r in enumerate(scores.receiver.values.tolist()) if there[i, j]]


def ways(shape: str, peers: bool = True) -> dict:
    "As `grid.ways`."
    ours, hooks = Workbench(shape), Hooks(shape)
    found = {(HEADS, SHARED): {"hooks": hooks.heads, "workbench attribution_patch": ours.heads}, (EDGES, SHARED): {"workbench edge_attribution": ours.edges}}
    if not peers: return found
    lens = Lens(shape)
    found[HEADS, SHARED]["transformer-lens attribution_patch, nodes"] = lens.heads; found[EDGES, SHARED]["transformer-lens attribution_patch, edges"] = lens.edges
    return found
