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
    return found + widget_bars(rows)


PEERS = {"circuitsvis": "CircuitsVis", "bertviz": "BertViz head_view"}
TIMES = {("bytes", 64): (10, 10), ("bytes", 256): (20, 30), ("bytes", 1024): (25, 50), ("paint", 64): (15, 5), ("paint", 256): (150, 40), ("paint", 1024): (200, 200),
         ("hover", 256): (15, 12)}   # at least so many times ours, for each peer: about half of what was measured


def widget_bars(rows: list) -> list:
    "What a page of twelve heads may cost, and how many times as much the peers' pages cost at least. A page that was given up counts as its limit."
    found, ours = [], {n: _one(rows, group="widgets", library="workbench", data="dense", tokens=n) for n in (64, 256, 1024)}
    def add(claim, value, bar, above=False): found.append(dict(claim=f"12 heads: {claim}", value=value, bar=bar, ok=value >= bar if above else value <= bar))
    add("MB of the page, 256 tokens, at most", ours[256]["html_bytes"] / 1e6, .6); add("MB of the page, 1024 tokens, at most", ours[1024]["html_bytes"] / 1e6, 9)
    add("CPU seconds until it is painted, 256 tokens, at most", ours[256]["paint_cpu_s"], .1)
    add("CPU ms of a hover, 95th percentile, 256 tokens, at most", ours[256]["hover_cpu_ms_p95"], 16)
    add("DOM nodes at any of three lengths, at most", max(r["dom_nodes"] for r in ours.values()), 500)
    add("requests that the page makes, errors in it, at most", sum(r["asked"] + len(r["page_errors"]) for r in ours.values()), 0)
    measures = {"bytes": lambda r: r["html_bytes"] + r["script_bytes"], "paint": lambda r: r.get("paint_cpu_s", r["limit_cpu_s"]), "hover": lambda r: r["hover_cpu_ms_p95"]}
    says = {"bytes": "bytes of {}'s page over ours", "paint": "CPU time of painting {} over ours", "hover": "CPU time of a hover (95th percentile) in {} over ours"}
    for (what, n), least in TIMES.items():
        for (name, title), bar in zip(PEERS.items(), least):
            peer = _one(rows, group="widgets", library=name, data="dense", tokens=n)
            add(f"{says[what].format(title)}, {n} tokens, at least", measures[what](peer) / measures[what](ours[n]), bar, above=True)
    return found
