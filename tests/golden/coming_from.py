"""Runs the peers' cells of nbs/guide/00_coming_from.ipynb and keeps what they return; the page compares ours with that.

    _bench/.venv/bin/python tests/golden/coming_from.py TransformerLens nnsight BertViz CircuitsVis     # after `make bench`
    _bench/.features/bin/python tests/golden/coming_from.py SAELens                                     # after `make goldens`

A cell belongs to a library when its first line after the directive is `# LIBRARY · task`; it leaves its array in `theirs`.
"""
import json
import linecache
import re
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

ROOT = Path(__file__).resolve().parents[2]
KEPT, VERSIONS = Path(__file__).with_suffix(".npz"), Path(__file__).with_suffix(".json")
PACKAGES = {"TransformerLens": "transformer-lens", "nnsight": "nnsight", "BertViz": "bertviz", "CircuitsVis": "circuitsvis", "SAELens": "sae-lens"}


def cells() -> list:
    "[(library, task, code)] of the page."
    found = json.loads((ROOT/"nbs/guide/00_coming_from.ipynb").read_text("utf-8"))["cells"]
    sources = ["".join(c["source"]) for c in found if c["cell_type"] == "code"]
    return [(m[1], m[2].strip(), s) for s in sources if (m := re.match(r"#\| eval: false\n# (\w+) · (.+)\n", s))]


def main(libraries: list) -> None:
    "Run the cells of `libraries`, one after the other in one namespace a library; the others' arrays stay."
    torch.set_num_threads(1)
    text = "When Mary and John went to the store, {} gave a drink to"
    kept = dict(np.load(KEPT)) if KEPT.exists() else {}
    versions = json.loads(VERSIONS.read_text()) if VERSIONS.exists() else {}
    for library in libraries:
        space = dict(torch=torch, prompt=text.format("John"), twin=text.format("Mary"), path=str(ROOT/"workbench/zoo/models/micro"), sae_path=str(ROOT/"workbench/zoo/saes/micro/resid_post.2-topk"))
        for task, code in [(t, c) for l, t, c in cells() if l == library]:
            name = f"<{library} {task}>"
            linecache.cache[name] = (len(code), None, code.splitlines(True), name)     # nnsight reads the source of its `with` blocks
            exec(compile(code, name, "exec"), space)
            kept[task] = np.asarray(space["theirs"].detach() if torch.is_tensor(space["theirs"]) else space["theirs"], np.float32)
            print(library, task, kept[task].shape)
        versions[library] = version(PACKAGES[library])
    np.savez_compressed(KEPT, **{task: kept[task] for _, task, _ in cells() if task in kept})
    VERSIONS.write_text(json.dumps(dict(sorted(versions.items())), indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:] or sys.exit(__doc__))
