"""A page before it has its frame, and how one is made from a notebook."""
import html, json, re
from dataclasses import dataclass, field
from pathlib import Path

from .house import NBS, ROOT
from .prose import Site, linked_pages, named_notebooks, prose, rel, slug

HIDDEN = re.compile(r"^#\| *(hide|hide_input)\b", re.M)


@dataclass
class Page:
    "What stands on a page, and what the search knows of it."
    path: str                  # lm/sites.html
    title: str
    line: str                  # what it is about, as plain text
    body: str
    contents: list             # (level, anchor, title as HTML)
    folder: str                # lm
    texts: list                # (kind, anchor, title, text) of its parts, for the search
    note: str = ""             # reference, tutorial ...
    wide: bool = False         # no column of contents beside it


@dataclass
class Reader:
    "A notebook while it becomes a page."
    site: Site
    here: str
    source: str                # nbs/lm/01_sites.ipynb
    module: str                # workbench.lm.sites, or ""
    parts: object = None       # reporting.page.Parts
    texts: list = field(default_factory=list)
    taken: set = field(default_factory=set)        # anchors beside those of headings

    def note(self, body: str):
        "Keep prose for the search, under the heading above it."
        for piece in re.split(r"(?=<h[1-3] id=)", body):
            head = re.match(r'<h([1-3]) id="([^"]*)">(.*?)</h\1>', piece, re.S)
            if head: self.texts.append(["heading" if head[1] != "1" else "page", head[2] if head[1] != "1" else "", plain(head[3]), ""]); piece = piece[head.end():]
            if self.texts and (said := plain(piece)): self.texts[-1][3] = (self.texts[-1][3] + " " + said).strip()

    def markdown(self, source: str) -> str:
        from workbench.reporting.page import with_anchors
        if source.startswith("<!-- teacher -->"): return ""
        body = with_anchors(prose(source, self.site, self.here, self.module, self.source), self.parts); self.note(body)
        return f'<div class="wb-prose">{body}</div>'

    def exported(self, source: str) -> str:
        "Code of the package: what it says about itself, its text folded below."
        from .reference import code, entry
        known = self.site.modules[self.module].names if self.module in self.site.modules else {}
        found = [known[n] for n in re.findall(r"^(?:async )?(?:def|class) (\w+)", source, re.M) if n in known]
        bare = "\n".join(line for line in source.splitlines() if not line.startswith("#|")).strip()
        if not re.sub(r"^(?:from|import) .*$|^\s.*$|^\)$|^#.*$", "", bare, flags=re.M).strip(): return ""      # imports only
        link = lambda n, body: re.sub(rf"\b{n.name}\b", f'<a href="{rel(to, self.here)}" title="Reference">{n.name}</a>', body, count=1) if (to := self.site.api(self.module, n.name)) else body
        said = "".join(f'<div class="own">{link(n, entry(n, self.site, self.here, False))}</div>' for n in found)
        kind = "Source" if found else "Code of the package"
        return said + f'<details class="source"><summary>{kind}</summary><pre><code>{code(bare)}</code></pre></details>'

    def code(self, cell: dict, source: str) -> str:
        from workbench.reporting.page import code_html, output_html
        if HIDDEN.search(source) or re.search(r"^#\| *default_exp", source, re.M) and not re.search(r"^#\| *export", source, re.M): return ""
        if re.search(r"^#\| *export", source, re.M): return self.exported(source)
        shown = "\n".join(line for line in source.splitlines() if not line.startswith("#|")).strip()
        code = f'<pre class="wb-code"><code>{code_html(shown)}</code></pre>' if shown else ""
        outputs = "".join(output_html(tidy(o), self.parts) for o in cell.get("outputs", []))
        if ".ipynb" in outputs: outputs = named_notebooks(linked_pages(outputs, self.site, self.here, self.source), self.site, self.here)       # a table of links that a cell made
        if self.here.startswith("guide/"): outputs = self.entries(outputs)
        return code + (f'<div class="wb-output">{outputs}</div>' if outputs else "")

    def entries(self, body: str) -> str:
        "Terms and rows that a cell of the guide wrote get an anchor each, and are found by the search."
        def one(m):
            title = plain(m[2] or m[4]); anchor = slug(title); text = plain(m[3] or re.sub(r"</td>\s*<td>", " · ", m[5])).strip(": ")
            if not title or anchor in self.taken: return m[0]
            self.taken.add(anchor); self.texts.append(["heading", anchor, title, text])
            return m[0].replace("<p>", f'<p id="{anchor}">', 1) if m[2] else m[0].replace("<tr>", f'<tr id="{anchor}">', 1)
        self.taken |= {a for _, a, _ in self.parts.contents}
        return re.sub(r"(<p><strong>([^<]+)</strong>:(.*?)</p>)|<tr>\s*<td>(.*?)</td>(\s*<td>.*?)</tr>", one, body, flags=re.S)

    def cell(self, cell: dict) -> str:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown" and source.strip(): return self.markdown(source)
        return self.code(cell, source) if cell["cell_type"] == "code" and (source.strip() or cell.get("outputs")) else ""


def tidy(output: dict) -> dict:
    "An output without what nbdev or a kernel left in it."
    text = output.get("data", {}).get("text/markdown")
    return output | {"data": output["data"] | {"text/markdown": re.sub(r"\{target=.*?\}", "", "".join(text))}} if text else output


def plain(body: str) -> str:
    "The words of a piece of HTML, without code blocks and formulas."
    body = re.sub(r"<(pre|script|style|math)\b.*?</\1>", " ", body, flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", re.sub(r"</?(?:code|em|strong|a|span|b|i)\b[^>]*>", "", body))).split())


def module_of(cells: list[dict]) -> str:
    "The module a notebook writes."
    found = next((m[1] for c in cells if (m := re.search(r"^#\| *default_exp +([\w.]+)", "".join(c["source"]), re.M))), "")
    return f"workbench.{found}" if found else ""


def heading(cells: list[dict]) -> tuple[str, str]:
    "Title and line of a notebook."
    text = next(("".join(c["source"]) for c in cells if c["cell_type"] == "markdown" and re.search(r"^# ", "".join(c["source"]), re.M)), "")
    title, line = re.search(r"^# +(.+)$", text, re.M), re.search(r"^> +(.+(?:\n> ?.+)*)", text, re.M)
    return (plain(title[1]).replace("`", "") if title else ""), re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", lambda m: m[1] or "", " ".join(line[1].replace("\n>", " ").split())) if line else ""


def notebook_page(path: Path, site: Site) -> Page:
    "The page of a notebook of nbs/; of a tutorial, its version for readers."
    nb = json.loads((NBS/path).read_text("utf-8")); module = module_of(nb["cells"]); folder = "" if str(path.parent) == "." else path.parent.as_posix()
    if folder == "tutorials":
        from workbench.teach.build import reader
        nb = reader(nb)
    here = site.pages[f"nbs/{path.as_posix()}"]
    return from_cells(nb["cells"], site, here, f"nbs/{path.as_posix()}", module, folder, "tutorial" if folder == "tutorials" else "", path.stem)


def from_cells(cells: list[dict], site: Site, here: str, source: str, module: str, folder: str, note: str, name: str) -> Page:
    from workbench.reporting.page import Parts
    reader = Reader(site, here, source, module, Parts({}))
    body = "\n".join(filter(None, map(reader.cell, cells)))
    title, line = heading(cells)
    if folder == "tutorials" and (number := re.match(r"\d+", name)): title = f"{int(number[0])}. {title}"
    api = site.api(module)
    if api: body = re.sub(r"(</h1>\s*(?:<blockquote>.*?</blockquote>)?)", lambda m: m[1] + f'<p class="about"><a href="{rel(api, here)}">Reference of <code>{module}</code></a></p>', body, count=1, flags=re.S)
    return Page(here, title or name, line, body, [c for c in reader.parts.contents if c[0] in (2, 3)], folder, [tuple(t) for t in reader.texts], note)
