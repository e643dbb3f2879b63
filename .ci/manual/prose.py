"""Markdown, formulas, names and links as HTML."""
import html, os, posixpath, re
from dataclasses import dataclass, field
from functools import lru_cache

from .house import ROOT


def rel(target: str, here: str) -> str:
    "A link from the page `here` to the page `target`, both counted from the top of the site."
    path, _, anchor = target.partition("#")
    return (posixpath.relpath(path, posixpath.dirname(here) or ".") if path != here or not anchor else "") + (f"#{anchor}" if anchor else "")


def slug(text: str) -> str:
    "The anchor of a heading."
    return re.sub(r"\W+", "-", text.lower()).strip("-") or "part"


@lru_cache(None)
def formula(source: str, block: bool) -> str:
    "MathML, which browsers draw without any script."
    from latex2mathml.converter import convert
    try: return convert(source, display="block" if block else "inline").replace("\\_", "_").replace("\n", "")
    except Exception: return f"<code>{html.escape(source)}</code>"


def math(text: str) -> str:
    "Formulas drawn; code is left alone. A dollar sign before a number and a blank after it are money."
    def one(m):
        if m[1]: return m[1]
        return formula(m[2] or m[3], bool(m[2]))
    return re.sub(r"(```.*?```|``[^\n]*?``|`[^`\n]*`)|\$\$(.+?)\$\$|(?<![\\\w])\$(?!\s)([^$\n]+?)(?<!\s)\$(?!\d)", one, text, flags=re.S)


@dataclass
class Site:
    "What every page can link to."
    pages: dict = field(default_factory=dict)      # "nbs/lm/01_sites.ipynb" -> "lm/sites.html"
    names: dict = field(default_factory=dict)      # public name -> [module, ...]
    modules: dict = field(default_factory=dict)    # dotted name -> names.Module
    files: set = field(default_factory=set)        # everything the site holds, once it is known
    whole: bool = True                             # not only a few pages

    def api(self, module: str, name: str = "") -> str | None:
        "The place of a name in the reference."
        m = self.modules.get(module)
        return None if m is None or m.page not in self.files else m.page + (f"#{name}" if name else "")

    def find(self, text: str, module: str = "") -> str | None:
        "What a name in prose stands for: of the page's own module, of its floor, or the only one of that name."
        text = text.removesuffix("()").removeprefix("wb.")
        if text in self.modules: return self.api(text)
        head, _, tail = text.partition(".")
        if "." in text and text.rsplit(".", 1)[0] in self.modules: home, name = text.rsplit(".", 1); return self.api(home, name) if name in self.modules[home].names else None
        homes = self.names.get(head, []); module = "" if module.startswith("workbench.tutorials.") else module; floor = module.rsplit(".", 1)[0]
        near = [h for h in homes if h == module] or [h for h in homes if floor and h.rsplit(".", 1)[0] == floor] or homes
        if len(near) != 1 or len(head) < 3 and near[0] != module: return None
        found = self.modules[near[0]].names[head]
        if found.kind == "value" and near[0] != module and not (head.isupper() and len(head) > 4): return None
        if near[0] != module and head.islower() and "_" not in head and len(near) == 1 and floor and not near[0].startswith(floor): return None   # a plain word: too likely not meant
        if tail and not any(m.name == text for m in found.members): tail = ""
        return self.api(near[0], text if tail else head)


def linked_names(body: str, site: Site, here: str, module: str = "") -> str:
    "`name` in prose becomes a link to the reference."
    def one(m):
        if m[1]: return m[1]
        target = site.find(html.unescape(m[2]), module)
        return m[0] if target is None or target.split("#")[0] == here and "#" not in target else f'<a class="name" href="{rel(target, here)}">{m[0]}</a>'
    return re.sub(r"(<(?:pre|a|h[1-6]|script|style|summary)\b.*?</(?:pre|a|h[1-6]|script|style|summary)>)|<code>([A-Za-z_][\w.]*(?:\(\))?)</code>", one, body, flags=re.S)


def target_of(url: str, source: str, site: Site) -> str | None:
    "Where a link in the notebook `source` (from the top of the repository) leads on the site; None: to a file that is no page; unchanged where it leads nowhere."
    path, _, anchor = html.unescape(url).partition("#")
    full = posixpath.normpath(posixpath.join(posixpath.dirname(source), path))
    if full in site.pages: return site.pages[full] + (f"#{slug(anchor)}" if anchor else "")
    inside = full.removeprefix("nbs/")
    if inside in site.files: return inside + (f"#{anchor}" if anchor else "")
    if (ROOT/full).exists() and not full.startswith("nbs/images/"): return None
    return url


def linked_pages(body: str, site: Site, here: str, source: str) -> str:
    "Links between notebooks become links between pages; a link to another file of the repository becomes plain text."
    def one(m):
        before, url, after, text = m[1], m[2], m[3], m[4]
        if re.match(r"[a-z][a-z0-9+.-]*:|#|//", url): return m[0]
        found = target_of(url, source, site)
        if found is None: return f'<span class="file">{text}</span>'
        return m[0] if found == url else f'<a{before}href="{html.escape(rel(found, here))}"{after}>{text}</a>'
    return re.sub(r'<a(\s[^>]*?)href="([^"]*)"([^>]*)>(.*?)</a>', one, body, flags=re.S)


def named_notebooks(body: str, site: Site, here: str) -> str:
    "A notebook that a cell's output names by its path becomes a link to its page."
    one = lambda m: f'<a href="{rel(site.pages[m[0]], here)}">{m[0]}</a>' if m[0] in site.pages else m[0]
    return body if "<script" in body else re.sub(r"(?<=[>\s(])nbs/[\w/]+\.ipynb(?=[\s,.;)<])", one, body)


def prose(text: str, site: Site, here: str, module: str = "", source: str = "") -> str:
    "A piece of markdown as it stands on a page."
    from workbench.reporting.page import markdown_html
    body = linked_names(markdown_html(math(text)), site, here, module)
    body = re.sub(r"<table>.*?</table>", lambda m: f'<div class="wide">{m[0]}</div>', body, flags=re.S)
    return linked_pages(body, site, here, source) if source else body
