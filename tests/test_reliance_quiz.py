"""The reliance quiz: items beside runs by hand, scores of scripted users, the widget in Python, on a page and in JupyterLab."""
import json, os, re, subprocess

import nbformat
import numpy as np
import pytest

import workbench as wb
from conftest import ROOT, new_page, notebook, until
from test_front_end import node
from workbench.tasks import make
from workbench.theory.errors import TheoryError
from workbench.theory.reliance import QuizItem, ScriptedUser, protocol, quiz_items, scores, suitability, word_weights
from workbench.widgets.base import WidgetError
from workbench.widgets.reliance_quiz import RelianceQuiz


@pytest.fixture(scope="module")
def micro(): return wb.load("micro")


@pytest.fixture(scope="module")
def task(): return make("laundry", n=120, seed=3, form="ordinal")


@pytest.fixture(scope="module")
def items(micro, task): return quiz_items(micro, task, n=12, seed=2)


def test_items_are_what_the_model_says_and_the_truth_is_planted(micro, items):
    for i in items:
        z = micro.run(i.prompt).last_logits[0]; assert i.model == max(i.options, key=lambda w: float(z[micro.answer_id(" " + w, after=i.prompt)]))
        words = i.prompt.split(":")[1].split(".")[0].replace(" ", "").split(","); assert list(i.options) == words and i.truth == words["first second third fourth fifth sixth".split().index(i.prompt.split()[-4])]
    assert {k: (sum(i.kind == k for i in items), sum(i.kind == k and not i.right for i in items)) for k in ("none", "feature", "example")} == {k: (4, 2) for k in ("none", "feature", "example")} and sum(not i.sound for i in items) == 2


def test_unsound_explanations_are_not_the_models(micro, task):
    many = quiz_items(micro, task, n=24, unsound=.5, seed=0); sound, not_sound = ([i for i in many if i.kind == "feature" and i.sound is s] for s in (True, False)); assert len(sound) > 1 and len(not_sound) > 1
    real = lambda i: [round(w, 3) for _, w in word_weights(micro, i.prompt, i.options, i.options.index(i.model))]
    for i in sound: assert np.allclose([w for _, w in i.words], real(i), atol=2e-3)
    for i in not_sound: w = [w for _, w in i.words]; assert sorted(w) == pytest.approx(sorted(real(i)), abs=2e-3) and int(np.argmax(np.abs(w))) == int(np.argmin(np.abs(real(i))))
    near, far = ([i.examples[0][2] for i in many if i.kind == "example" and i.sound is s] for s in (True, False)); assert min(near) > max(far)


def test_scripted_users_have_the_scores_that_they_must(items):
    trusting = scores(items, *ScriptedUser(trust=1)(items)); assert (trusting.over_reliance == 1).all() and (trusting.under_reliance == 0).all() and (trusting.team == trusting.model_only).all() and trusting.switched.dropna().eq(1).all()
    alone = scores(items, *ScriptedUser(skill=1, trust=0)(items)); assert (alone.over_reliance == 0).all() and (alone.team == 1).all() and (alone.human_only == 1).all()
    runs = [scores(items, *ScriptedUser(.6, .3, seed=s)(items)).loc["all"] for s in range(300)]; told = ScriptedUser(.6, .3).expected(.5, 6)
    for name in ("human_only", "model_only", "team", "over_reliance"): assert abs(np.mean([r[name] for r in runs]) - told[name]) < .03, name
    careful = protocol(items, lambda i, s: ScriptedUser(.6, .9, 0., seed=s)(i), 60); assert careful.over_reliance["none"] > .85 and len(careful) == 4


def test_over_reliance_without_wrong_answers_is_not_a_number():
    right = [QuizItem(f"q{n}", ("A", "B"), "A", "A") for n in range(3)]; s = scores(right, list("ABB"), list("AAB")).loc["all"]
    assert np.isnan(s.over_reliance) and s.n_model_wrong == 0 and s.under_reliance == pytest.approx(1 / 3) and s.switched == .5
    asked = suitability(right, list("AAA")).set_index("asked").met; assert not asked["the model errs"] and not asked["people err"] and not asked["there is something to gain"] and not asked["explanations are compared"]


@pytest.mark.parametrize("call, words", [(lambda lm: quiz_items(lm, make("laundry", n=20, position="first")), "wrong in 0"), (lambda lm: quiz_items(lm, make("laundry", n=20), n=2), "at least one item"), (lambda lm: QuizItem("q", ("A", "B"), "C", "A"), "the truth"), (lambda lm: QuizItem("q", ("A", "B"), "A", "A", "rule"), "choose one of")])
def test_bad_items_are_told(micro, call, words):
    with pytest.raises(TheoryError, match=words): call(micro)


def test_scores_in_the_page_are_pythons(items, tmp_path):
    runs = []
    for s, user in enumerate([ScriptedUser(trust=1), ScriptedUser(trust=0), ScriptedUser(.5, .5)]):
        a, b = user(items)
        for n in (12, 5, 1): table = scores(items[:n], a[:n], b[:n]); runs.append(dict(answers=[list(x) for x in zip(a[:n], b[:n])], table={k: {c: None if v != v else v for c, v in r.items()} for k, r in table.to_dict("index").items()}))
    (tmp_path/"fixture.json").write_text(json.dumps(dict(items=[i.plain() for i in items], runs=runs)))
    done = subprocess.run([node(), "--test", str(ROOT/"tests"/"js"/"reliance.test.mjs")], capture_output=True, text=True, env=os.environ | {"FIXTURE": str(tmp_path/"fixture.json")}, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(re.search(r"pass (\d+)", done.stdout)[1]) == 2


def test_the_widget_keeps_its_order(items):
    q = RelianceQuiz(items); q.answers = [[items[0].truth, ""]]; assert q.done()[0] == () and "0 answered" in repr(q)
    for wrong, words in ((lambda: setattr(q, "place", 1), "one after another"), (lambda: setattr(q, "answers", [[items[0].truth, ""], [items[1].truth, ""]]), "Only the last"), (lambda: setattr(q, "answers", [["", ""]]), "is no"), (lambda: q.scores(), "No question"), (lambda: RelianceQuiz(["x"]), "needs QuizItems")):
        with pytest.raises(WidgetError, match=words): wrong()
    assert q.play(ScriptedUser(trust=1)).scores().over_reliance["all"] == 1 and q.place == 12 and RelianceQuiz(items).restore(q.state()).scores().equals(q.scores())
    assert RelianceQuiz(items, asks="model").play(ScriptedUser(skill=1)).foreseen()["all"] == sum(i.right for i in items) / 12
    page = q.to_html(); assert "https://" not in page.replace("http://www.w3.org", "") and len(page) < 150_000 and q.to_png()[:4] == b"\x89PNG" and len(q.rows()) == 13


@pytest.mark.browser
@pytest.mark.parametrize("scheme, width", [("light", 1200), ("dark", 420)])
def test_a_quiz_in_a_page_by_keyboard(browser, items, tmp_path, scheme, width):
    "Always follow the model, with keys alone and no kernel: the scores say an over-reliance of 100%."
    expect = pytest.importorskip("playwright.sync_api").expect
    hostile = QuizItem("<img src=x onerror=alert(1)> first?", ("<b>A</b>", "B"), "B", "<b>A</b>", "feature", False, words=(("<i>first?</i>", 1.), ("second", -.5))); some = [hostile, *[next(i for i in items if i.kind == k) for k in ("example", "none")]]
    page = new_page(browser, offline=True, color_scheme=scheme, viewport={"width": width, "height": 900}); page.goto(RelianceQuiz(some).to_html(tmp_path/"q.html").as_uri()); until(page, "() => document.querySelectorAll('.wb-reliance input').length > 1")
    root = page.locator(".wb-reliance"); assert root.get_attribute("data-theme") == scheme and page.locator(".wb-host > img").count() == 0 and root.locator("img, b, i").count() == 0
    for n, item in enumerate(some):
        expect(page.get_by_role("heading", name=f"Question {n + 1} of 3")).to_be_visible(); assert page.get_by_role("group", name="What the model says").count() == 0
        page.get_by_role("group", name="1. What is your answer?").get_by_role("radio").first.focus(); page.keyboard.press("Space"); page.keyboard.press("Tab"); page.keyboard.press("Enter")
        says = page.get_by_role("group", name="What the model says"); expect(says).to_be_focused(); expect(says).to_contain_text(f"The model says {item.model}."); expect(page.get_by_role("group", name="1. What is your answer?").get_by_role("radio").first).to_be_disabled()
        assert says.locator(".wb-words .pro").count() == (item.kind == "feature") and says.locator("li").count() == (2 if item.kind != "none" else 0)
        radio = page.get_by_role("group", name="2. And now?").get_by_role("radio"); radio.first.focus(); page.keyboard.press("Space")
        for _ in range(item.options.index(item.model)): page.keyboard.press("ArrowDown")
        page.keyboard.press("Tab"); page.keyboard.press("Enter"); verdict = page.get_by_role("status"); expect(verdict).to_be_focused(); expect(verdict).to_contain_text(f"Right is {item.truth}. You said {item.options[0]}, then {item.model}"); assert ("not the model's own" in verdict.inner_text()) == (not item.sound)
        if n == 0: page.screenshot(path=str(tmp_path/"q.png"))
        page.keyboard.press("Tab"); page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Your scores")).to_be_focused(); row = page.locator(".wb-scores tr[data-kind=all] td"); table = scores(some, [i.options[0] for i in some], [i.model for i in some]).loc["all"]
    assert row.all_inner_texts()[:5] == ["3", *(f"{100 * table[k]:.0f}%" for k in ("human_only", "model_only", "team", "over_reliance"))] and page.locator(".wb-scores tr").count() == 5 and row.all_inner_texts()[4] == "100%"
    page.get_by_role("button", name="Begin again").click(); expect(page.get_by_role("heading", name="Question 1 of 3")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width and page.errors == [] and page.outside == []; page.context.close()


CODE = """import workbench as wb
from workbench.tasks import make
from workbench.theory.reliance import quiz_items
from workbench.widgets.reliance_quiz import RelianceQuiz
items = quiz_items(wb.load("micro"), make("laundry", n=120, seed=3, form="ordinal"), n=3, wrong=0., seed=2)
quiz = RelianceQuiz(items, asks="model")
quiz"""


@pytest.mark.browser
def test_a_guess_reaches_python_in_jupyterlab(lab, items):
    "Say what the model will answer; Python knows the guess and its score."
    expect = pytest.importorskip("playwright.sync_api").expect
    from test_grid_browser import says
    nbformat.write(notebook("# Quiz", CODE, "print(quiz.answers[0][0] == items[0].options[1], quiz.foreseen()['n'], quiz.place)"), lab.root/"quiz.ipynb"); page = lab.open("quiz.ipynb", run=False)
    page.evaluate("async () => { const app = window.jupyterapp, p = app.shell.currentWidget; await p.context.ready; await p.sessionContext.ready; p.content.activeCellIndex = 1; await app.commands.execute('notebook:run-cell'); }")
    group = page.get_by_role("group", name="What will the model say?"); expect(group).to_be_visible(timeout=90_000); group.get_by_role("radio").nth(1).check(); page.get_by_role("button", name="This is my guess").click()
    expect(page.locator(".wb-verdict")).to_contain_text("it says"); page.get_by_role("button", name="Next question").click(); expect(page.get_by_role("heading", name="Question 2 of 3")).to_be_visible()
    assert says(page, 2, "True 1 1") and page.errors == []
