"""What an attention page may cost: bytes, DOM nodes, no outside address, and never blank. CPU times are in `make bench`, not here."""
import re
from functools import lru_cache

import numpy as np
import pytest
import xarray as xr

from conftest import new_page, until
from workbench.widgets.attention_explorer import AttentionExplorer

HEADS, LENGTHS = 12, (64, 256, 1024)
DRAWN = "document.querySelector('.wb-main .wb-note')?.textContent.length > 2"
COLOURS = """select => { const c = document.querySelector(select), d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data, seen = new Set();
  for (let i = 0; i < d.length; i += 4 * 7) seen.add(d[i] << 16 | d[i + 1] << 8 | d[i + 2]); return seen.size }"""
NAMESPACES = re.compile(r"http://www\.w3\.org/(2000/svg|1999/xhtml|1999/xlink|1998/Math/MathML)\b")     # names, which nobody fetches


def dense(length: int, seed: int = 0) -> xr.DataArray:
    "Causal softmax over random scores: the hardest to pack, because nothing on or below the diagonal is zero or repeats."
    scores = np.random.default_rng(seed).normal(0, 2, (HEADS, length, length)).astype("float32")
    weights = np.tril(np.exp(scores)); weights /= weights.sum(-1, keepdims=True)
    words = [f" w{i % 37}" for i in range(length)]
    return xr.DataArray(weights[None, None], dims=("layer", "prompt", "head", "query", "key"), attrs=dict(causal=True)).assign_coords(
        query_token=(("prompt", "query"), [words]), key_token=(("prompt", "key"), [words]))


@lru_cache(None)
def html(length: int) -> str: return AttentionExplorer.from_patterns(dense(length)).to_html()


@pytest.fixture(params=LENGTHS)
def shown(request, browser, tmp_path):
    "The page of so many tokens, open in a browser without a network."
    path = tmp_path/"page.html"; path.write_text(html(request.param), encoding="utf-8")
    page = new_page(browser, offline=True); page.goto(path.as_uri()); until(page, DRAWN)
    yield page
    page.context.close()


@pytest.mark.parametrize("length, limit", [(64, .15e6), (256, .6e6), (1024, 9e6)])
def test_bytes(length, limit): assert len(html(length).encode()) <= limit


def test_an_entry_costs_one_byte_in_base64():
    "Between two lengths only the entries differ, and each is one byte, four characters for three."
    entries = HEADS * (1024 * 1025 - 256 * 257) / 2
    assert (len(html(1024)) - len(html(256))) / entries <= 1.4


@pytest.mark.parametrize("length", LENGTHS)
def test_no_outside_address(length):
    text = NAMESPACES.sub("", html(length))
    assert not re.search(r"https?://|(?:src|href)\s*=\s*[\"']?//|@import", text)


@pytest.mark.browser
def test_few_nodes_at_any_length_and_never_blank(shown):
    def nodes(): return shown.evaluate("document.querySelectorAll('*').length")
    assert nodes() <= 500
    for canvas in ".wb-plot", ".wb-overview": assert shown.evaluate(COLOURS, canvas) >= 12, canvas
    shown.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    box = shown.locator(".wb-plot").bounding_box(); before = shown.locator(".wb-readout").inner_text()
    shown.mouse.move(box["x"] + .3 * box["width"], box["y"] + .6 * box["height"])
    until(shown, "was => document.querySelector('.wb-readout').innerText !== was", before)
    shown.mouse.click(box["x"] + .3 * box["width"], box["y"] + .6 * box["height"])
    assert nodes() <= 500, "with everything unfolded and a token kept"
    assert shown.errors == [] and shown.outside == []
