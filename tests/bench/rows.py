"""What is measured: groups of jobs that run side by side, each group one list of rows."""
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import torch

import browser
import contenders
import families
import grid
import memory
import pages
import previews
from shapes import ids
from timing import clock, scattered, summary, take_turns

REFERENCE = "transformers"


def _gap(got, want): return max(float((got[k] - want[k]).abs().max()) for k in want)


def forward(shape: str, repeats: int) -> list:
    "Reading and editing in one forward pass, against the plain forward pass."
    x = ids(shape); plain, uncached, eager = contenders.Plain(shape), contenders.Plain(shape, cache=False), contenders.Plain(shape, "eager")
    wb, lens, nn = contenders.Workbench(shape), contenders.Lens(shape), contenders.NNsight(shape)
    batch, logits = wb.lm.tokens(x), plain.forward(x)
    states, edited = wb.kept(wb.keep(x)), wb.forward_edited(x, 3, 1)
    jobs = {  # (library, job): (call, how its result is compared)
        (REFERENCE, "forward"): (lambda: plain.forward(x), lambda r: r - logits),
        (REFERENCE, "forward, use_cache=False"): (lambda: uncached.forward(x), lambda r: r - logits),
        (REFERENCE, "hidden states and attentions, eager"): (lambda: eager.outputs(x), lambda r: r.logits - logits),
        ("workbench", "nothing kept"): (lambda: wb.forward(x), lambda r: r - logits),
        ("workbench", "nothing kept, tokens prepared"): (lambda: wb.lm.run(batch), lambda r: r.logits_tensor - logits),
        ("workbench", "every residual and pattern"): (lambda: wb.keep(x), lambda r: wb.kept(r)["logits"] - logits),
        ("workbench", "one head's z zeroed"): (lambda: wb.forward_edited(x, 3, 1), lambda r: r - edited),
        ("transformer-lens", "nothing kept"): (lambda: lens.forward(x), lambda r: r - logits),
        ("transformer-lens", "every residual and pattern"): (lambda: lens.keep(x), lambda r: _gap(lens.kept(r), states)),
        ("transformer-lens", "one head's z zeroed"): (lambda: lens.forward_edited(x, 3, 1), lambda r: r - edited),
        ("nnsight", "nothing kept"): (lambda: nn.forward(x), lambda r: r - logits),
        ("nnsight", "every residual and pattern"): (lambda: nn.keep(x), lambda r: _gap(nn.kept(r), states)),
        ("nnsight", "one head's z zeroed"): (lambda: nn.forward_edited(x, 3, 1), lambda r: r - edited)}
    errors = {name: float(torch.as_tensor(compare(job())).abs().max()) for name, (job, compare) in jobs.items()}
    times = summary(take_turns({name: job for name, (job, _) in jobs.items()}, repeats), (REFERENCE, "forward"))
    return [dict(group="forward", shape=shape, library=l, job=j, error=errors[l, j], **times[l, j]) for l, j in jobs]


def generation(shape: str, repeats: int, n: int = 20) -> list:
    "Twenty greedy tokens with one head's z zeroed at every step, against plain generation."
    x = ids(shape); plain, wb, lens, nn = (c(shape) for c in (contenders.Plain, contenders.Workbench, contenders.Lens, contenders.NNsight))
    want, edit = plain.generate(x, n), wb.generate_edited(x, n, 3, 1)
    jobs = {(REFERENCE, "20 tokens"): (lambda: plain.generate(x, n), want), ("workbench", "20 tokens"): (lambda: wb.generate(x, n), want)}
    jobs |= {(l, "20 tokens, one head's z zeroed"): (lambda c=c: c.generate_edited(x, n, 3, 1), edit) for l, c in (("workbench", wb), ("transformer-lens", lens), ("nnsight", nn))}
    same = {name: bool(torch.equal(job(), tokens)) for name, (job, tokens) in jobs.items()}
    times = summary(take_turns({name: job for name, (job, _) in jobs.items()}, repeats, warm=1), (REFERENCE, "20 tokens"))
    return [dict(group="generation", shape=shape, library=l, job=j, same_tokens=same[l, j], **times[l, j]) for l, j in jobs]


FORWARDS, OFTEN = 10, 3     # plain passes in one measurement; how often a round makes the short jobs


def _compared(key, got, results, shape, dtype) -> float:
    "The largest difference of any cell from the reference: hooked passes in float32; for edges, TransformerLens."
    name, shared = key; own = (name, shared, "hooks")
    if name == previews.EDGES: want = next((previews.edge_scores(r) for k, r in results.items() if k[0] == name and k[2].startswith("transformer-lens")), None)
    elif own in results and dtype == "float32": want = results[own]
    else: want = results.setdefault((name, shared, "float32"), grid.reference(name, shared, shape) if name != previews.HEADS else previews.Hooks(shape, exact=True).heads(*grid.pair(shared, shape)))
    return float("nan") if want is None else float((got.detach().double().cpu() - want.detach().double().cpu()).abs().max())


def patching(shape: str, repeats: int, device: str = "cpu", dtype: str = "float32", peers: bool = True) -> list:
    "Grids of patched residuals and heads, and first-order previews of them, each way of making them. On a GPU: wall time, the queue drained."
    grid.prepare(device, dtype, shape); plain, pairs, results, jobs = contenders.Plain(shape, cache=False), {n: grid.pair(n, shape) for n in (grid.SHARED, 0)}, {}, {}; counted = {}
    def made(key, way):
        def job(): results[key] = way(*pairs[key[1]]); counted[key] = getattr(way.__self__, "counted", None)
        return job
    for k, some in (grid.ways(shape, peers) | previews.ways(shape, peers)).items(): jobs |= {(*k, name): made((*k, name), way) for name, way in some.items()}
    calls = {k: OFTEN if k[2].startswith("workbench") or k[0] == previews.HEADS else 1 for k in jobs}
    def forward():
        for _ in range(FORWARDS): plain.forward(pairs[0][0])
    found = scattered(jobs | {"forward": forward}, calls | {"forward": OFTEN}, repeats, clock(device)); one = min(found.pop("forward")) / FORWARDS
    return [_grid_row(k, found, results, one, shape, device, dtype) | dict(multiply_adds=counted[k]) for k in jobs]


def _grid_row(key, found, results, one, shape, device, dtype) -> dict:
    "One way of making one grid: its time, beside hooks where they are timed and beside the peer or ours alone elsewhere."
    name, shared, way = key; own = [k for k in found if k[:2] == key[:2]]; first = next((k for k in own if k[2] == "hooks"), next((k for k in own if k[2].startswith("transformer-lens")), own[0]))
    got = previews.edge_scores(results[key]) if name == previews.EDGES else results[key]
    times = summary({way: found[key], first[2]: found[first]}, first[2])[way]
    if device != "cpu": times = {k.replace("cpu_ms", "wall_ms"): v for k, v in times.items()}
    return dict(group="patching", shape=shape, library=REFERENCE if way == "hooks" else way.split()[0].strip(","), grid=name, shared=shared, job=f"{name}, {shared} of {grid.LENGTH} tokens shared: {way}", way=way, device=device, dtype=dtype,
                error=_compared(key[:2], got, results, shape, dtype), cells=got.numel(), forwards=min(found[key]) / one, beside=first[2], **times)


def cells(shape: None, repeats: int) -> list:
    "Every cell of grids on five families against a hooked pass of its own."
    return [row for name in families.GRIDS for row in families.compared(name)]


def held(shape: str, repeats: int) -> list: return [dict(group="memory", shape=shape, **row) for row in memory.rows()]


IMPORTS = {"python alone": "pass", "import workbench": "import workbench", "import workbench; workbench.load": "import workbench; workbench.load",
           "import transformers, GPT2LMHeadModel": "from transformers import GPT2LMHeadModel", "import transformer_lens": "import transformer_lens", "import nnsight": "import nnsight"}


def imports(shape: None, repeats: int) -> list:
    "CPU seconds from the start of a fresh interpreter to the end of the import."
    times = {name: [] for name in IMPORTS}
    for _ in range(repeats):
        for name, code in IMPORTS.items():
            done = subprocess.run([sys.executable, "-c", f"{code}\nimport time; print(time.process_time())"], capture_output=True, text=True, check=True)
            times[name].append(float(done.stdout.splitlines()[-1]))
    return [dict(group="imports", shape=None, library=name, job=name, cpu_s_median=median(t), cpu_s_best=min(t), n=repeats) for name, t in times.items()]


SLOW = 5      # CPU seconds: a page that needs more than this is opened once


def _page_row(library: str, kind: str, length: int, runs: list) -> dict:
    "One row from the runs of one page: medians over the runs, quantiles over all their hovers."
    done, first = [r for r in runs if "stopped" not in r], runs[0]; hovers = [h for r in done for h in r["hovers"]]
    row = dict(group="widgets", shape=None, library=library, job=f"{kind}, {length} tokens", data=kind, tokens=length, heads=pages.HEADS, n=len(runs),
               **{k: first[k] for k in ("html_bytes", "script_bytes", "asked", "page_errors", "limit_cpu_s", "browser")})
    if not done: return row | dict(stopped=first["stopped"])
    row |= {k: median(r[k] for r in done) for k in ("paint_cpu_s", "painted_cpu_s", "painted_wall_s", "browser_cpu_s")} | {k: done[0][k] for k in ("dom_nodes", "colours")}
    for i, what in enumerate(("cpu", "wall")):
        if hovers: row |= {f"hover_{what}_ms_p{q}": browser.quantile([h[i] for h in hovers], q / 100) for q in (50, 95)}
    if opened := [h[0] for r in done for h in r["heads"]]: row |= dict(head_cpu_ms_p50=browser.quantile(opened, .5), heads_opened=len(opened))
    return row | dict(paint_cpu_s_low=min(r["paint_cpu_s"] for r in done), paint_cpu_s_high=max(r["paint_cpu_s"] for r in done), hovers=len(hovers))


def widgets(shape: None, repeats: int) -> list:
    "Twelve heads as one page of each library, in a Chromium of its own for each page; the contenders take turns."
    rng, rows = random.Random(0), []
    for kind, length in pages.PAGES:
        given, runs = pages.DATA[kind](length), {name: [] for name in pages.CONTENDERS}
        for _ in range(repeats):
            for name in rng.sample(list(runs), len(runs)):
                who = pages.CONTENDERS[name]
                if runs[name] and ("stopped" in runs[name][0] or runs[name][0]["paint_cpu_s"] > SLOW): continue
                runs[name].append(browser.measure(who.make(*given), who))
        rows += [_page_row(name, kind, length, r) for name, r in runs.items()]
    return rows


FEATURES = Path(__file__).parents[2] / "_bench" / ".features" / "bin" / "python"     # the environment of tests/golden/features/requirements.txt, where sae-lens lives


def _dictionaries(*given) -> list:
    "What `dictionaries.py` measures, in the environment of the libraries it measures."
    with tempfile.NamedTemporaryFile(suffix=".json") as out:
        python = os.environ.get("FEATURES_PYTHON", str(FEATURES)); subprocess.run([python, str(Path(__file__).with_name("dictionaries.py")), *map(str, given), "--out", out.name], check=True)
        return json.loads(Path(out.name).read_text())


def features(shape: None, repeats: int, device: str = "cpu", dtype: str = "float32") -> list:
    "One training step of a sparse dictionary in four libraries, on the same batch."
    return _dictionaries("steps", repeats, "--device", device, "--dtype", dtype)


BEST = ("sparsify topk", "dictionary-learning batchtopk", "sae-lens jumprelu")       # of the peers that train this kind, the one that recovers most


def recovery(shape: None, repeats: int) -> list:
    "What dictionaries of three kinds recover of `repeats` worlds whose features are known: ours, and the best peer's."
    return _dictionaries("recovery", ",".join(map(str, range(repeats))), *(f"workbench {n.split()[1]}" for n in BEST), *BEST)


def reports(shape: None, repeats: int) -> list:
    "What the engine adds to a report, how busy a sweep keeps the cores, and what a gallery of a thousand runs costs."
    import gallery
    import sweeps
    return [dict(library="workbench", **sweeps.overhead(20, repeats)), dict(library="workbench", **sweeps.busy(200)), *gallery.measure()]


def harvest(shape: None, repeats: int) -> list:
    "Activations of a text to disk, beside the model alone."
    done = subprocess.run([os.environ.get("FEATURES_PYTHON", str(FEATURES)), str(Path(__file__).with_name("harvesting.py")), str(2 ** 15)], check=True, capture_output=True, text=True)
    return [dict(job="32,768 tokens", shape=None, **r) for r in map(json.loads, done.stdout.splitlines())]


GROUPS = {"forward-thin": (forward, "thin", 15), "forward-llama": (forward, "llama", 11), "forward-gpt2": (forward, "gpt2", 7), "generation-thin": (generation, "thin", 7),
          "generation-llama": (generation, "llama", 7), "patching": (patching, "gpt2", 2), "cells": (cells, None, 1), "memory": (held, "wide", 1), "imports": (imports, None, 3), "widgets": (widgets, None, 3),
          "features": (features, None, 7), "recovery": (recovery, None, 2), "reports": (reports, None, 3), "harvest": (harvest, None, 1)}
