"""Our SAELens folders, opened by sae-lens: `ours.py write FOLDER` in the workbench's environment, `ours.py open FOLDER` in that of requirements.txt."""
import json, sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

GOLD = Path(__file__).parent


def write(out):
    "Every golden dictionary and a few of ours, as SAELens folders, each with our outputs beside it."
    from workbench.features.dictionary import BatchTopK, Gated, Sae, random_dictionary
    from workbench.features.errors import FeatureError
    from workbench.features.formats import open_dictionary, write_saelens
    from workbench.lm.sites import Site
    g = torch.Generator().manual_seed(5); r = lambda *s: torch.randn(*s, generator=g); written, kept = 0, []
    mine = {"random": random_dictionary(8, 24, k=4, seed=1, site=Site("resid_pre", layer=1)), "batchtopk": Sae(r(8, 24), r(24), r(24, 8), r(8), BatchTopK(4, .7, rescale=True)), "gated": Sae(r(8, 24), r(24), r(24, 8), r(8), Gated(r(24) / 3, r(24), r(24)))}
    inside = {p.parent: p for n in ("1.pt", "resid_post_mlp.pt", "layer_3.safetensors") for p in GOLD.rglob(n)}
    for e in sorted(GOLD.rglob("expected.safetensors")):
        place = e.parent; made = open_dictionary(inside.get(place, place if place.parent.name != "gemma_scope" else place)); mine[place.name if place.parent == GOLD else place.parent.name] = (made, load_file(e)["x"])
    for name, d in mine.items():
        d, x = d if isinstance(d, tuple) else (d, torch.randn(6, d.d_in, generator=g))
        try: folder = write_saelens(d, out/name)
        except FeatureError: kept.append(name); continue
        f = d.unit_rows().encode(x) if d.activation.name == "batchtopk" and d.activation.rescale else d.encode(x)
        save_file({"x": x.contiguous(), "f": f.contiguous(), "x_hat": d(x).contiguous()}, folder/"expected.safetensors"); written += 1
    print(f"{written} folders written; SAELens has no class for {', '.join(kept)}")


@torch.no_grad()
def open_all(out):
    "Opened by sae-lens: the largest difference of f and x_hat over all folders, which must be below 1e-6 of the largest value."
    from sae_lens import SAE
    worst, n = 0., 0
    for e in sorted(out.rglob("expected.safetensors")):
        want, s = load_file(e), SAE.load_from_disk(e.parent); n += 1
        for got, w in ((s.encode(want["x"]), want["f"]), (s(want["x"]), want["x_hat"])): worst = max(worst, float((got - w).abs().max() / w.abs().max().clamp(min=1)))
        assert worst < 1e-6, (e.parent.name, worst)
        about = json.loads((e.parent/"cfg.json").read_text())["metadata"]; assert s.cfg.metadata.hook_name == about["hook_name"] and s.cfg.metadata.workbench == about["workbench"]
    print(f"sae-lens opened {n} of our folders; largest difference {worst:.1e}")


if __name__ == "__main__": {"write": write, "open": open_all}[sys.argv[1]](Path(sys.argv[2]))
