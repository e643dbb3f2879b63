"""What a gallery of a thousand runs costs: CPU seconds to build it and to build it again, bytes, CPU of the page's main thread, milliseconds until a real Chromium shows it and until a search is answered.

`python tests/bench/gallery.py [RUNS]`. Runs are made up in the engine's format, with a heatmap, a table and fourteen results each. Load time is wall time from the navigation to
the moment at which the list is drawn (`performance.now()` when the page says it is ready, and the end of the next frame), in a fresh context each time."""
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

READY = """async () => { while (document.documentElement.dataset.ready !== 'true') await new Promise(r => setTimeout(r, 5));
  await new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r))); return performance.now() }"""
SEARCH = """async word => { const el = document.querySelector('input[type=search]'), said = document.querySelector('p.said'), start = performance.now(), before = said.textContent;
  el.value = word; el.dispatchEvent(new Event('input')); while (said.textContent === before) await new Promise(r => setTimeout(r, 1));
  await new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r))); return [performance.now() - start, said.textContent] }"""


def make(out: Path, n: int):
    "`n` runs of five reports."
    import numpy as np
    rng, kinds = np.random.default_rng(0), ("heads", "lens", "patching", "features", "tour")
    for i in range(n):
        z = rng.random((12, 12)).round(4).tolist(); kind = kinds[i % 5]; folder = out/kind/f"layer-{i}-{i:016x}"; folder.mkdir(parents=True)
        params = dict(model=("micro", "micro-llama")[i % 2], layer=i % 12, prompt="When Mary and John went to the store, John gave a drink to", n=40, metric="logit_difference", seed=i)
        result = dict(accuracy=float(rng.random()), best=f"L{i % 12}H{i % 8}", **{f"score {k}": float(rng.normal()) for k in range(12)})
        record = dict(format=2, report=kind, title=kind.title(), line="What it shows", status="failed" if i % 50 == 7 else "done", key=f"{i:016x}", started=f"2026-{i % 12 + 1:02d}-{i % 28 + 1:02d}T{i % 24:02d}:00:00+00:00", seconds=20. + i % 7,
                      cpu_seconds=8., peak_memory_bytes=7 * 10 ** 8, given=dict(layer=i % 12, seed=i), parameters=params, seed=i, models=[dict(parameter="model", name=params["model"], hash="0" * 16)], versions=dict(workbench="0.1.0", torch="2.13.0"), result=result, data={})
        table = "<table><thead><tr><th></th><th>effect</th></tr></thead>" + "".join(f"<tr><th>L{r}</th><td>{v}</td></tr>" for r, v in enumerate(z[0])) + "</table>"
        output = lambda **data: dict(output_type="display_data", metadata={}, data=data)
        cells = [dict(cell_type="markdown", metadata={}, source="## Grid"), dict(cell_type="code", metadata={}, source="draw()", outputs=[output(**{"application/vnd.plotly.v1+json": dict(data=[dict(type="heatmap", z=z)], layout=dict(title=dict(text=f"grid {i}")))}),
                                                                                                                                 output(**{"text/html": table})])]
        (folder/"run.json").write_text(json.dumps(record)); (folder/"report.ipynb").write_text(json.dumps(dict(cells=cells, metadata={}, nbformat=4, nbformat_minor=5))); (folder/"report.html").write_text("<title>run</title>")


def built(out: Path) -> tuple:
    from workbench.reporting.gallery import gallery
    start = time.process_time(); page = gallery(out)
    return page, time.process_time() - start


def opened(page: Path, rounds: int = 5) -> dict:
    "Milliseconds in a real Chromium, without a network."
    from playwright.sync_api import sync_playwright
    from browser import FLAGS, SIZE
    import shutil
    loads, works, searches = [], [], []
    with sync_playwright() as p:
        browser = p.chromium.launch(executable_path=os.environ.get("CHROMIUM") or shutil.which("chromium"), args=FLAGS)
        for _ in range(rounds):
            context = browser.new_context(viewport=SIZE, offline=True); tab = context.new_page(); tab.goto("data:text/html,")
            cdp = context.new_cdp_session(tab); cdp.send("Performance.enable", dict(timeDomain="threadTicks"))
            tab.goto(page.as_uri(), wait_until="commit"); loads.append(tab.evaluate(READY)); works.append(1000 * next(m["value"] for m in cdp.send("Performance.getMetrics")["metrics"] if m["name"] == "ThreadTime")); nodes = tab.evaluate("document.querySelectorAll('*').length")
            took, said = tab.evaluate(SEARCH, "lens micro-llama 2026-02"); searches.append(took); context.close()
        browser.close()
    return dict(load_ms_median=median(loads), load_ms_worst=max(loads), load_cpu_ms_median=median(works), search_ms_median=median(searches), dom_nodes=nodes, found=said, n=rounds)


def measure(shape=None, rounds: int = 5, runs: int = 1000) -> list:
    "One row."
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)/"runs"; make(out, runs); page, first = built(out); _, again = built(out)
        size = lambda pattern: sum(f.stat().st_size for f in (out/"_gallery").glob(pattern))
        return [dict(group="gallery", library="workbench", job=f"{runs} runs", runs=runs, build_cpu_s=first, again_cpu_s=again, index_bytes=page.stat().st_size, thumbs_bytes=size("thumbs/*"), details_bytes=size("runs/*")) | opened(page, rounds)]


if __name__ == "__main__": print(json.dumps(measure(runs=int(sys.argv[1]) if sys.argv[1:] else 1000)[0] | dict(load=[round(v, 1) for v in os.getloadavg()]), indent=1))
