"""Grids of patched activations as each library makes them, to the same numbers: every layer x position of `resid_pre`, every layer x head of `z` at all positions."""
import contextlib
import copy
import io

import torch

import contenders
import shapes

LENGTH, SHARED, ANSWER, FOIL = 15, 10, 5, 6


def prepare(device: str, dtype: str, shape: str = "gpt2"):
    "Put the measured model on a device, in a dtype; every contender shares its tensors."
    shapes.model(shape).to(device, getattr(torch, dtype))


def pair(differs_at: int, shape: str = "gpt2"):
    "Clean and corrupted ids (1, pos) that agree before `differs_at` and differ there only."
    clean = shapes.ids(shape, length=LENGTH); corrupt = clean.clone()
    corrupt[0, differs_at] = 999
    device = next(shapes.model(shape).parameters()).device
    return clean.to(device), corrupt.to(device)


def difference(logits): return logits[0, -1, ANSWER] - logits[0, -1, FOIL]


class Hooks:
    "One forward pass per cell with a torch hook on a transformers model. `exact`: on a float32 copy of the same weights, what every way is compared with."
    def __init__(self, shape, exact=False): self.model = contenders.Plain(shape, cache=False).model if not exact else copy.deepcopy(shapes.model(shape)).float()

    def cell(self, module, change, corrupt):
        def hook(module, args, kwargs): return (change(args[0].clone()), *args[1:]), kwargs
        handle = module.register_forward_pre_hook(hook, with_kwargs=True)
        try: return difference(self.model(corrupt, use_cache=False).logits)
        finally: handle.remove()

    @torch.no_grad()
    def residual(self, clean, corrupt):
        states = self.model(clean, use_cache=False, output_hidden_states=True).hidden_states; cells = []
        for layer, block in enumerate(self.model.transformer.h):
            for pos in range(LENGTH):
                def change(x): x[:, pos] = states[layer][:, pos]; return x
                cells.append(self.cell(block, change, corrupt))
        return torch.stack(cells).view(-1, LENGTH)

    @torch.no_grad()
    def heads(self, clean, corrupt):
        outs, cells, n = [b.attn.c_proj for b in self.model.transformer.h], [], self.model.config.n_head; kept, d = {}, self.model.config.n_embd // n
        handles = [o.register_forward_pre_hook(lambda m, a: kept.__setitem__(m, a[0])) for o in outs]
        self.model(clean, use_cache=False)
        for h in handles: h.remove()
        for out in outs:
            for head in range(n):
                at = slice(head * d, (head + 1) * d)
                def change(x): x[..., at] = kept[out][..., at]; return x
                cells.append(self.cell(out, change, corrupt))
        return torch.stack(cells).view(-1, n)


class Workbench:
    "`workbench.patching.patch`, the whole call: both runs, all cells, the labelled result. `counted`: its multiply-adds, in forward passes of one prompt."
    def __init__(self, shape): self.lm, self.counted = contenders.Workbench(shape).lm, None

    def __call__(self, clean, corrupt, **what):
        from workbench.patching.pairs import Pairs
        from workbench.patching.patch import patch
        grid = patch(self.lm, Pairs.of(self.lm, clean=clean, corrupt=corrupt, answers=[ANSWER], foils=[FOIL]), **what)
        self.counted = grid.attrs["forward_equivalents"]
        return torch.as_tensor(grid.logit_difference.isel(site=0, prompt=0).values)

    def residual(self, clean, corrupt): return self(clean, corrupt, sites="resid_pre", by="layer pos")
    def heads(self, clean, corrupt): return self(clean, corrupt, sites="z", by="layer head")


class Lens:
    "TransformerLens `patching.get_act_patch_resid_pre` and `get_act_patch_attn_head_out_all_pos`, after `run_with_cache`."
    def __init__(self, shape): self.bridge = contenders.Lens(shape).bridge

    @torch.no_grad()
    def __call__(self, grid, clean, corrupt):
        from transformer_lens import patching
        _, cache = self.bridge.run_with_cache(clean)
        with contextlib.redirect_stderr(io.StringIO()): return torch.as_tensor(getattr(patching, grid)(self.bridge, corrupt, cache, difference))   # its progress bar

    def residual(self, clean, corrupt): return self("get_act_patch_resid_pre", clean, corrupt)
    def heads(self, clean, corrupt): return self("get_act_patch_attn_head_out_all_pos", clean, corrupt)


class NNsight:
    "nnsight: its recipe with the clean states kept from one trace; cell by cell, or one invoke a position in one trace a layer."
    def __init__(self, shape): self.model = contenders.NNsight(shape).fast

    def states(self, clean):
        import nnsight
        with self.model.trace(clean):
            states = nnsight.save([])
            for block in self.model.transformer.h:
                states.append(block.input.clone())
        return states

    @torch.no_grad()
    def looped(self, clean, corrupt):
        cells, states = [], self.states(clean)
        for block, state in zip(self.model.transformer.h, states):
            for pos in range(LENGTH):
                with self.model.trace(corrupt):
                    block.input[:, pos] = state[:, pos]
                    logits = self.model.output.logits.save()
                cells.append(difference(logits))
        return torch.stack(cells).view(-1, LENGTH)

    @torch.no_grad()
    def batched(self, clean, corrupt):
        import nnsight
        layers, states = [], self.states(clean)
        for block, state in zip(self.model.transformer.h, states):
            with self.model.trace() as tracer:
                cells = nnsight.save([])
                for pos in range(LENGTH):
                    with tracer.invoke(corrupt):
                        block.input[:, pos] = state[:, pos]
                        cells.append(self.model.output.logits[0, -1])
            layers.append(torch.stack([c[ANSWER] - c[FOIL] for c in cells]))
        return torch.stack(layers)


RESIDUAL, HEADS = "12 x 15 residual", "12 x 12 heads"


def ways(shape: str, peers: bool = True) -> dict:
    "`{(grid, tokens shared): {way: call}}`. Whole passes cost the same whatever the prompts share, so who makes them is timed once."
    ours, hooks = Workbench(shape), Hooks(shape)
    found = {(RESIDUAL, SHARED): {"hooks": hooks.residual, "workbench patch": ours.residual}, (RESIDUAL, 0): {"workbench patch": ours.residual},
             (HEADS, SHARED): {"workbench patch": ours.heads}, (HEADS, 0): {"workbench patch": ours.heads}}
    if not peers: return found
    lens, nn = Lens(shape), NNsight(shape)
    found[RESIDUAL, SHARED] |= {"transformer-lens get_act_patch_resid_pre": lens.residual, "nnsight, cell by cell": nn.looped, "nnsight, 15 invokes a trace": nn.batched}
    found[HEADS, SHARED]["transformer-lens get_act_patch_attn_head_out_all_pos"] = lens.heads
    return found


def reference(name: str, shared: int, shape: str):
    "The grid by hooked passes, in float32."
    hooks = Hooks(shape, exact=True)
    return (hooks.residual if name == RESIDUAL else hooks.heads)(*pair(shared, shape)).double().cpu()
