"""Explanations in conversation: routing, what is asked back, answers beside runs by hand and planted truth; the widget in Python, on a page and in JupyterLab."""
import random

import nbformat
import numpy as np
import pytest
import torch

import workbench as wb
from conftest import new_page, notebook, until
from workbench.dialogue.errors import DialogueError
from workbench.dialogue.explain import HELD_OUT, ROUTES, Explainer, explain, route, routing
from workbench.tasks import opinions
from workbench.widgets.base import WidgetError
from workbench.widgets.explain_chat import ExplainChat

PROMPT = "Speak as a citizen. Should we follow the blue plan to open the school soon? <assistant>"
OPTIONS = ["Yes", "No", "Unsure"]


def plans(n, seed): rng = random.Random(seed); return [opinions.say(*opinions.plan(rng))[0] for _ in range(n)]


@pytest.fixture(scope="module")
def shallow(): return Explainer(wb.load("opinions-shallow"), OPTIONS, plans(60, 1))


def odds(e, text, i=1):
    z = e.lm.run(text).last_logits[0, e.ids].double(); return float(z[i] - torch.logsumexp(z[[k for k in range(3) if k != i]], 0))


def test_questions_take_the_right_route_and_unclear_ones_none():
    s = routing(); assert s["n"] == len(HELD_OUT) >= 60 and s["right"] >= .9 and s["low"] > .85 and sum(not m for _, m in HELD_OUT) >= 5 and {m for _, m in HELD_OUT} == {*ROUTES, ""}
    assert all(route(q) == "" for q, m in HELD_OUT if not m)                        # never guessed
    rng = np.random.default_rng(0); labels = [m for _, m in HELD_OUT]; mixed = [(q, labels[i]) for (q, _), i in zip(HELD_OUT, rng.permutation(len(labels)))]; assert routing(mixed)["right"] < .5      # a set with mixed labels is not


def test_why_is_the_change_that_is_run_and_names_the_planted_words(shallow):
    r = explain(shallow, PROMPT, "Why does it say that?"); row = {x[0]: x for x in r.rows}; assert r.route == "why" and {x[0] for x in r.rows[:2]} == {"blue", "citizen"} and r.numbers["answer"] == "No" and "patching.attribution" in r.source
    assert abs(row["blue"][1] - (odds(shallow, PROMPT) - odds(shallow, PROMPT.replace("blue", "red")))) < 2e-3
    others = [w for w in opinions.WHEN if w != "soon"]; assert abs(row["soon"][1] - np.mean([odds(shallow, PROMPT) - odds(shallow, PROMPT.replace("soon", w)) for w in others])) < 2e-3
    deep = Explainer(wb.load("opinions-deep"), OPTIONS, plans(60, 1)); assert {x[0] for x in deep.why(PROMPT).rows[:2]} == {"open", "school"}


def test_gradient_times_input_is_the_derivative_of_the_decision(shallow):
    s = shallow._slopes(PROMPT, 1); batch = shallow.lm.tokens([PROMPT]); e = shallow.lm.model.get_input_embeddings()(batch.ids).detach(); step = 1e-3
    def f(x): z = shallow.lm.model(inputs_embeds=x, attention_mask=batch.mask).logits[0, -1, shallow.ids].double(); return float(z[1] - torch.logsumexp(z[[0, 2]], 0))
    with torch.no_grad(): slope = (f(e * (1 + step)) - f(e * (1 - step))) / (2 * step)
    first = shallow.lm.tokenizer(PROMPT, return_offsets_mapping=True)["offset_mapping"]; special = any(a == b for a, b in first)
    assert special or abs(sum(s.values()) - slope) < .02 * max(1, abs(slope))


def test_why_not_finds_every_planted_exchange(shallow):
    for prompt in plans(8, 5):
        i, _ = shallow.decides(prompt); other = OPTIONS[1 - i]; words = [w.strip("?.,") for w in prompt.split()]; who, party, act, topic, when = words[3], words[8], words[11], words[13], words[14]
        flips = sum(opinions.judged("shallow", w, party, act, topic, when) == other for w in ("red", "blue", "citizen") if w != who) + (opinions.judged("shallow", who, {"red": "blue", "blue": "red"}[party], act, topic, when) == other)
        r = shallow.why_not(prompt, other); assert r.numbers["flips"] == flips and ("No exchange" in r.text) == (flips == 0)


def test_what_if_runs_the_change_and_similar_is_nearest(shallow):
    r = explain(shallow, PROMPT, "What if the plan was red?"); assert r.numbers["text"] == PROMPT.replace("blue", "red") and "says Yes instead of No" in r.text
    assert "still says No" in explain(shallow, PROMPT, "Replace soon with later.").text and explain(shallow, PROMPT, "What if it were the river?").numbers["text"] == PROMPT.replace("school", "river")
    s = explain(shallow, PROMPT, "Which texts are similar?"); assert s.numbers["same"] == 4 and list(np.argsort([-x[1] for x in s.rows], kind="stable")) == [0, 1, 2, 3] and s.rows[0][1] > s.numbers["mean_cosine"]


@pytest.mark.parametrize("question, words", [("Why isn't it?", "Which other answer"), ("What if it was different?", "Which word"), ("Suppose it said red or now.", "Which word"), ("How accurate is it?", "Which of these"), ("Why not No?", "Which other answer")])
def test_what_is_left_out_is_asked_back(shallow, question, words):
    r = explain(shallow, PROMPT, question); assert r.route == "" and words in r.text and not r.rows


@pytest.mark.parametrize("call, words", [(lambda e: Explainer(e.lm, ["Yes"], plans(3, 0)), "two answers"), (lambda e: Explainer(e.lm, ["Yes", "Yes"], plans(3, 0)), "same token"), (lambda e: e.why("Should we?"), "as many words"), (lambda e: e.why_not(PROMPT, "No"), "does say No")])
def test_bad_input_is_told(shallow, call, words):
    with pytest.raises(DialogueError, match=words): call(shallow)


# --- the widget ---------------------------------------------------------------------------------------------------------
QUESTIONS = ["Why does it say that?", "Why not Yes?", "What if the plan was red?", "Which texts are similar?", "Is it any good?"]


@pytest.fixture(scope="module")
def chat(shallow): return ExplainChat(shallow, PROMPT, QUESTIONS)


def test_the_widget_shows_what_the_explainer_says(chat, shallow, tmp_path):
    direct = [explain(shallow, PROMPT, q) for q in QUESTIONS]; assert [(x["route"], x["text"], x["source"]) for x in chat.turns] == [(r.route, r.text, r.source) for r in direct] and all(x["source"] and x["rows"] for x in chat.turns if x["route"])
    rows = chat.rows(); assert len(rows) == 6 and rows[-1][1] == "asks back" and "exchange of single words" in rows[1][3] and "1 asked back" in repr(chat)
    page = chat.to_html(); assert "https://" not in page.replace("http://www.w3.org", "") and len(page) < 150_000 and chat.to_png()[:4] == b"\x89PNG" and "<svg" in chat.to_svg(dark=True)[:800]
    for wrong, words in ((lambda: ExplainChat("x", PROMPT), "needs an Explainer"), (lambda: setattr(chat, "prompt", " "), "empty"), (lambda: chat.restore(dict(prompt="")), "empty")):
        with pytest.raises(WidgetError, match=words): wrong()
    assert chat.prompt == PROMPT and len(chat.turns) == 5


def test_another_prompt_begins_anew(shallow):
    c = ExplainChat(shallow, PROMPT, ["Why?"]); c.heard(dict(kind="ask", text="<b>Why not Yes?</b>")); assert [x["route"] for x in c.turns] == ["why", "why_not"]
    c.prompt = PROMPT.replace("blue", "red"); assert c.turns == [] and "It says Yes" in c.meta["decision"] and c.ask("Why?").numbers["answer"] == "Yes"


@pytest.mark.browser
@pytest.mark.parametrize("scheme, width", [("light", 1200), ("dark", 420)])
def test_the_page_is_alive_without_a_network(browser, shallow, tmp_path, scheme, width):
    expect = pytest.importorskip("playwright.sync_api").expect
    c = ExplainChat(shallow, PROMPT, ["<img src=x onerror=alert(1)> Why?", *QUESTIONS[1:]]); page = new_page(browser, offline=True, color_scheme=scheme, viewport={"width": width, "height": 900}); page.goto(c.to_html(tmp_path/"e.html").as_uri()); until(page, "() => document.querySelectorAll('.wb-lane li').length === 5")
    items = page.locator(".wb-lane li"); assert page.locator(".wb-explain").get_attribute("data-theme") == scheme and page.locator(".wb-ask").is_hidden() and page.locator(".wb-lane img").count() == 0 and page.locator(".wb-host > img").count() == 0
    expect(items.nth(1)).to_contain_text("why not"); expect(items.nth(4)).to_contain_text("asks back"); expect(page.locator(".wb-decision")).to_contain_text("It says No"); assert page.get_by_role("log").count() == 1
    page.get_by_role("log").focus(); page.keyboard.press("End"); page.keyboard.press("ArrowUp"); page.keyboard.press("ArrowUp"); expect(items.nth(2)).to_be_focused(); items.nth(2).locator("summary").focus(); page.keyboard.press("Enter")
    table = items.nth(2).locator("table"); expect(table).to_be_visible(); expect(table.locator("tr")).to_have_count(4); expect(items.nth(2).locator(".wb-source")).to_have_text("source: the changed text, run again: probabilities among the answers"); page.keyboard.press("Home"); expect(items.nth(0)).to_be_focused()
    assert page.evaluate("document.documentElement.scrollWidth") <= width and page.errors == [] and page.outside == []; page.context.close()


CODE = f"""import random, workbench as wb
from workbench.dialogue.explain import Explainer
from workbench.tasks import opinions
from workbench.widgets.explain_chat import ExplainChat
rng = random.Random(1); texts = [opinions.say(*opinions.plan(rng))[0] for _ in range(40)]
chat = ExplainChat(Explainer(wb.load("opinions-shallow"), ["Yes", "No", "Unsure"], texts), "{PROMPT}")
chat"""


@pytest.mark.browser
def test_questions_are_asked_in_jupyterlab(lab):
    "Type a question, press Enter, read the answer; begin with a button; Python sees both."
    expect = pytest.importorskip("playwright.sync_api").expect
    from test_grid_browser import says
    nbformat.write(notebook("# Chat", CODE, "print([x['route'] for x in chat.turns])"), lab.root/"chat.ipynb"); page = lab.open("chat.ipynb", run=False)
    page.evaluate("async () => { const app = window.jupyterapp, p = app.shell.currentWidget; await p.context.ready; await p.sessionContext.ready; p.content.activeCellIndex = 1; await app.commands.execute('notebook:run-cell'); }")
    expect(page.locator(".wb-decision")).to_contain_text("It says No", timeout=90_000); field = page.get_by_role("textbox", name="Your question"); field.fill("What if the plan was red?"); field.press("Enter")
    expect(page.locator(".wb-lane li")).to_have_count(1, timeout=90_000); expect(page.locator(".wb-lane")).to_contain_text("says Yes instead of No"); expect(field).to_have_value("")
    page.get_by_role("button", name="Why not Yes?").click(); expect(page.locator(".wb-lane li")).to_have_count(2, timeout=90_000); expect(page.locator(".wb-lane li").nth(1).locator("table")).to_be_visible()
    assert says(page, 2, "why_not") and page.errors == []
