"Attribution patching against finite differences: a small step of each cell towards the other run, in plain forward passes, on grouped heads, encoders and decoders."
import numpy as np
import pytest

from test_patching_engine import opened, twins
from workbench.lm.edits import add
from workbench.lm.sites import Site
from workbench.patching.attribution import attribution_patch, compare
from workbench.patching.pairs import Pairs
from workbench.patching.patch import patch


def precise(name):
    lm = opened(name); lm.model.double(); return lm


def slope(lm, pairs, site, i, step=.02, **where):
    "Change of the logit difference per unit of the way from the corrupted to the clean value of one cell of prompt `i`, by central differences."
    one = pairs[i]; n = int(one.clean.lengths[0]); given = {} if one.targets is None else dict(targets=[one.targets.ids[0, 1:].tolist()])
    at = site.at(**where); runs = [lm.run(side.ids[:, :n].tolist(), keep=[site.at(layer=where["layer"])], **given) for side in (one.clean, one.corrupt)]
    way = runs[0].tensor(at) - runs[1].tensor(at); ends = []
    for sign in (1, -1):
        z = lm.run(one.corrupt.ids[:, :n].tolist(), edits=add(at, way, sign * step), **given).last_logits[0]; ends.append(float(z[11] - z[13]))
    return (ends[0] - ends[1]) / (2 * step)


@pytest.mark.parametrize("name", ["gpt2", "llama", "gemma2", "bart"])
def test_every_cell_is_the_slope_of_the_exact_patch(name):
    lm = precise(name); stack = "decoder." if name == "bart" else ""
    pairs = twins(lm, (8, 7)) if name != "bart" else Pairs.of(lm, clean=[[5, 6, 7, 8, 9]] * 2, corrupt=[[5, 6, 40, 8, 9], [5, 6, 50, 8, 9]], answers=[11] * 2, foils=[13] * 2, targets=[[4, 5, 6]] * 2)
    for site, by in ((f"{stack}resid_post", "layer pos"), (f"{stack}z", "layer head pos"), (f"{stack}v", "layer kv_head pos")):
        grid = attribution_patch(lm, pairs, site, by); axis = next((d for d in ("head", "kv_head") if d in grid.dims), None); rng = np.random.default_rng(0); s = Site(site.split(".")[-1], stack="decoder" if stack else None)
        for _ in range(4):
            i, l = int(rng.integers(2)), int(rng.integers(grid.sizes["layer"])); pos = int(rng.integers(1 if stack else 4, 4 if stack else 7)); u = int(rng.integers(grid.sizes[axis])) if axis else None
            cell = grid.sel(site=site, layer=l, pos=pos, prompt=i, **({axis: u} if axis else {})); found = float(cell.logit_difference - grid.corrupt_logit_difference[i])
            assert np.isclose(found, slope(lm, pairs, s, i, layer=l, pos=pos, **({"head": u} if axis else {})), rtol=5e-3, atol=3e-5)      # the norms of llama and gemma2 work in float32


def test_prompts_of_different_length_do_not_mix():
    lm = precise("llama"); pairs = twins(lm, (9, 7, 9)); together = attribution_patch(lm, pairs, "resid_pre")
    for i in range(3): alone = attribution_patch(lm, pairs[i], "resid_pre"); assert np.allclose(together.logit_difference.isel(prompt=i, pos=slice(0, alone.sizes["pos"])), alone.logit_difference.isel(prompt=0), atol=1e-9)


def test_many_steps_add_up_to_the_whole_way():
    lm = precise("gpt2"); pairs = twins(lm, (8, 8)); site = "resid_post"; grids = {n: attribution_patch(lm, pairs, site, steps=n) for n in (4, 32)}; exact = patch(lm, pairs, site, "layer")
    gap = {n: float(abs((g.logit_difference - g.corrupt_logit_difference).sum("pos") - (exact.logit_difference - exact.corrupt_logit_difference)).max()) for n, g in grids.items()}
    assert gap[32] < 1e-4 and gap[32] < gap[4] and float(compare(patch(lm, pairs, site), grids[32], n_resamples=1).spearman.sel(site="all")) > .9
