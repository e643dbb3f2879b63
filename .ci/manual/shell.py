"""The frame around every page: bar, navigation, contents, next page."""
import html, json

from .house import group, order, part
from .page import Page
from .prose import rel

POLICY = ("default-src 'none'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob: file:; style-src 'self' 'unsafe-inline' file:; img-src 'self' data: blob: file:; "
          "font-src data:; connect-src data: blob:; worker-src blob:; frame-src 'self' file:")
FRAME = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<meta name="description" content="{line}">
<link rel="stylesheet" href="{top}_static/site.css">
<script>try {{ const t = localStorage.getItem("wb-theme"); if (t) document.documentElement.dataset.theme = t }} catch {{}}</script>
<script defer src="{top}_static/nav.js"></script>
<script defer src="{top}_static/site.js"></script>
</head>
<body data-top="{top}" data-here="{here}">
<a class="skip" href="#wb-content">To the content</a>
<header class="bar">
<button type="button" id="wb-menu" aria-expanded="false" aria-controls="wb-nav">Menu</button>
<a class="home" href="{top}index.html">workbench</a>
<button type="button" id="wb-find" aria-haspopup="dialog">Search <kbd>/</kbd></button>
<button type="button" id="wb-theme">Theme: auto</button>
</header>
<div class="page">
<nav id="wb-nav" aria-label="Pages">{nav}</nav>
<main id="wb-content" tabindex="-1"{wide}>
<p class="where">{where}</p>
{contents}
{body}
<nav class="turn" aria-label="Neighbours">{turn}</nav>
</main>
{aside}
</div>
</body>
</html>
"""


class Frame:
    "Knows all pages, in order."
    def __init__(self, pages: list[Page]):
        self.folders = {}
        for p in pages: self.folders.setdefault(p.folder, []).append(p)
        self.folders = dict(sorted(self.folders.items(), key=lambda kv: order(kv[0])))
        self.order = [p for found in self.folders.values() for p in found]
        self.place = {p.path: i for i, p in enumerate(self.order)}

    def title(self, folder: str) -> str: return part(folder.removeprefix("api/"))[0] if folder != "api" else "All modules"

    def data(self) -> str:
        "What the script puts into the folds of the navigation."
        return "window.wbNav=" + json.dumps({f: [[p.path, p.title] for p in pages] for f, pages in self.folders.items()}, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c") + ";\n"

    def nav(self, page: Page) -> str:
        "Folds by group; the current one is open and written out, the others are filled when they are opened."
        out, last = [], ""
        for folder, pages in self.folders.items():
            if group(folder) != last: last = group(folder); out.append(f"<h2>{last}</h2>")
            items = "".join(f'<li><a href="{rel(p.path, page.path)}"{" aria-current=page" if p is page else ""}>{html.escape(p.title)}</a></li>' for p in pages) if folder == page.folder else ""
            first = rel(pages[0].path, page.path)
            out.append(f'<details{" open" if folder == page.folder else ""} data-folder="{folder}"><summary><a href="{first}">{html.escape(self.title(folder))}</a></summary><ol>{items}</ol></details>')
        return "".join(out)

    def turn(self, page: Page) -> str:
        "Links to the page before and the one after."
        i = self.place[page.path]; out = []
        for j, word in ((i - 1, "Previous"), (i + 1, "Next")):
            if not 0 <= j < len(self.order): out.append("<span></span>"); continue
            p = self.order[j]; more = "" if p.folder == page.folder else f"{self.title(p.folder)}: "
            out.append(f'<a rel="{"prev" if j < i else "next"}" href="{rel(p.path, page.path)}"><small>{word}</small>{html.escape(more + p.title)}</a>')
        return "".join(out)

    def write(self, page: Page) -> str:
        "The whole page as HTML."
        top = "../" * page.path.count("/")
        items = "".join(f'<li class="l{level}"><a href="#{key}">{title}</a></li>' for level, key, title in page.contents)
        many = len(page.contents) > 1 and not page.wide
        contents = f'<details class="onpage"><summary>On this page</summary><ol>{items}</ol></details>' if many else ""
        aside = f'<nav class="aside" aria-label="On this page"><p>On this page</p><ol>{items}</ol></nav>' if many else ""
        first = self.folders[page.folder][0]
        where = "" if page.path == "index.html" else f'{group(page.folder)} › <a href="{rel(first.path, page.path)}">{html.escape(self.title(page.folder))}</a>' if first is not page else group(page.folder)
        title = "workbench" if page.path == "index.html" else f"{page.title} · workbench"
        return FRAME.format(policy=html.escape(POLICY), title=html.escape(title), line=html.escape(page.line), top=top, here=page.path, nav=self.nav(page), wide=' class="wide-page"' if page.wide else "",
                            where=where, contents=contents, body=page.body, turn=self.turn(page), aside=aside)
