"""The package must be what its notebooks export, and the notebooks must be clean: run both steps and see whether a file changed."""
import hashlib, re, subprocess, sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
STEPS = ["nbdev_export"], ["nbdev_clean"], ["nbdev_clean", "--fname", "reports"]


def snapshot() -> dict[str, str]:
    "Every file that the steps may write -> its hash."
    files = [*ROOT.glob("workbench/**/*.py"), *ROOT.glob("nbs/**/*.ipynb"), *ROOT.glob("reports/*.ipynb"), ROOT/"README.md"]
    return {str(f.relative_to(ROOT)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files
            if f.exists() and ".ipynb_checkpoints" not in f.parts}


def orphans() -> list[str]:
    "Exported modules whose notebook is gone: nbdev never deletes them."
    found = []
    for module in ROOT.glob("workbench/**/*.py"):
        edit = re.search(r"File to edit: (\S+)\.$", module.read_text("utf-8")[:2000], re.M)
        if edit and not (module.parent/edit[1]).resolve().exists(): found.append(str(module.relative_to(ROOT)))
    return found


def main() -> int:
    before = snapshot()
    for step in STEPS: subprocess.run([str(BIN/step[0]), *step[1:]], cwd=ROOT, check=True)
    subprocess.run([sys.executable, str(ROOT/".ci"/"docs.py"), "--readme"], cwd=ROOT, check=True)
    after = snapshot()
    changed = sorted(f for f in before.keys() | after.keys() if before.get(f) != after.get(f))
    for f in changed: print(f"out of sync (now written anew, commit it): {f}")
    for f in (gone := orphans()): print(f"its notebook is gone, delete it: {f}")
    print("in sync" if not (changed or gone) else "workbench/, nbs/, reports/ or README.md did not match their sources")
    return int(bool(changed or gone))


if __name__ == "__main__": sys.exit(main())
