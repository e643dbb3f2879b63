"""The promises, and whether the measured rows keep them."""

NOTHING, ALL = 1.15, 2.0


def _one(rows, **want): return next(r for r in rows if all(r.get(k) == v for k, v in want.items()))


def bars(rows: list) -> list:
    "`[{claim, value, bar, ok}]` for everything that is promised."
    ours = dict(library="workbench", group="forward"); found = []
    def add(claim, value, bar, above=False): found.append(dict(claim=claim, value=value, bar=bar, ok=value >= bar if above else value <= bar))
    for shape in ("thin", "gpt2", "llama"):
        add(f"{shape}: a run that keeps nothing, times a plain forward pass, at most", _one(rows, **ours, shape=shape, job="nothing kept")["ratio"], NOTHING)
        add(f"{shape}: a run that keeps every residual and pattern, times a plain forward pass, at most", _one(rows, **ours, shape=shape, job="every residual and pattern")["ratio"], ALL)
        add(f"{shape}: largest difference of logits from transformers when nothing is kept, at most", _one(rows, **ours, shape=shape, job="nothing kept")["error"], 1e-5)
    for job in ("keep_one", "keep_last", "keep_value"):
        row = _one(rows, group="memory", library="Workbench", job=job)
        add(f"memory: bytes held, over the bytes of {row['what']}, at most", row["held_bytes"] / row["site_bytes"], 1.0)
    lens = _one(rows, group="patching", library="transformer-lens"); shared, alone = (_one(rows, group="patching", job=f"workbench resume, {j} shared") for j in ("10 of 15 tokens", "nothing"))
    add("patching: CPU time of TransformerLens' grid over ours (prompts that share 10 of 15 tokens), at least", lens["cpu_ms_median"] / shared["cpu_ms_median"], 10, above=True)
    add("patching: CPU time of one hooked pass a cell over ours when nothing is shared, at least", 1 / alone["ratio"], 5, above=True)
    add("patching: largest error over all cells and logits, at most", max(shared["error"], alone["error"]), 1e-5)
    add("imports: CPU seconds of `import workbench`, at most", _one(rows, group="imports", job="import workbench")["cpu_s_median"], 0.5)
    return found
