"""The tutorials: what a student gets, whether the solutions pass and the stubs do not, and the first of them done in a real JupyterLab."""
import json, os, re

import nbformat
import pytest
from nbclient import NotebookClient

from conftest import new_page, until
from workbench.reporting.kernel import ReportKernel
from workbench.teach.build import BLOCK, bare, asked_next, emptied, filled, solved, source, student, teacher
from workbench.teach.path import open_tutorial, tutorials
from workbench.widgets import Predict

PATH = tutorials()
STUB = """from workbench.teach.lesson import Wrong as _Wrong
try: {check}
except _Wrong as e: assert "\\n" not in str(e) and len(str(e)) < 300, str(e)
else: raise AssertionError("the check passes a stub")"""


def nb_of(t): return json.loads(t.path.read_text("utf-8"))


def tried(nb):
    "The tested copy, where each solution is met first by what the student begins with: its check must refuse that."
    found, made = [source(c) for c in nb["cells"]], solved(nb); cells, empty = [], []
    for i, c in enumerate(nb["cells"]):
        if c["cell_type"] == "code" and BLOCK.search(source(c)): empty.append((filled(bare(source(c))), emptied(bare(source(c)), asked_next(nb["cells"], i)), next(t for t in found[i:] if "lesson.check(" in t)))
    for c in made["cells"]:
        if empty and c["cell_type"] == "code" and source(c) == empty[0][0]:
            _, stub, check = empty.pop(0); lines = [l for l in bare(check).splitlines() if "lesson.check(" in l]
            cells += [c | {"id": f"{c['id']}a", "source": stub}, c | {"id": f"{c['id']}b", "source": STUB.format(check="; ".join(lines))}]
        cells.append(c)
    assert not empty, f"solutions that no copy holds: {empty[0][0][:60]}"
    return made | {"cells": cells}


@pytest.mark.parametrize("t", PATH, ids=lambda t: t.name)
def test_solutions_pass_and_stubs_and_mistakes_do_not(t, tmp_path):
    "Run as a student would, offline, in an empty folder. `rejects` and `complete` stand in the hidden cells."
    nb = nbformat.from_dict(tried(nb_of(t))); kinds = [c.source for c in nb.cells if c.cell_type == "code"]
    NotebookClient(nb, timeout=600, kernel_name="python3", kernel_manager_class=ReportKernel, resources={"metadata": {"path": str(tmp_path)}}).execute()
    said = [o.get("text", "") + o.get("data", {}).get("text/plain", "") for c in nb.cells if c.cell_type == "code" for o in c.outputs]
    assert sum(s.startswith("✓ Right") for s in said) >= t.exercises >= 4 and sum("lesson.rejects(" in k for k in kinds) and any("lesson.complete()" in k for k in kinds)


@pytest.mark.parametrize("t", PATH, ids=lambda t: t.name)
def test_a_student_sees_no_solution_and_a_teacher_all(t, tmp_path):
    nb = nb_of(t); mine, theirs = student(nb), teacher(nb)
    for made in (mine, theirs): nbformat.validate(nbformat.from_dict(made))
    code = "\n".join(source(c) for c in mine["cells"] if c["cell_type"] == "code"); text = "\n".join(source(c) for c in mine["cells"] if c["cell_type"] == "markdown"); whole = "\n".join(map(source, theirs["cells"]))
    assert not re.search(r"SOLUTION|^#\||rejects|complete\(\)", code, re.M) and "teacher -->" not in text and not any(c.get("outputs") for c in mine["cells"])
    solutions = [m[2] for c in nb["cells"] for m in BLOCK.finditer(source(c))]; assert text.count("Solution (open it") >= t.exercises and whole.count("--- solution ---") == len(solutions)
    assert text.count("<summary>Hint") >= 2 * t.exercises and text.count("Predict(") + code.count("Predict(") >= 2 and code.count(".reveal(") >= 2, "layered hints, prediction before reveal"
    assert whole.count("For the teacher.") >= 3 and re.search(r"^#+ .*fool you", text, re.M | re.I) and re.search(r"^#+ Further reading", text, re.M | re.I) and 30 <= t.minutes <= 60 and t.line and t.question.endswith("?")
    assert len([c for c in mine["cells"]]) < 90 and t.path.stat().st_size < 600_000


def test_links_of_a_copy_lead_somewhere(tmp_path):
    for t in PATH:
        there = open_tutorial(t.number, tmp_path)
        for m in re.finditer(r"\]\(([^)#\s]+\.ipynb)", "\n".join(source(c) for c in json.loads(there.read_text("utf-8"))["cells"])): assert (there.parent/m[1]).is_file(), (t.name, m[1])


def test_the_path(cli):
    assert [t.number for t in PATH] == list(range(1, len(PATH) + 1)) and len({t.name for t in PATH}) == len(PATH) >= 8
    listed = cli("tutorial", "--json"); assert [t["name"] for t in json.loads(listed.stdout)] == [t.name for t in PATH]
    first = cli("tutorial", "1"); assert first.returncode == 0 and first.stdout.strip().endswith(f"{PATH[0].path.name}")
    wrong = cli("tutorial", "indcution"); assert wrong.returncode == 2 and "Did you mean 'induction'" in wrong.stderr and wrong.stderr.count("\n") == 1


# --- Predict, on a page ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_prediction_on_a_page(browser, tmp_path, theme):
    page = new_page(browser, offline=True, color_scheme=theme); html = "<b>x</b> & </script>"
    page.goto(Predict("Which <i>layer</i>?", ["layer 0", html, "none"]).to_html(tmp_path/"p.html").as_uri()); page.wait_for_selector(".wb-predict")
    assert page.locator("button").is_disabled() and page.locator("legend").inner_text() == "Which <i>layer</i>?" and page.get_by_text(html, exact=True).count() == 1
    page.keyboard.press("Tab"); page.keyboard.press("Space"); page.keyboard.press("ArrowDown"); assert page.locator("input:checked").get_attribute("value") == html
    page.get_by_role("button").click(); assert "Noted" in page.locator(".wb-said").inner_text() and page.errors == [] == page.outside
    page.context.close()


# --- a newcomer, in JupyterLab ----------------------------------------------------------------------------------------------
TEXT = "i => window.jupyterapp.shell.currentWidget.content.widgets[i].model.sharedModel.getSource()"
SET = "([i, text]) => { const n = window.jupyterapp.shell.currentWidget.content; n.activeCellIndex = i; n.widgets[i].model.sharedModel.setSource(text); }"
SHOW = "async i => { const n = window.jupyterapp.shell.currentWidget.content; n.activeCellIndex = i; await n.scrollToItem(i, 'start'); }"
RUN = "async () => { try { return await window.jupyterapp.commands.execute('notebook:run-all-cells'); } catch { return false; } }"
SAID = """() => window.jupyterapp.shell.currentWidget.content.widgets.filter(w => w.model.type === 'code').flatMap(w => w.model.outputs.toJSON())
  .map(o => o.traceback ? o.traceback.join('\\n') : [o.text ?? o.data?.['text/plain'] ?? ''].flat().join('')).join('\\n')"""        # from the model: what is far from the window is not in the page


def test_a_newcomer_finishes_the_first_tutorial_without_leaving_the_page(lab):
    "Run all leads to the first open exercise, in one sentence; what is typed is judged; the folded solutions of the page are enough to the end."
    there = open_tutorial(1, lab.root); page = lab.open(there.name, run=False)
    until(page, "() => window.jupyterapp.shell.currentWidget.sessionContext.isReady")
    n = page.evaluate("() => window.jupyterapp.shell.currentWidget.content.widgets.length"); texts = [page.evaluate(TEXT, i) for i in range(n)]
    assert not page.evaluate(RUN); said = page.evaluate(SAID)
    stopped = [l for l in said.splitlines() if l.startswith(("○", "✗"))]; assert len(stopped) == 1 and "three dots" in stopped[0] and "Traceback" not in said
    asks = next(i for i, t in enumerate(texts) if "Predict(" in t and "import" not in t)
    page.evaluate(SHOW, asks); page.evaluate("() => window.jupyterapp.commands.execute('notebook:run-cell')")
    page.wait_for_selector(".wb-predict input"); page.locator(".wb-predict input").first.check(); page.locator(".wb-predict button").first.click(); until(page, "() => document.querySelector('.wb-predict .wb-said').innerText.startsWith('Noted')")
    page.evaluate(SHOW, next(i for i, t in enumerate(texts) if "Solution (open it" in t)); page.locator("details summary", has_text="Solution").first.click()
    page.wait_for_selector("details[open] pre"); assert page.locator("details[open] pre").first.inner_text().strip()
    k, answers = 0, [re.search(r"```python\n(.*?)\n```", t, re.S)[1] for t in texts if "Solution (open it" in t]
    for i, t in enumerate(texts):
        if re.search(r"^ *\.\.\.$|= \.\.\.$", t, re.M) and "lesson.check(" not in t and "```" not in t and not t.startswith("#"): page.evaluate(SET, [i, answers[k]]); k += 1
    assert k == len(answers)
    assert page.evaluate(RUN); said = page.evaluate(SAID)
    assert said.count("✓ Right") == PATH[0].exercises and not re.search(r"^[○✗]", said, re.M) and page.errors == [] == page.outside
