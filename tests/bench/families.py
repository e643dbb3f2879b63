"""Every cell of patch grids on five families, against a hooked forward pass of its own on the plain transformers model. Nothing is timed."""
import torch

import shapes

LENGTH, DIFFERS, ANSWER, FOIL, TARGETS = 15, 6, 5, 7, (4, 8, 9, 11)


def _blocks(of, part=lambda b: b): return lambda m: [part(b) for b in of(m)]
def _llama(part=lambda b: b): return _blocks(lambda m: m.model.layers, part)
def _gpt2(part=lambda b: b): return _blocks(lambda m: m.transformer.h, part)
def _encoder(part=lambda b: b): return _blocks(lambda m: m.get_encoder().block if hasattr(m.get_encoder(), "block") else m.get_encoder().layers, part)
def _decoder(part=lambda b: b): return _blocks(lambda m: m.get_decoder().block if hasattr(m.get_decoder(), "block") else m.get_decoder().layers, part)


_GROUPED = {("resid_pre", "layer pos"): (_llama(), "in"), ("z", "layer head"): (_llama(lambda b: b.self_attn.o_proj), "in"), ("v", "layer kv_head"): (_llama(lambda b: b.self_attn.v_proj), "out")}
GRIDS = {  # shape: {(site, by): (the module of each layer, whether its input or output is patched)}
    "thin": {("resid_pre", "layer pos"): (_gpt2(), "in"), ("z", "layer head"): (_gpt2(lambda b: b.attn.c_proj), "in")},
    "llama": _GROUPED, "gemma2": _GROUPED,
    "t5": {("encoder.resid_pre", "layer pos"): (_encoder(), "in"), ("encoder.z", "layer head"): (_encoder(lambda b: b.layer[0].SelfAttention.o), "in"),
           ("decoder.resid_pre", "layer pos"): (_decoder(), "in"), ("decoder.cross.z", "layer head"): (_decoder(lambda b: b.layer[1].EncDecAttention.o), "in")},
    "bart": {("encoder.resid_pre", "layer pos"): (_encoder(), "in"), ("encoder.z", "layer head"): (_encoder(lambda b: b.self_attn.out_proj), "in"),
             ("decoder.resid_pre", "layer pos"): (_decoder(), "in"), ("decoder.cross.z", "layer head"): (_decoder(lambda b: b.encoder_attn.out_proj), "in")}}


class Hooked:
    "A plain model in which one place can be overwritten in a pass; `grid` makes every cell in a pass of its own."
    def __init__(self, made): self.model = shapes.twin(made, made.config._attn_implementation); self.decoder = dict(decoder_input_ids=torch.tensor([[made.config.decoder_start_token_id, *TARGETS]])) if made.config.is_encoder_decoder else {}

    def answer(self, ids): z = self.model(input_ids=ids, use_cache=False, **self.decoder).logits[0, -1]; return float(z[ANSWER] - z[FOIL])

    def at(self, module, side, fn):
        "Run `fn(value)` on a module's input or output; what it returns, if anything, takes the value's place."
        def entering(mod, args, kwargs):
            old = args[0] if args else kwargs["hidden_states"]; new = fn(old)
            if new is None: return None
            return ((new, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": new})
        if side == "in": return module.register_forward_pre_hook(entering, with_kwargs=True)
        return module.register_forward_hook(lambda mod, args, out: fn(out))

    @torch.no_grad()
    def grid(self, modules, side, heads, clean, corrupt):
        "(layer, pos) or, with a number of `heads`, (layer, head) at all positions: answer minus foil."
        seen, rows = {}, []
        def reading(l):
            def fn(value): seen[l] = value.clone()
            return fn
        reads = [self.at(m, side, reading(l)) for l, m in enumerate(modules)]; self.answer(clean)
        for r in reads: r.remove()
        for l, module in enumerate(modules):
            width = seen[l].shape[-1] // heads if heads else 0
            places = [(0, slice(None), slice(h * width, (h + 1) * width)) for h in range(heads)] if heads else [(0, p) for p in range(seen[l].shape[1])]
            for place in places:
                def write(value): new = value.clone(); new[place] = seen[l][place]; return new
                handle = self.at(module, side, write); rows.append(self.answer(corrupt)); handle.remove()
        return torch.tensor(rows, dtype=torch.float64).view(len(modules), -1)


def compared(shape: str) -> list:
    "One row for each grid of a family: cells, the largest difference of any from its hooked pass, and how far cells move the answer at all."
    from workbench.lm.load import load
    from workbench.patching.pairs import Pairs
    from workbench.patching.patch import patch
    made = shapes.model(shape); lm, hooks = load(shapes.twin(made, made.config._attn_implementation), check=False), Hooked(made)
    clean = torch.arange(3, 3 + LENGTH)[None]; corrupt = clean.clone(); corrupt[0, DIFFERS] = 60; corrupt[0, -2] = 61
    pairs = Pairs.of(lm, clean=clean, corrupt=corrupt, answers=[ANSWER], foils=[FOIL], **({"targets": [list(TARGETS)]} if hooks.decoder else {})); rows = []
    for (site, by), (modules, side) in GRIDS[shape].items():
        dims = lm.shapes[site.split(".")[0] if hooks.decoder else None]; heads = 0 if "pos" in by else dims.n_kv_heads if "kv" in by else dims.n_heads
        ours = patch(lm, pairs, site, by); got = torch.as_tensor(ours.logit_difference.isel(site=0, prompt=0).values)
        want = hooks.grid(modules(hooks.model), side, heads, clean, corrupt)
        rows.append(dict(group="cells", shape=shape, library="workbench", job=f"{site} by {by}", site=site, by=by, cells=got.numel(), error=float((got - want).abs().max()), moved=float(want.max() - want.min()), way=ours.attrs["exactness"].split(":")[0]))
    return rows
