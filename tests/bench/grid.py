"""Activation patching over every layer and position, four ways, to the same numbers."""
import contextlib
import io

import torch

import contenders
import shapes

LENGTH = 15


def pair(differs_at: int):
    "Clean and corrupted ids (1, pos) that agree before `differs_at` and differ there only."
    clean = shapes.ids("gpt2", length=LENGTH); corrupt = clean.clone()
    corrupt[0, differs_at] = 999
    return clean, corrupt


class Hooks:
    "One forward pass per cell with a torch hook on a transformers model: the reference."
    def __init__(self): self.model = contenders.Plain("gpt2", cache=False).model

    @torch.no_grad()
    def __call__(self, clean, corrupt, differs_at):
        blocks, cells = self.model.transformer.h, []
        states = self.model(clean, use_cache=False, output_hidden_states=True).hidden_states
        for layer, block in enumerate(blocks):
            for pos in range(LENGTH):
                def hook(module, args, kwargs):
                    x = args[0].clone(); x[:, pos] = states[layer][:, pos]
                    return (x, *args[1:]), kwargs
                handle = block.register_forward_pre_hook(hook, with_kwargs=True)
                cells.append(self.model(corrupt, use_cache=False).logits[0, -1]); handle.remove()
        return torch.stack(cells).view(len(blocks), LENGTH, -1)


class Resume:
    "`lm.resume`: cells join the batch at their layer, and positions before the first difference come from the corrupted run."
    def __init__(self): self.lm = contenders.Workbench("gpt2").lm

    def __call__(self, clean, corrupt, differs_at):
        from workbench.lm.sites import Site
        at = [Site("resid_pre", layer=l) for l in range(self.lm.n_layers)]
        source, base = self.lm.run(clean, keep="resid_pre"), self.lm.snapshot(corrupt)
        n, rows = LENGTH - differs_at, {}
        for l, site in enumerate(at):
            rows[l] = base.run.tensor(site)[:, differs_at:].repeat(n, 1, 1)
            rows[l][range(n), range(n)] = source.tensor(site)[0, differs_at:]
        first = rows.pop(0)
        got = self.lm.resume(first, 0, prefix=base.prefix(differs_at), joins=rows, logits_at=[n - 1])[:, 0].view(len(at), n, -1)
        same = base.run.last_logits.expand(len(at), differs_at, -1)             # nothing to patch where the prompts agree
        return torch.cat([same, got], 1)


class LensGrid:
    "TransformerLens `patching.get_act_patch_resid_pre`."
    def __init__(self): self.bridge = contenders.Lens("gpt2").bridge

    @torch.no_grad()
    def __call__(self, clean, corrupt, differs_at):
        from transformer_lens import patching
        _, cache = self.bridge.run_with_cache(clean)
        seen = []
        def metric(logits): seen.append(logits[0, -1]); return logits[0, -1, 5] - logits[0, -1, 6]
        with contextlib.redirect_stderr(io.StringIO()): patching.get_act_patch_resid_pre(self.bridge, corrupt, cache, metric)   # its progress bar
        return torch.stack(seen[-len(self.bridge.blocks) * LENGTH:]).view(len(self.bridge.blocks), LENGTH, -1)


class NNsightGrid:
    "nnsight, the batched form of its recipe: one trace a layer, one invoke a position."
    def __init__(self): self.model = contenders.NNsight("gpt2").fast

    @torch.no_grad()
    def __call__(self, clean, corrupt, differs_at):
        import nnsight
        blocks = self.model.transformer.h
        with self.model.trace(clean):
            states = nnsight.save([])
            for block in blocks:
                states.append(block.input.clone())
        layers = []
        for block, state in zip(blocks, states):
            with self.model.trace() as tracer:
                cells = nnsight.save([])
                for pos in range(LENGTH):
                    with tracer.invoke(corrupt):
                        block.input[:, pos] = state[:, pos]
                        cells.append(self.model.output.logits[0, -1])
            layers.append(torch.stack(list(cells)))
        return torch.stack(layers)


def jobs() -> tuple:
    "`({name: job}, errors)`; every job runs the grid and notes in `errors` its largest difference, over all cells and logits, from the reference."
    hooks, ours, lens, nn = Hooks(), Resume(), LensGrid(), NNsightGrid()
    late, early = (*pair(10), 10), (*pair(0), 0)
    want, errors = {0: hooks(*early)}, {}
    def reference(): want[10] = hooks(*late)
    def compared(name, way, given):
        def job():
            got = way(*given)
            if given[2] in want: errors[name] = float((got - want[given[2]]).abs().max())
        return job
    others = {"workbench resume, 10 of 15 tokens shared": (ours, late), "workbench resume, nothing shared": (ours, early),
              "transformer-lens get_act_patch_resid_pre": (lens, late), "nnsight, 15 invokes a trace": (nn, late)}
    return {"hooks": reference} | {name: compared(name, *job) for name, job in others.items()}, errors
