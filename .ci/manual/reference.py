"""The reference: a page for each module, with every public name."""
import html, re, textwrap

from .house import order, part
from .names import Module, Name
from .page import Page
from .prose import Site, prose, rel


def code(source: str) -> str:
    from workbench.reporting.page import code_html
    return code_html(source).rstrip("\n")


def rows(name: Name, site: Site, here: str) -> str:
    "The parameters as a table; nothing where no comment says more than the signature."
    if not name.noted: return ""
    params = [p for p in name.params if p.name != "*"] + ([name.returns] if name.returns else [])
    cell = lambda t: prose(t, site, here, name.module).strip().removeprefix("<p>").removesuffix("</p>") if t else ""
    line = lambda p: (f'<tr><th scope="row">{"<em>returns</em>" if p is name.returns else f"<code>{html.escape(p.name)}</code>"}</th><td><code>{html.escape(p.kind)}</code></td>'
                      f'<td>{f"<code>{html.escape(p.default)}</code>" if p.default else ""}</td><td>{cell(p.note)}</td></tr>').replace("<code></code>", "")
    return ('<div class="wide"><table class="params"><thead><tr><th>Parameter</th><th>Type</th><th>Default</th><th>What it is</th></tr></thead><tbody>'
            + "".join(map(line, params)) + "</tbody></table></div>")


def entry(name: Name, site: Site, here: str, source: bool = True) -> str:
    "Signature, docstring, parameters, source."
    doc = prose(name.doc, site, here, name.module) if name.doc else ""
    shown = f'<details class="source"><summary>Source</summary><pre><code>{code(textwrap.dedent(name.source))}</code></pre></details>' if source and name.kind != "value" else ""
    if name.kind == "property" and not doc and name.source.count("\n") < 4: return f'<pre class="sig"><code>{code(textwrap.dedent(name.source))}</code></pre>'
    return f'<pre class="sig"><code>{code(name.signature)}</code></pre>{doc}{rows(name, site, here)}{shown}'


def inherited(name: Name, site: Site, here: str) -> str:
    "What a class has from others of the package."
    out = []
    for base in name.bases:
        homes = site.names.get(base.split(".")[-1], [])
        home = next((h for h in homes if h == name.module), homes[0] if len(homes) == 1 else None)
        if home is None: out.append(f"<code>{html.escape(base)}</code>"); continue
        cls = site.modules[home].names[base.split(".")[-1]]; own = {m.short for m in name.members}
        link = lambda text, anchor: f'<a href="{rel(site.api(home, anchor), here)}"><code>{html.escape(text)}</code></a>' if site.api(home) else f"<code>{html.escape(text)}</code>"
        more = ", ".join(link(m.short, m.name) for m in cls.members if m.short not in own)
        out.append(link(cls.name, cls.name) + (f" (with {more})" if more else ""))
    return f'<p class="bases">Stands on {", ".join(out)}</p>' if out else ""


def parts(m: Module, site: Site) -> list[tuple[int, str, str, str]]:
    "`(level, anchor, title, body)` of every name and member."
    found = []
    for n in sorted(m.names.values(), key=lambda n: n.kind == "value"):
        found.append((2, n.name, n.name, f'<span class="kind">{n.kind}</span>' + entry(n, site, m.page, not n.members) + inherited(n, site, m.page)))
        found += [(3, c.name, c.name, f'<span class="kind">{c.kind}</span>' + entry(c, site, m.page)) for c in n.members]
        if n.members: found.append((0, "", "", f'<details class="source"><summary>Source of the class</summary><pre><code>{code(n.source)}</code></pre></details>'))
    return found


def first_line(doc: str) -> str:
    "The first sentence of a docstring, in one line."
    return " ".join(doc.split("\n\n")[0].split()).replace("`", "")


def again(m: Module, site: Site) -> str:
    "The names that a package hands on."
    row = lambda n, home: (lambda to, d: f'<tr><th scope="row">{f"<a href={chr(34)}{rel(to, m.page)}{chr(34)}>" if to else ""}<code>{n}</code>{"</a>" if to else ""}</th><td>{html.escape(d)}</td></tr>')(
        site.api(home, n) if home in site.modules and n in site.modules[home].names else None, first_line(site.modules[home].names[n].doc) if home in site.modules and n in site.modules[home].names else "")
    return f'<h2 id="names">Names of the package</h2><p>They can be imported from <code>{m.name}</code> itself.</p><div class="wide"><table class="names">{"".join(row(n, h) for n, h in m.again.items())}</table></div>' if m.again else ""


def page(m: Module, site: Site) -> Page:
    "The page of a module."
    where = site.pages.get(m.notebook)
    lesson = f'<a href="{rel(where, m.page)}">Lesson: how it works, with examples</a>' if where else "Written by hand"
    about = f'<p class="about">{lesson} <span class="file">{m.path.relative_to(m.path.parents[len(m.name.split("."))] if m.path.name == "__init__.py" else m.path.parents[len(m.name.split(".")) - 1]).as_posix()}</span></p>'
    body, contents, texts = [f'<h1>{m.name}</h1>', f'<p class="lead">{prose(m.line, site, m.page, m.name).strip().removeprefix("<p>").removesuffix("</p>")}</p>' if m.line else "", about, again(m, site)], [], []
    for level, anchor, title, text in parts(m, site):
        if level: contents.append((level, anchor, title.rsplit(".", 1)[-1])); body.append(f'<section class="entry l{level}"><h{level} id="{anchor}"><a href="#{anchor}">{html.escape(title)}</a></h{level}>{text}</section>')
        else: body.append(text)
    for n in (x for n in m.names.values() for x in (n, *n.members)):
        notes = " ".join(p.note for p in n.params if p.note)
        sign = re.sub(rf"^(?:(?:class|classmethod|static|async) )*{re.escape(n.short)}\b", n.name, " ".join(n.signature.split()).replace("( ", "(").replace(", )", ")")) if n.kind != "value" else ""
        texts.append(("name", n.name, n.name, f"{sign}\t{first_line(n.doc)}{' ' + notes.replace('`', '') if notes else ''}"))
    bare = ".".join(m.name.split(".")[1:]) or "workbench"
    return Page(m.page, bare, m.line, "\n".join(body), contents, "api/" + m.name.split(".")[1] if m.name.count(".") else "api", texts, note="reference")


def overview(site: Site, modules: list[Module]) -> Page:
    "All modules with their names, floor by floor."
    here, line = "api/index.html", "Every module with its public names. Press / to search for a name."
    text = lambda m: prose(m.line, site, here, m.name).strip().removeprefix("<p>").removesuffix("</p>")
    block = lambda m: (f'<section class="module"><h3 id="{m.name}"><a href="{rel(m.page, here)}">{m.name}</a></h3><p>{text(m)}</p><p class="list">'
                       + " ".join(f'<a href="{rel(f"{m.page}#{n}", here)}"><code>{n}</code></a>' for n in m.names) + "</p></section>")
    floors = {}
    for m in modules: floors.setdefault(floor_of(m), []).append(m)
    floors = {f: floors[f] for f in sorted(floors, key=lambda f: order(f"api/{f}" if f else "api"))}
    body = f"<h1>Reference</h1><p class=lead>{line}</p>" + "".join(f'<h2 id="{f or "top"}">{html.escape(part(f)[0] if f else "The package")}</h2>' + "".join(map(block, found)) for f, found in floors.items())
    return Page(here, "All modules", line, body, [(2, f or "top", part(f)[0] if f else "The package") for f in floors], "api", [])


def floor_of(m: Module) -> str: return m.name.split(".")[1] if "." in m.name else ""
