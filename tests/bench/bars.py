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
    add("imports: CPU seconds of `import workbench`, at most", _one(rows, group="imports", job="import workbench")["cpu_s_median"], 0.5)
    return found + patching_bars(rows) + widget_bars(rows) + feature_bars(rows) + recovery_bars(rows) + report_bars(rows)


def patching_bars(rows: list) -> list:
    "How many times the CPU time of a grid in TransformerLens is that of ours, what ours costs in plain passes, and how far its cells are from hooked passes. Times are the best of the rounds."
    mine = lambda grid, shared, library="workbench": _one(rows, group="patching", grid=grid, shared=shared, library=library)
    times = lambda grid, shared: mine(grid, 10, "transformer-lens")["cpu_ms_best"] / mine(grid, shared)["cpu_ms_best"]     # whole passes cost the same whatever is shared
    most = lambda claim, value, bar: dict(claim=f"patching: {claim}, at most", value=value, bar=bar, ok=value <= bar)
    least = lambda claim, value, bar: dict(claim=f"patching: CPU time in TransformerLens over ours, {claim}, at least", value=value, bar=bar, ok=value >= bar)
    residual, heads, exact = "12 x 15 residual", "12 x 12 heads", [r for r in rows if r["group"] == "patching" and r["library"] == "workbench"]
    return [least("12 layers x 15 positions, prompts share 10 of 15 tokens", times(residual, 10), 25), most("CPU time of that grid in forward passes of one prompt", mine(residual, 10)["forwards"], 6),
            least("the same when nothing is shared", times(residual, 0), 6), least("12 layers x 12 heads at all positions, 10 of 15 tokens shared", times(heads, 10), 10),
            most("largest error of any cell, edge or preview from hooked passes or TransformerLens, GPT-2 small shape", max(r["error"] for r in exact), 1e-5),
            most("largest error of any cell from its own hooked pass, five families", max(r["error"] for r in rows if r["group"] == "cells"), 1e-5)]


LEAST = {("topk", "128x8"): 2.9, ("topk", "512x8"): 2.7, ("topk", "128x32"): 6, ("topk", "512x32"): 3.6, ("batchtopk", "128x8"): 4}     # times sae-lens' step


def feature_bars(rows: list) -> list:
    "How many times the CPU time of a training step elsewhere is that of ours."
    of = lambda kind, size, library, dead=0: _one(rows, group="features", kind=kind, size=size, library=library, dead=dead)
    found = [dict(claim=f"dictionaries: CPU time of a {k} step in sae-lens over ours, {s}, at least", value=1 / of(k, s, "workbench")["ratio"], bar=bar, ok=1 / of(k, s, "workbench")["ratio"] >= bar) for (k, s), bar in LEAST.items()]
    for size in ("128x8", "128x32", "512x8", "512x32"):
        times = of("topk", size, "sparsify")["ratio"] / of("topk", size, "workbench")["ratio"]; found.append(dict(claim=f"dictionaries: CPU time of a topk step in sparsify over ours, {size}, at least", value=times, bar=1.0, ok=times >= 1))
    return found


SCORES = {"mmcs": "mean of the true features' largest cosines (MMCS)", "found": "share of true features found (cosine above .9)"}


def recovery_bars(rows: list) -> list:
    "How much more of the worlds our dictionaries recover than the best peer's of the same kind, as means over worlds that both were trained on."
    trained = [r for r in rows if r["group"] == "recovery"]; found = []
    for kind in dict.fromkeys(r["kind"] for r in trained):
        of = lambda library: {r["seed"]: r for r in trained if (r["kind"], r["library"]) == (kind, library)}
        ours, peers = of("workbench"), [of(n) for n in dict.fromkeys(r["library"] for r in trained if r["library"] != "workbench")]
        for score, says in SCORES.items():
            gaps = [[ours[s][score] - p[s][score] for s in p if s in ours] for p in peers if p]; gap = min(sum(g) / len(g) for g in gaps)
            found.append(dict(claim=f"dictionaries: {kind}, {len(gaps[0])} worlds: {says}, ours less the best peer's, at least", value=gap, bar=0.0, ok=gap >= 0))
    return found


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


def report_bars(rows: list) -> list:
    "What the engine adds, how busy a sweep keeps the cores, how soon a gallery of a thousand runs is there."
    extra, busy, shown = (next(r for r in rows if k in r) for k in ("overhead", "busy", "load_ms_median"))
    return [dict(claim="reports: CPU time that the engine adds to bare nbclient, on a report of 20 s, at most", value=extra["overhead"], bar=.15, ok=extra["overhead"] <= .15),
            dict(claim=f"reports: share of {busy['cores']} cores that a sweep of 200 reports of nothing keeps busy, at least", value=busy["busy"], bar=.85, ok=busy["busy"] >= .85),
            dict(claim="reports: seconds until Chromium has drawn a gallery of 1,000 runs, median, at most", value=shown["load_ms_median"] / 1000, bar=2., ok=shown["load_ms_median"] <= 2000)]
