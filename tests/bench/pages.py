"""The same attention patterns as one page of each library, made as its own documentation makes it and saved as a file that opens by itself.

CircuitsVis carries its script inside the package and puts it into the page when there is no network. BertViz asks a content network for require.js,
jQuery and d3; those three files are answered from copies that other installed packages carry."""
import random
from dataclasses import dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import torch

HEADS = 12
WORDS = "the a cat dog sat ran on under mat table and then it said that no one had been there when rain fell over several remarkably quiet villages".split()


def dense(length: int, seed: int = 0) -> tuple:
    "`(pattern (head, query, key), tokens)`: causal softmax over normal scores of spread 2. Nothing on or below the diagonal is zero."
    low, pick = torch.Generator().manual_seed(seed), random.Random(seed)
    scores = 2 * torch.randn(HEADS, length, length, generator=low)
    return scores.masked_fill(torch.ones(length, length).triu(1).bool(), -torch.inf).softmax(-1), [" " + w for w in pick.choices(WORDS, k=length)]


@lru_cache(None)
def real(length: int) -> tuple:
    "The same from the built-in model `micro`: its first 12 heads on text of its own kind."
    from workbench.lm.load import load
    from workbench.lm.sites import Site
    from workbench.tasks import corpus
    from workbench.zoo import folder
    lm = load(str(folder("micro")))
    ids = lm.tokens(" ".join(corpus.row(random.Random(0), 2 * length)[0][1:])).ids[:, :length]
    run = lm.run(ids, keep="pattern")
    return torch.cat([run.tensor(Site("pattern", layer=l))[0] for l in range(lm.n_layers)])[:HEADS].float(), run.tokens.strs[0]


DATA = {"dense": dense, "micro": real}
PAGES = [("dense", 64), ("micro", 64), ("dense", 256), ("dense", 1024)]


# --- pages ------------------------------------------------------------------------------------------------------------
def page_of(body: str) -> str: return f'<!doctype html><html><head><meta charset="utf-8"><title>heads</title></head><body>{body}</body></html>'


def workbench(pattern, tokens) -> str:
    import xarray as xr
    from workbench.widgets.attention_explorer import AttentionExplorer
    dims = ("layer", "prompt", "head", "query", "key")
    array = xr.DataArray(pattern.numpy()[None, None], dims=dims, attrs=dict(causal=True)).assign_coords(
        query_token=(("prompt", "query"), [tokens]), key_token=(("prompt", "key"), [tokens]))
    return AttentionExplorer.from_patterns(array).to_html()


def circuitsvis(pattern, tokens) -> str:
    from circuitsvis.attention import attention_heads
    return page_of(attention_heads(pattern, tokens).local_src)              # what its _repr_html_ gives without a network


def bertviz(pattern, tokens) -> str:
    from bertviz import head_view
    return page_of(head_view([pattern[None]], list(tokens), html_action="return").data)


# --- who, and how to tell that they are there ---------------------------------------------------------------------------
def nothing(pattern, tokens) -> str: return page_of("<p>nothing</p>")


def package_file(package: str, path: str) -> Path: return Path(find_spec(package).origin).parent / path


BERTVIZ_ASKS = {"require.min.js": ("nbclassic", "static/components/requirejs/require.js"), "jquery.min.js": ("nbclassic", "static/components/jquery/jquery.min.js"),
                "d3.min.js": ("mpld3", "js/d3.v5.min.js")}


@dataclass(frozen=True)
class Contender:
    """How to make a page, when it is there, which element and which part of it the pointer is moved over, and the places where the 12 heads
    are chosen and by which gesture. What is looked up in the page are JavaScript expressions."""
    make: callable
    there: str
    over: str
    part: str                                         # "triangle": the lower left half; "column": anywhere from top to bottom
    heads: str
    by: str                                           # "mousemove", "click" or "dblclick"
    serves: dict = field(default_factory=dict)        # last part of an address -> (package, file in it)

    def served(self) -> dict: return {name: package_file(*where) for name, where in self.serves.items()}


CENTRES = ".map(e => e.getBoundingClientRect()).map(r => [r.left + r.width / 2, r.top + r.height / 2])"
OVERVIEW = "(r => Array.from({ length: 12 }, (_, i) => [r.left + 24 + (i + .4) * (r.width - 24) / 12, r.top + 15]))(document.querySelector('canvas.wb-overview').getBoundingClientRect())"
CONTENDERS = {
    "workbench": Contender(workbench, "document.querySelector('.wb-main .wb-note')?.textContent.length > 2", "document.querySelector('canvas.wb-plot')", "triangle", OVERVIEW, "click"),
    "circuitsvis": Contender(circuitsvis, f"document.querySelectorAll('canvas').length > {HEADS}", "[...document.querySelectorAll('canvas')].at(-1)", "triangle",
                             "[...document.querySelectorAll('canvas')].slice(0, 12)" + CENTRES, "mousemove"),
    "bertviz": Contender(bertviz, "document.querySelector('line[stroke-opacity]')", "document.querySelector('#left')", "column",
                         "[...document.querySelector('svg').lastElementChild.children]" + CENTRES, "dblclick", BERTVIZ_ASKS),
    "nothing": Contender(nothing, "document.querySelector('p')", "document.querySelector('p')", "column", "Array.from({ length: 12 }, (_, i) => [50 * i, 10])", "click"),
}
