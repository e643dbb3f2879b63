"""The front end's pure functions in node, against what Python computes; and rules every script and style keeps."""
import base64, json, os, re, shutil, subprocess

import numpy as np
import pytest
import xarray as xr

from conftest import ROOT
from workbench.attention.patterns import combine, top_p, without_sink
from workbench.widgets.base import css, esm, files_of, module, static
from workbench.widgets.colours import ramp, shade
from workbench.widgets.packing import pack, unpack
from workbench.widgets.tokens import display_token

STATIC = ROOT/"workbench"/"widgets"/"static"
TOKENS = [" Mary", "\n\n", "\t", "\r\n", "<0xe2>", " <0xF0><0x9F>", "", "<bos>", "</script>", "👑", "שלום", "a\u202eb", "zero\u200bwidth", "\u00a0", "\ufffd", "'\"&", "\U000e0041", "\x00"]


def node() -> str:
    found = shutil.which("node")
    if found: return found
    reason = "node is not installed (Debian: apt-get install nodejs), so the front end's own tests cannot run"
    pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)


def fixture() -> dict:
    "Values for tests/js/core.test.mjs."
    rng = np.random.default_rng(0)
    soft = np.tril(rng.dirichlet(np.ones(9), (3, 9))); wild = rng.normal(size=(2, 4, 7)); wild[0, 1, 2] = np.nan
    chunks = [pack(soft, tri=True), pack(soft), pack(wild, signed=True), pack(wild, signed=True, code="f16"), pack(soft, tri=True, code="f16"), pack(np.zeros((1, 2, 2)))]
    plain = lambda a: json.loads(json.dumps(np.where(np.isnan(a), None, a).tolist()))
    head = xr.DataArray(soft, dims=("head", "query", "key"), attrs=dict(weighting="pattern"))
    odd = xr.DataArray(np.where(rng.random((3, 9, 9)) < .05, np.nan, rng.normal(size=(3, 9, 9))), dims=("head", "query", "key"), attrs=dict(weighting="dla"))
    full = xr.DataArray(rng.dirichlet(np.ones(6), 5), dims=("query", "key"), attrs=dict(weighting="pattern"))
    values = [0, .001, .02, .3, .3, 1, 2]
    return dict(chunks=[dict(meta=c.meta, data=base64.b64encode(c.data).decode(), values=plain(unpack(c))) for c in chunks], tokens=[[t, display_token(t)] for t in TOKENS],
                ramps=[dict(dark=d, signed=s, hue=h, colours=ramp(d, s, h).tolist()) for d in (False, True) for s, h in ((False, "blue"), (False, "orange"), (True, "blue"))],
                shades=[dict(values=v, top=1, how=how, signed=s, index=shade(v, 1, how, s).tolist()) for how in ("sqrt", "linear", "rank") for v, s in ((values, False), ([-x for x in values] + values, True))],
                combined=[dict(how=how, heads=plain(x.values), out=plain(combine(x, how).values)) for how in ("mean", "max", "product") for x in (head, odd)],
                odd=dict(m=plain(odd.values[0]), kept=plain(top_p(odd.isel(head=0), .6).values)),
                cut=dict(m=full.values.tolist(), p=.7, sink=without_sink(full).values.tolist(), kept=top_p(full, .7).values.tolist()))


def test_pure_functions_in_node(tmp_path):
    (tmp_path/"fixture.json").write_text(json.dumps(fixture()))
    done = subprocess.run([node(), "--test", str(ROOT/"tests"/"js")+"/core.test.mjs"], capture_output=True, text=True, env=os.environ | {"FIXTURE": str(tmp_path/"fixture.json")}, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"pass (\d+)", done.stdout)[1]) == (ROOT/"tests"/"js"/"core.test.mjs").read_text().count("\ntest(")


@pytest.mark.parametrize("path", sorted(STATIC.glob("*.js")) + sorted((ROOT/"labextension").rglob("*.js")), ids=lambda p: p.name)
def test_text_enters_a_page_as_text(path):
    source = path.read_text()
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|\beval\(|new Function", source)
    assert [u for u in re.findall(r"https?://[^\s\"'`]+", source) if not u.startswith("http://www.w3.org/2000/svg")] == []


@pytest.mark.parametrize("path", sorted(STATIC.glob("*.css")), ids=lambda p: p.name)
def test_styles_ask_for_nothing(path): assert not re.search(r"url\(|@import|https?:", path.read_text())


def test_what_travels_is_small():
    assert len(esm("attention")) <= 25_000 and len(css("attention")) <= 6_000
    assert "export default { render }" in module("attention") and "import " not in module("attention")


def test_the_modules_names_do_not_collide():
    "A widget and all that it imports become one module: a name declared twice at the top would break it."
    names = [n for f in files_of("attention.js") for n in re.findall(r"^(?:export )?(?:async )?(?:function|const|let|class) (\w+)", static(f), re.M)]
    assert len(names) == len(set(names))
