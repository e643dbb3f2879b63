"""Run notebooks again and keep their outputs: figures as small pictures, nothing that changes from run to run.

    outputs.py                     every notebook under nbs/
    outputs.py nbs/lens/*.ipynb    these
"""
import json, os, re, sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from workbench.reporting.kernel import ReportKernel

VIEW = "application/vnd.jupyter.widget-view+json"
NEVER, SKIP = re.compile(r"^#\| *eval: *false", re.M), "skip-execution"   # nbdev's word for a cell that is only shown, nbclient's tag for it
ROOT = Path(__file__).resolve().parents[1]


class Pictures(ReportKernel):
    "A kernel whose figures are pictures; a report's are data."
    figures = "png"


def stored(path: Path) -> None:
    "Execute a notebook in its folder and write it back in the form `nbdev_clean` leaves."
    nb = nbformat.read(path, 4)
    shown = [c for c in nb.cells if c.cell_type == "code" and NEVER.search(c.source)]     # trainings, for one
    for cell in shown: cell.metadata["tags"] = [*cell.metadata.get("tags", []), SKIP]
    NotebookClient(nb, timeout=1800, kernel_name="python3", kernel_manager_class=Pictures, store_widget_state=False,
                   resources={"metadata": {"path": str(path.parent)}}).execute()
    nb.metadata.pop("widgets", None)
    nb.metadata.pop("language_info", None)
    for cell in shown:
        cell.metadata["tags"].remove(SKIP)
        if not cell.metadata["tags"]: del cell.metadata["tags"]
    for cell in nb.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code": cell.execution_count = None
        if cell.cell_type == "code": cell.outputs = [o for o in cell.outputs if VIEW not in o.get("data", {}) or "text/html" in o.data]  # without its state a widget shows nothing
        for output in cell.get("outputs", []):
            if "execution_count" in output: output["execution_count"] = None
    path.write_text(json.dumps(json.loads(nbformat.writes(nb)), sort_keys=True, indent=1, ensure_ascii=False) + "\n", "utf-8")


if __name__ == "__main__":
    os.environ |= {"OMP_NUM_THREADS": "1"}
    for path in [Path(p).resolve() for p in sys.argv[1:]] or sorted(p for p in (ROOT/"nbs").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts):
        print(path.relative_to(ROOT), flush=True)
        stored(path)
