"""A page for each report: what it asks for, how it is called, and one that was run with small parameters."""
import html, json, shutil
from pathlib import Path

from .page import Page, plain
from .prose import Site, prose, rel
from .reference import code

SMALL = {"tour": {}, "attention": {"n": 24}, "patching": {"n": 24}, "features": {"steps": 300, "n": 120}, "fact_recall": {"n": 60, "n_train": 30},
         "illusion_debate": {"n": 40, "steps": 120, "draws": 50}, "persuasion": {"n": 4, "draws": 199}, "teacher": {"n": 80, "demos": 60}, "donor_game": {"n": 12, "generations": 6}}


def run(name: str, cache: Path):
    "The example, made or found by its key."
    from workbench.reporting.run import run as run_report
    done = run_report(name, SMALL.get(name, {}), out=cache)
    for old in (cache/name).iterdir():
        if old != done.folder and not old.name.startswith("."): shutil.rmtree(old)       # of a package that has changed since
    return done


def table(report) -> str:
    "The parameters."
    from workbench.reporting.catalogue import default_text
    rows = "".join(f'<tr><th scope="row" id="{p.name}"><code>{p.name}</code></th><td>{html.escape(p.says)}</td><td><code>{html.escape(default_text(p))}</code></td><td>{html.escape(p.help)}</td></tr>' for p in report.params.values())
    return f'<div class="wide"><table class="params"><thead><tr><th>Parameter</th><th>Type</th><th>Default</th><th>What it is</th></tr></thead><tbody>{rows}</tbody></table></div>'


def words(report) -> list[tuple]:
    "Its own headings and prose, for the search."
    out = []
    for cell in (c for c in report.notebook["cells"] if c["cell_type"] == "markdown"):
        text = "".join(cell["source"]); lines = text.splitlines()
        head = next((l.lstrip("# ") for l in lines if l.startswith("##")), "")
        said = plain(" ".join(l for l in lines if not l.startswith("#")))
        if head: out.append(["heading", "example", head, said])
        elif out: out[-1][3] += " " + said
    return [tuple(t) for t in out]


def page(name: str, site: Site, done=None) -> Page:
    "A report's page; `done` is its example."
    from workbench.reporting.catalogue import describe, minutes_text
    report = describe(name); here = f"reports/{name}.html"
    given = SMALL.get(name, {})
    first = next((p for p in report.params.values() if p.name in ("n", "model", "agents", "generations")), next(iter(report.params.values())))
    flags = " ".join(f"-p {k}={v}" for k, v in (given or {first.name: json.loads(json.dumps(first.default))}).items())
    shell = f"workbench report {name}\nworkbench report {name} {flags}\nworkbench report {name} --help"
    python = f'import workbench as wb\n\ndone = wb.reports.run("{name}", {given!r})\ndone.result, done.page'
    keys = [*(done.result or {}), *done.data] if done else []
    gives = f'<p>Its result has {", ".join(f"<code>{html.escape(k)}</code>" for k in keys)}. Values come back with <code>done["{html.escape(keys[0])}"]</code>; tables and arrays are files beside the page.</p>' if keys else ""
    shown = (f'<h2 id="example">One that was run</h2><p>With {", ".join(f"<code>{k}={v}</code>" for k, v in given.items()) or "its defaults"}, in {done.record.get("cpu_seconds") or done.record.get("seconds", 0):.0f} s of processor time. This is the page that the run left. '
             f'<a href="../runs/{name}.html">Open it alone</a>.</p><iframe class="run" loading="lazy" title="The report {html.escape(report.title)}, run" src="../runs/{name}.html"></iframe>') if done else ""
    takes = f"Takes about {minutes_text(report.minutes)} with its defaults on two cores." if report.minutes else ""
    body = (f'<h1>{html.escape(report.title)}</h1><p class="lead">{prose(report.line, site, here).strip().removeprefix("<p>").removesuffix("</p>")}</p><p class="about">Report <code>{name}</code>. {takes}</p>'
            f'<h2 id="call">How to run it</h2><pre class="wb-code"><code>{html.escape(shell)}</code></pre><pre class="wb-code"><code>{code(python)}</code></pre>{gives}'
            f'<h2 id="parameters">What it asks for</h2>{table(report)}{shown}')
    notes = " ".join(f"{p.name}: {p.help}" for p in report.params.values())
    contents = [(2, "call", "How to run it"), (2, "parameters", "What it asks for")] + ([(2, "example", "One that was run")] if done else [])
    return Page(here, report.title, report.line, body, contents, "reports", [("page", "", f"{report.title} ({name})", report.line), ("heading", "parameters", f"{name}: parameters", notes), *(words(report) if done else [])], "report", True)


def overview(pages: list[Page]) -> Page:
    "All reports."
    line = "A report is a notebook with parameters. A run leaves a page that needs no network, the executed notebook, its tables and arrays, and a record of where it came from."
    one = lambda p: f'<article class="card"><h2 id="{Path(p.path).stem}"><a href="{rel(p.path, "reports/index.html")}">{html.escape(p.title)}</a></h2><p>{html.escape(p.line)}</p><p class="about"><code>workbench report {Path(p.path).stem}</code></p></article>'
    body = f'<h1>Reports</h1><p class="lead">{line}</p><div class="cards">{"".join(map(one, pages))}</div>'
    return Page("reports/index.html", "All reports", line, body, [], "reports", [("page", "", "All reports", line)], "report", True)
