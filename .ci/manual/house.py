"""The parts of the site, in the order in which they are read, and where a notebook's page lies."""
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NBS = ROOT/"nbs"
BEGIN = {"": ("Start", "What the workbench is, in a few minutes"),
         "guide": ("Guide", "Coming from other tools, words, methods and their papers, limits"),
         "tutorials": ("Tutorials", "Questions that are answered by experiment, with exercises that say what is wrong"),
         "gallery": ("Widgets", "Every widget, alive on its page, without a kernel"),
         "reports": ("Reports", "Notebooks with parameters: what each asks for, and one that was run")}
ROOMS = {"lm": ("Models", "open, read and change a model"), "zoo": ("Built-in models", "small, trained, with cards"), "tasks": ("Tasks", "prompts with planted truth"),
         "experiments": ("Experiments", "statistics and designs"), "lens": ("Lens", "what each layer would say"), "attention": ("Attention", "where heads look and what they write"),
         "patching": ("Patching", "which states carry an answer"), "features": ("Features", "dictionaries of directions"), "bias": ("Bias", "what wins when sources disagree"),
         "knowledge": ("Knowledge", "what an answer rests on"), "dialogue": ("Dialogue", "who says what, and what moves it"), "theory": ("Theory", "small demonstrators of ideas"),
         "widgets": ("How widgets are made", "one front-end core, and what stands on it"), "reporting": ("Reporting", "reports, sweeps and pages"),
         "scale": ("Scale", "many processes, large corpora"), "teach": ("Teaching", "lessons whose checks name the mistake")}


def part(folder: str) -> tuple[str, str]:
    "Title and line of a folder, also of one that nobody named here."
    return BEGIN.get(folder) or ROOMS.get(folder) or (folder.replace("_", " ").capitalize(), "")


def group(folder: str) -> str:
    "The heading a folder stands under."
    return "Begin" if folder in BEGIN else "Reference" if folder.split("/")[0] == "api" else "Rooms"


def order(folder: str) -> tuple:
    "Begin, rooms from the ground up, reference."
    known = [*BEGIN, *ROOMS]; bare = folder.removeprefix("api/")
    return ["Begin", "Rooms", "Reference"].index(group(folder)), folder != "api" and (known.index(bare) if bare in known else len(known)), folder


def destination(notebook: Path) -> str:
    "`lm/00_sites.ipynb` -> `lm/sites.html`."
    return notebook.with_name(re.sub(r"^\d+[a-z]?_", "", notebook.stem) + ".html").as_posix()


def notebooks() -> list[Path]:
    "The notebooks of nbs/, relative to it: floors in order, the index first, then by number."
    found = (p.relative_to(NBS) for p in NBS.rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
    return sorted(found, key=lambda p: (order("" if str(p.parent) == "." else p.parent.as_posix()), p.stem != "index", p.name))
