"""Documentation without quarto: notebooks, reference, widgets and reports as pages that need no network.

    docs.py                     _docs/: every page, and README.md
    docs.py --readme            README.md only, from nbs/index.ipynb
    docs.py --check             look at every link of _docs/
    docs.py --only lm/sites tutorials --widgets Predict --reports --out DIR
                                notebooks (or folders) of nbs/, widgets and reports by name, and the reference of their modules
"""
import argparse, json, re, shutil, sys, time
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
ROOT = Path(__file__).resolve().parents[1]
NBS, OUT, CACHE = ROOT/"nbs", ROOT/"_docs", ROOT/"_proc"


def readme() -> None:
    "README.md from nbs/index.ipynb: its prose and code, its text outputs, its pictures by path."
    out = ["<!-- Written by `make docs` from nbs/index.ipynb: edit that. -->"]
    for cell in json.loads((NBS/"index.ipynb").read_text("utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown": out.append(re.sub(r"\]\((?!https?:|#)", "](nbs/", source).replace("](nbs/../", "]("))
        elif cell["cell_type"] == "code" and source.strip() and "#| hide" not in source:
            out.append(f"```python\n{source.strip()}\n```")
            texts = ["".join(o["data"]["text/plain"]) for o in cell.get("outputs", []) if "text/plain" in o.get("data", {})]
            if texts: out.append("```text\n" + "\n".join(texts) + "\n```")
    text = "\n\n".join(out) + "\n"
    if (ROOT/"README.md").read_text("utf-8") != text: (ROOT/"README.md").write_text(text, "utf-8")


def chosen(only: list[str] | None) -> list[Path]:
    "The notebooks that become pages: all, or those whose path begins with one of `only`."
    from manual.house import notebooks
    if only is None: return notebooks()
    bare = lambda p: "/".join(re.sub(r"^\d+[a-z]?_", "", part) for part in p.with_suffix("").parts)
    return [p for p in notebooks() if any((bare(p) + "/").startswith(o.strip("/") + "/") or p.as_posix() == o for o in only)]


def house(books: list[Path], cards: list, reports: list[str], whole: bool):
    "What can be linked to, before the pages are made."
    from manual.house import destination
    from manual.names import package, places
    from manual.page import module_of
    from manual.prose import Site
    modules = package(); site = Site(modules=modules, names=places(modules), whole=whole)
    site.pages = {f"nbs/{p.as_posix()}": destination(p) for p in books} | {f"reports/{n}.ipynb": f"reports/{n}.html" for n in reports}
    wanted = modules.values() if whole else [modules[m] for p in books if (m := module_of(json.loads((NBS/p).read_text("utf-8"))["cells"])) in modules]
    site.files = {*site.pages.values(), *(m.page for m in wanted), *(c.page for c in cards), *(["gallery/index.html"] if cards else []), *(["reports/index.html"] if reports else []), "api/index.html"}
    site.files |= {f"{p.parent.as_posix()}/index.html" for p in books if str(p.parent) != "."}
    return site, list(wanted)


def room(folder: str, pages: list):
    "The list of a room's lessons."
    from manual.house import part
    from manual.page import Page
    from manual.prose import rel
    import html
    here = f"{folder}/index.html"; title, line = part(folder)
    one = lambda p: f'<li><a href="{rel(p.path, here)}">{html.escape(p.title)}</a><p>{html.escape(p.line)}</p></li>'
    body = f'<h1>{html.escape(title)}</h1><p class="lead">{html.escape(line[:1].upper() + line[1:])}</p><ul class="lessons">{"".join(map(one, pages))}</ul>'
    return Page(here, "Overview", line, body, [], folder, [("page", "", f"{title}: overview", line)])


def reference(site, wanted: list) -> list:
    "Pages of modules, and the list of all of them."
    from manual.reference import overview, page
    made = [page(m, site) for m in wanted]
    return [overview(site, wanted), *made]


def start(page, frame):
    "The landing page: where to begin, above what the README says."
    from manual.front import front
    return replace(page, body=front(page.body, frame), contents=[])


def build(out: Path = OUT, only: list[str] | None = None, widgets: list[str] | None = None, reports: list[str] | None = None, cache: Path = CACHE, say=lambda text: None) -> Path:
    "Write the site into `out`. None: all of them; a list: these."
    from manual import gallery, reports as runs, search
    from manual.page import notebook_page
    from manual.shell import Frame
    from workbench.reporting.catalogue import names as report_names
    whole, begun = only is None and widgets is None and reports is None, time.time()
    books = chosen(only); cards = [c for c in gallery.CARDS if widgets is None or c.name in widgets]; wanted_reports = [n for n in report_names() if reports is None or n in reports]
    part = out.with_name(out.name + ".part"); shutil.rmtree(part, ignore_errors=True); (part/"_static").mkdir(parents=True)
    site, modules = house(books, cards, wanted_reports, whole)
    if (NBS/"images").exists(): shutil.copytree(NBS/"images", part/"images"); site.files |= {f"images/{f.name}" for f in (NBS/"images").iterdir()}
    stems = gallery.made(cards, cache/"widgets"); say(f"{len(cards)} widgets, {time.time() - begun:.0f} s")
    done = {}
    for n in wanted_reports: done[n] = runs.run(n, cache/"runs"); say(f"report {n}, {time.time() - begun:.0f} s{', found' if done[n].cached else ''}")
    pages = [notebook_page(p, site) for p in books]; say(f"{len(pages)} notebooks, {time.time() - begun:.0f} s")
    folders = dict.fromkeys(p.folder for p in pages if p.folder)
    pages += [room(f, [p for p in pages if p.folder == f]) for f in folders if f"{f}/index.html" not in site.pages.values()]
    pages = sorted(pages, key=lambda p: p.title != "Overview" or not p.path.endswith("/index.html"))
    pages += ([gallery.overview(cards, site)] + [gallery.page(c, site, stems[c.name]) for c in cards]) if cards else []
    shown = [runs.page(n, site, done[n]) for n in wanted_reports]; pages += ([runs.overview(shown)] + shown) if shown else []
    pages += reference(site, modules); say(f"{len(modules)} modules, {time.time() - begun:.0f} s")
    frame = Frame(pages)
    write(part, pages, frame, {f"{n}.{k}.png": Path(f"{stem}.{k}.png") for n, stem in stems.items() for k in ("light", "dark")}, {n: d.page for n, d in done.items()})
    (part/"_static"/"nav.js").write_text(frame.data(), "utf-8"); (part/"_static"/"search.js").write_text(search.index(frame), "utf-8")
    shutil.rmtree(out, ignore_errors=True); part.rename(out)
    say(f"{len(pages)} pages, {sum(f.stat().st_size for f in out.rglob('*') if f.is_file()) / 2**20:.0f} MiB, search {(out/'_static'/'search.js').stat().st_size / 1024:.0f} KiB, {time.time() - begun:.0f} s")
    return out/"index.html"


def write(part: Path, pages: list, frame, pictures: dict, runs: dict) -> None:
    "Pages in their frame, styles and scripts, pictures of widgets, pages of runs."
    from workbench.reporting.page import static
    here = Path(__file__).resolve().parent/"manual"/"static"
    (part/"_static"/"site.css").write_text(static("page.css") + (here/"site.css").read_text("utf-8"), "utf-8")
    shutil.copy(here/"site.js", part/"_static"/"site.js")
    for page in pages:
        target = part/page.path; target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(frame.write(start(page, frame) if page.path == "index.html" else page), "utf-8")
    for name, file in pictures.items(): shutil.copy(file, part/"gallery"/name)
    for name, file in runs.items(): (part/"runs").mkdir(exist_ok=True); shutil.copy(file, part/"runs"/f"{name}.html")


def main() -> int:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--readme", action="store_true"); ask.add_argument("--check", action="store_true"); ask.add_argument("--out", type=Path, default=OUT)
    for name in ("only", "widgets", "reports"): ask.add_argument(f"--{name}", nargs="*")
    a = ask.parse_args()
    if a.check:
        from manual.check import main as check
        return check(a.out)
    if a.only is None and a.widgets is None and a.reports is None: readme()
    elif a.out == OUT: ask.error("a part of the site goes into a folder of its own: add --out DIR")
    if not a.readme:
        some = not (a.only is None and a.widgets is None and a.reports is None)
        print(build(a.out, *(v if not some else v or [] for v in (a.only, a.widgets, a.reports)), say=lambda text: print(text, flush=True)))
    return 0


if __name__ == "__main__": sys.exit(main())
