"""The package as others get it: what it asks for, what it imports, what a wheel holds, and that a wheel can make a report."""
import ast, os, re, shutil, subprocess, sys, venv, zipfile
from importlib import metadata
from pathlib import Path

import nbformat
import pytest
import yaml

try: import tomllib
except ImportError: import tomli as tomllib   # Python 3.10

import workbench
from conftest import ROOT, WORKBENCH
from workbench.lm.errors import WorkbenchError
from workbench.zoo import saes

PEERS = {"transformer-lens", "nnsight", "nnterp", "pyvene", "sae-lens", "captum", "circuitsvis", "bertviz", "ecco", "inseq", "lit-nlp", "baukit", "eap",
         "auto-circuit", "circuit-tracer", "interpkit", "treescope", "penzai", "dictionary-learning", "sae-dashboard"}


def requirements(): return [re.split(r"[ ;<>=!~\[(]", r)[0].lower() for r in metadata.requires("interp-workbench") or []]


def test_no_other_interpretability_library_is_asked_for():
    assert {"torch", "transformers", "xarray", "papermill"} <= set(requirements()) and not PEERS & set(requirements())


def test_jupyterlab_and_nbdev_are_extras():
    core = [r for r in metadata.requires("interp-workbench") if "extra ==" not in r]
    assert not any(r.startswith(("jupyterlab", "nbdev", "pytest", "playwright")) for r in core)


def test_every_requirement_has_its_reason_beside_it():
    lines = (ROOT/"pyproject.toml").read_text().split("dependencies = [")[1].split("[project.scripts]")[0].splitlines()
    asked = [line for line in lines if line.strip().startswith('"')]
    assert len(asked) > 10 and all("# " in line for line in asked)


DISTRIBUTION = {"yaml": "pyyaml", "sklearn": "scikit-learn", "PIL": "pillow", "IPython": "ipython", "huggingface_hub": "huggingface-hub", "jupyter_client": "jupyter-client", "dask": "distributed"}


def test_what_is_imported_is_asked_for():
    "Every library that a module imports by name is a requirement of the package or of an extra."
    found = {}
    for path in ROOT.glob("workbench/**/*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            modules = [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module] if isinstance(node, ast.ImportFrom) and node.level == 0 else []
            found |= {m.split(".")[0]: path.name for m in modules if m}
    asked = {"workbench", *sys.stdlib_module_names, *requirements()}
    assert {m: f for m, f in found.items() if m not in asked and DISTRIBUTION.get(m, m) not in asked} == {}


def test_extras():
    with (ROOT/"pyproject.toml").open("rb") as f: extras = tomllib.load(f)["project"]["optional-dependencies"]
    assert {"lab", "dev", "cluster", "endpoints", "all"} == set(extras)
    assert {re.split(r"[<>=\[]", r)[0] for r in extras["cluster"]} == {"distributed", "fsspec", "psutil"} and extras["all"] == ["interp-workbench[lab,cluster,endpoints]"]


def test_the_oldest_versions_are_those_that_are_allowed():
    "tests/bounds/oldest.txt holds the lower bound of every requirement, so that `make bounds` tests what pyproject.toml promises."
    with (ROOT/"pyproject.toml").open("rb") as f: project = tomllib.load(f)["project"]
    pinned = dict(line.split("==") for line in (ROOT/"tests"/"bounds"/"oldest.txt").read_text().splitlines() if "==" in line and not line.startswith("#"))
    exact = lambda version: tuple(int(n) for n in re.findall(r"\d+", version))
    for asked in project["dependencies"] + project["optional-dependencies"]["cluster"]:
        name, least = re.match(r"([\w-]+)>=([\d.]+)", asked).groups()
        assert name in pinned and exact(pinned[name])[:len(exact(least))] >= exact(least), asked
        assert exact(pinned[name])[:1] == exact(least)[:1], f"{name}: {pinned[name]} is not the oldest that {asked} allows"


def test_version_changelog_and_citation_agree():
    cite, changes = yaml.safe_load((ROOT/"CITATION.cff").read_text()), (ROOT/"CHANGELOG.md").read_text()
    assert {"cff-version", "message", "title", "authors"} <= set(cite) and cite["cff-version"] == "1.2.0" and cite["license"] == "MIT"   # what the schema asks for
    assert cite["version"] == workbench.__version__ == metadata.version("interp-workbench") and f"## {workbench.__version__}" in changes
    assert "MIT License" in (ROOT/"LICENSE").read_text() and all("name" in a for a in cite["authors"])


def fresh(code): return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=os.sep)


def test_import_is_lazy():
    heavy = "torch transformers numpy pandas xarray plotly papermill nbformat IPython".split()
    done = fresh(f"import sys, workbench; print([m for m in {heavy} if m in sys.modules])")
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_public_names_arrive_when_asked_for():
    from workbench.lm.load import load
    assert workbench.load is load and workbench.WorkbenchError is WorkbenchError and workbench.lens.__name__ == "workbench.lens"
    assert {"load", "Site", "zoo", "tasks"} <= set(dir(workbench))
    with pytest.raises(AttributeError, match="no attribute 'laod'"): workbench.laod


def test_every_room_can_be_reached_from_the_package():
    rooms = {p.parent.name for p in (ROOT/"workbench").glob("*/__init__.py")}
    assert rooms <= set(workbench.__all__) and all(getattr(workbench, r).__name__ == f"workbench.{r}" for r in rooms)


def test_the_readme_names_commands_that_exist():
    text = (ROOT/"README.md").read_text()
    commands = set(re.findall(r"^make (\w+)", text, re.M)) | set(re.findall(r"`make (\w+)`", text))
    assert {"report", "test"} <= commands
    for target in commands: assert subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True).returncode == 0, target
    for word in re.findall(r"^workbench (\w+)", text, re.M):
        assert subprocess.run([*WORKBENCH, word, "--help"], capture_output=True).returncode == 0, word
    for link in re.findall(r"\]\(((?!https?:|#)[^)]+)\)", text): assert (ROOT/link).exists(), link


# --- the wheel --------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    "A wheel, built from a copy so that no stale build folder can leak into it."
    source = tmp_path_factory.mktemp("source")
    for name in "workbench", "reports", "labextension", "nbs/tutorials": shutil.copytree(ROOT/name, source/name, ignore=shutil.ignore_patterns("__pycache__", ".ipynb_checkpoints"))
    for name in "pyproject.toml", "setup.py", "README.md", "LICENSE": shutil.copy(ROOT/name, source/name)
    done = subprocess.run([sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(source/"dist"), str(source)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    [path] = (source/"dist").glob("*.whl")
    return path


@pytest.fixture(scope="session")
def installed(wheel, tmp_path_factory):
    "An environment that holds the wheel, and sees the packages of this one but not this clone."
    root = tmp_path_factory.mktemp("installed")
    venv.create(root/"venv", with_pip=False, symlinks=True)
    python = root/"venv"/"bin"/"python"
    site = Path(subprocess.run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], capture_output=True, text=True).stdout.strip())
    here = {str(Path(p)) for p in sys.path if p.endswith(("site-packages", "dist-packages"))}
    (site/"packages.pth").write_text("\n".join(sorted(here)))
    done = subprocess.run([sys.executable, "-m", "pip", "--python", str(python), "install", "--no-deps", "--force-reinstall", "--no-index", str(wheel)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return root


def in_wheel(installed, *words): return subprocess.run([str(installed/"venv"/"bin"/"workbench"), *words], cwd=installed, capture_output=True, text=True, timeout=400)


@pytest.mark.wheel
def test_wheel_holds_everything(wheel):
    held = set(zipfile.ZipFile(wheel).namelist())
    expected = {str(p.relative_to(ROOT)) for p in ROOT.glob("workbench/**/*") if p.is_file() and "__pycache__" not in p.parts and ".ipynb_checkpoints" not in p.parts}
    expected |= {f"workbench/{p.relative_to(ROOT)}" for p in (ROOT/"reports").glob("*") if p.suffix in (".py", ".ipynb")}
    expected |= {f"workbench/tutorials/notebooks/{p.name}" for p in (ROOT/"nbs"/"tutorials").glob("*") if p.suffix in (".py", ".ipynb")}
    assert expected - held == set()
    assert {n.split(".data/data/")[1] for n in held if ".data/data/" in n} == {f"share/jupyter/labextensions/interp-workbench/{f}" for f in ("package.json", "static/lab.js")}
    assert {"workbench/reports/tour.ipynb", "workbench/reporting/static/page.js", "workbench/reporting/static/page.css"} <= held
    assert {f"workbench/zoo/models/{n}/model.safetensors" for n in workbench.zoo.names()} <= held
    assert {f"workbench/zoo/saes/{n}/{f}" for n in saes.names() for f in ("sae_weights.safetensors", "cfg.json", "card.json")} <= held and len(saes.names()) == 6
    assert {"workbench/reporting/static/gallery.js", "workbench/reporting/static/gallery.css"} <= held
    assert not [n for n in held if n.startswith(("tests/", "nbs/", "reports/", "build/"))]


@pytest.mark.wheel
def test_wheel_lists_its_reports(installed):
    where = subprocess.run([str(installed/"venv"/"bin"/"python"), "-c", "import workbench; print(workbench.__file__)"], cwd=installed, capture_output=True, text=True).stdout
    assert str(installed) in where
    assert (installed/"venv"/"share"/"jupyter"/"labextensions"/"interp-workbench"/"static"/"lab.js").exists()
    assert "tour" in in_wheel(installed, "reports").stdout and "micro" in in_wheel(installed, "models").stdout
    copy = Path(in_wheel(installed, "tutorial", "1").stdout.strip()); assert copy.parent == installed/"tutorials" and '"workbench.tutorials' not in copy.read_text("utf-8")[:50] and "](../" not in copy.read_text("utf-8"), "no link that leads nowhere"


@pytest.mark.wheel
def test_the_wheel_serves_a_user_outside_the_clone(installed):
    """A report, a widget as a page, a dictionary and the commands. The environment sees the libraries of this one, so a requirement that
    pyproject.toml forgets is not found here; `make wheel` installs into an empty environment, and `test_what_is_imported_is_asked_for` reads the imports."""
    done = subprocess.run([str(installed/"venv"/"bin"/"python"), str(ROOT/"tests"/"bounds"/"outside.py"), str(ROOT)], cwd=installed, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr


# --- papermill alone --------------------------------------------------------------------------------------------------
def test_tour_runs_under_plain_papermill(tmp_path):
    out = tmp_path/"out.ipynb"
    done = subprocess.run([str(Path(sys.executable).parent/"papermill"), str(ROOT/"reports"/"tour.ipynb"), str(out), "-p", "model", "micro", "--no-progress-bar"],
                          capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    cells = nbformat.read(out, 4).cells
    assert [c for c in cells if "result" in c.metadata.get("tags", [])][0].outputs
