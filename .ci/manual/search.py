"""What the search looks through, as one local script that is loaded when somebody searches."""
import base64, gzip, json

from .page import Page
from .shell import Frame

MOST = 1500     # characters of prose kept of one part of a page


def index(frame: Frame) -> str:
    "Pages, then their parts: [page, kind, anchor, title, text]; kind 0 page, 1 heading, 2 name."
    kinds = {"page": 0, "heading": 1, "name": 2}
    pages = [[p.path, p.title, frame.title(p.folder), p.note] for p in frame.order]
    parts = [[i, kinds[kind], anchor, title, text[:MOST]] for i, p in enumerate(frame.order) for kind, anchor, title, text in found(p)]
    packed = gzip.compress(json.dumps({"pages": pages, "parts": parts}, ensure_ascii=False, separators=(",", ":")).encode(), 9, mtime=0)
    return f'window.wbFound("{base64.b64encode(packed).decode()}");\n'


def found(page: Page) -> list[tuple]:
    "The parts of a page; every page has one for itself."
    own = [t for t in page.texts if t[0] == "page"]
    head = own[0] if own else ("page", "", page.title, page.line)
    return [("page", "", page.title, " ".join([page.line, head[3].removeprefix(page.line)]).strip()), *[t for t in page.texts if t is not head]]
