"""Every link, anchor and picture of a built site leads somewhere; addresses outside are well-formed."""
import re, sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class Seen(HTMLParser):
    "Ids and references of a page."
    def __init__(self): super().__init__(convert_charrefs=True); self.ids, self.refs, self.twice, self.inside = set(), [], [], 0

    def handle_starttag(self, tag, attrs):
        a = dict(attrs); self.inside += tag == "svg"
        for key in filter(None, (a.get("id"), a.get("name") if tag == "a" else None)): self.twice += [key] if key in self.ids and not self.inside else []; self.ids.add(key)
        if (v := a.get({"a": "href", "link": "href", "area": "href", "img": "src", "script": "src", "iframe": "src", "source": "src", "video": "src"}.get(tag, "-"))) is not None: self.refs.append((tag, v))
        if tag == "img" and "alt" not in a: self.refs.append(("img without alt", a.get("src", "")[:40]))

    def handle_startendtag(self, tag, attrs): self.handle_starttag(tag, attrs); self.handle_endtag(tag)
    def handle_endtag(self, tag): self.inside -= tag == "svg"


def read(file: Path) -> Seen:
    seen = Seen(); seen.feed(file.read_text("utf-8")); return seen


def wrong(tag: str, url: str, page: Path, root: Path, pages: dict[Path, Seen]) -> str:
    "What is wrong with a reference; empty where nothing is."
    if tag == "img without alt": return "a picture without a text"
    if url.startswith(("data:", "blob:", "mailto:")): return ""
    try: parts = urlsplit(url)
    except ValueError as e: return f"no address ({e})"
    if parts.scheme or parts.netloc:
        return "" if parts.scheme in ("http", "https") and re.fullmatch(r"[\w.-]+\.[a-z]{2,}(:\d+)?|localhost(:\d+)?|127\.0\.0\.1(:\d+)?", parts.netloc) and " " not in url else "no well-formed address"
    target = (page.parent/unquote(parts.path)).resolve() if parts.path else page
    if not target.is_relative_to(root): return "leads out of the site"
    if not target.is_file(): return "is not there"
    if parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].ids: return f"{target.name} has no anchor #{parts.fragment}"
    return ""


def check(root: Path) -> tuple[list[str], int, int]:
    "`(problems, pages, links)` of the site under `root`."
    root = root.resolve(); found, links = [], 0
    pages = {f: read(f) for f in sorted(root.rglob("*.html")) if f.relative_to(root).parts[0] != "runs"}      # pages of runs stand alone; their data is not copied
    for page, seen in pages.items():
        where = page.relative_to(root).as_posix()
        found += [f"{where}: the id {i!r} stands twice" for i in sorted(set(seen.twice))]
        for tag, url in seen.refs:
            links += 1
            if why := wrong(tag, url, page, root, pages): found.append(f"{where}: {tag} {url[:120]}: {why}")
        if url := next((u for t, u in seen.refs if t in ("script", "iframe", "link", "img") and u.startswith(("http:", "https:", "//"))), None): found.append(f"{where}: needs a network for {url}")
    return list(dict.fromkeys(found)), len(pages), links


def main(root: Path) -> int:
    problems, pages, links = check(root)
    for p in problems: print(p)
    print(f"{pages} pages, {links} links, {len(problems)} problems")
    return int(bool(problems) or not pages)


if __name__ == "__main__": sys.exit(main(Path(sys.argv[1])))
