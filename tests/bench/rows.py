"""What is measured: groups of jobs that run side by side, each group one list of rows."""
import json
import subprocess
import sys
from statistics import median

import torch

import contenders
import grid
import memory
from shapes import SHAPES, ids
from timing import summary, take_turns

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


def patching(shape: str, repeats: int) -> list:
    "A 12 x 15 grid of patched residuals, against one hooked forward pass per cell."
    jobs, errors = grid.jobs()
    plain, x = contenders.Plain(shape, cache=False), ids(shape, length=grid.LENGTH)
    jobs["one forward pass"] = lambda: [plain.forward(x) for _ in range(10)]
    times = summary(take_turns(jobs, repeats, seconds=0, warm=0), "hooks")
    one = times.pop("one forward pass")["cpu_ms_median"] / 10
    return [dict(group="patching", shape=shape, library=REFERENCE if name == "hooks" else name.split()[0].strip(","), job=name, error=errors.get(name, 0.0), forwards=t["cpu_ms_median"] / one, **t) for name, t in times.items()]


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


GROUPS = {"forward-thin": (forward, "thin", 15), "forward-llama": (forward, "llama", 11), "forward-gpt2": (forward, "gpt2", 7), "generation-thin": (generation, "thin", 7),
          "generation-llama": (generation, "llama", 7), "patching": (patching, "gpt2", 3), "memory": (held, "wide", 1), "imports": (imports, None, 3)}
