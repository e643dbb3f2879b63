"The dialogue simulator in a real Chromium: its page from `file://` without network, and alive in a real JupyterLab, where a dialogue is played, a turn edited, a seat taken, and the edited turn opened in the attention explorer."
import re

import nbformat
import numpy as np
import pytest

expect = pytest.importorskip("playwright.sync_api").expect

from conftest import new_page, notebook, until
from workbench.widgets.feature_data import opened
from test_dialogue_widget import CLAIM, agents, monologue
from test_explorer_browser import RUN_CELL, quiet
from test_grid_browser import says
from workbench.dialogue.play import Said, hold
from workbench.dialogue.scenario import open_scenario
from workbench.dialogue.scripted import Arguer, Bayesian
from workbench.widgets.dialogue_simulator import DialogueSimulator, PersuasionSimulator
from workbench.widgets.packing import unpack
from workbench.widgets.society import SocietyView

pytestmark = pytest.mark.browser
READY = "() => document.querySelectorAll('.wb-dialogue .wb-card').length > 0 && document.querySelector('.wb-dialogue .wb-readout').textContent.length > 12"
UNNAMED = "() => [...document.querySelectorAll('.wb-dialogue :is(input, select, textarea, button, canvas)')].filter(e => !e.closest('label, .wb-attention, .wb-patching') && !e.closest('[aria-hidden]') && !e.getAttribute('aria-label') && !e.getAttribute('aria-hidden') && !e.title && !e.textContent.trim()).length"
INKS = "() => Math.min(...[...document.querySelectorAll('.wb-dialogue figure canvas')].map(c => { const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data, seen = new Set(); for (let i = 0; i < d.length; i += 4) if (d[i + 3] > 100) seen.add(d[i] << 16 | d[i + 1] << 8 | d[i + 2]); return seen.size; }))"
SEAT = "() => document.querySelector('.wb-seat').innerText.replace(/\\d+:\\d\\d/g, '')"                  # all but the clock
ODD = "</script><img src=x onerror='window.hit=1'> 👑 שלום"


def ready(page, path): page.goto(path.as_uri()); until(page, READY); return page
def card(page, t): return page.locator(f".wb-cards [data-t='{t}']")
def readout(page): return page.locator(".wb-readout").first


class Three(Bayesian):
    "A script that reports its belief in three ways which differ."
    def __call__(self, v):
        s = Bayesian.__call__(self, v); p = s.belief["closed_form"]
        if v.ask: s.belief |= dict(model_logit=min(1., p + .07), verbal_report=round(4 * p) / 4)
        return s


@pytest.fixture(scope="module")
def made():
    w = DialogueSimulator(open_scenario(CLAIM), {**agents(), "persuadee": Three(), "observer": lambda v: Said(ODD, note="PRIVATE", meaning=dict(argument=0.))}, runs=12, run=4); w.weigh(); w.edit(2, text="A bad one.", meaning=dict(argument=-1.5)); return w
@pytest.fixture(scope="module")
def page_file(made, tmp_path_factory): return made.to_html(tmp_path_factory.mktemp("page")/"d.html")
@pytest.fixture
def shown(offline_page, page_file): return ready(offline_page, page_file)


# --- a page without kernel and network -----------------------------------------------------------------------------------
def test_a_page_says_what_it_is_and_shows_every_source(shown, made):
    assert shown.locator(".wb-say li").all_inner_texts() == made.meta["say"]; expect(card(shown, 3)).to_have_attribute("aria-current", "true"); expect(card(shown, 3)).to_contain_text("A bad one."); expect(card(shown, 3)).to_contain_text("edited")
    chips = card(shown, 3).locator(".wb-chip").all_inner_texts(); b = made.dialogue.beliefs().query("turn == 3 and measure == 'agreement'"); assert [c.rsplit(" ", 1)[0] for c in chips] == ["closed form", "model logit", "verbal report"] and [float(c.rsplit(" ", 1)[1]) for c in chips] == pytest.approx(b.value.tolist(), abs=6e-4)
    for words in ("closed form: exact, from a rule", "model logit: the model's probability", "verbal report: what the agent said"): expect(shown.locator(".wb-side")).to_contain_text(words)
    d = made.difference().query("turn == 3 and measure == 'agreement' and source == 'closed_form'").difference.iloc[0]; expect(readout(shown)).to_contain_text(f"closed form minus main: −{abs(d):.3f}".rstrip("0").replace("0.", ".")); expect(shown.locator(".wb-side")).to_contain_text("Messages 0 to 1 are the same events in both")
    assert shown.evaluate(INKS) > 3 and shown.locator(".wb-tools").count() == 0 and quiet(shown)


def test_chart_and_transcript_move_together(shown, made):
    shown.locator(".wb-plots").focus(); shown.keyboard.press("Home"); expect(readout(shown)).to_contain_text("after 0 messages"); expect(card(shown, 0)).to_have_attribute("aria-current", "true"); shown.keyboard.press("ArrowRight"); expect(card(shown, 1)).to_have_attribute("aria-current", "true")
    card(shown, 4).click(); expect(readout(shown)).to_contain_text("after 4 messages"); card(shown, 2).hover(); expect(readout(shown)).to_contain_text("after 2 messages"); shown.mouse.move(2, 2); expect(readout(shown)).to_contain_text("after 4 messages")
    shown.locator(".wb-cards").focus(); shown.keyboard.press("ArrowUp"); expect(readout(shown)).to_contain_text("after 3 messages"); plot = shown.locator(".wb-plots canvas").first; box = plot.bounding_box(); last = 8
    plot.hover(position=dict(x=40 + (box["width"] - 50) * 6 / last, y=8)); expect(card(shown, 6)).to_have_class(re.compile("wb-hover")); plot.click(position=dict(x=40 + (box["width"] - 50) * 5 / last, y=3)); expect(card(shown, 5)).to_have_attribute("aria-current", "true"); assert quiet(shown)


def test_a_click_on_a_run_opens_its_transcript(shown, made):
    values = np.array(made._beliefs()[0]["parts"][0]["sources"][0]["values"], float); x = 8; top = int(values[:, x].argmax()); assert top != 4 and made.run == 4; plot = shown.locator(".wb-plots canvas").first; box = plot.bounding_box()
    plot.click(position=dict(x=40 + (box["width"] - 50) * x / 8, y=8 + (170 - 28) * (1 - values[top, x]))); opened = int(shown.get_by_label("run", exact=True).input_value()); assert values[opened, x] == values[top, x]
    said = made.dialogues[opened].messages; expect(card(shown, 1)).to_contain_text(said[0].text); expect(shown.locator(".wb-side")).not_to_contain_text("What the edit changed"); shown.locator(".wb-plots").focus(); shown.keyboard.press("ArrowDown"); expect(shown.get_by_label("run", exact=True)).to_have_value(str(min(11, opened + 1))); assert quiet(shown)


def test_through_the_eyes_of_a_role(shown, made):
    assert shown.evaluate("window.hit") is None; expect(card(shown, 7)).to_contain_text(ODD); expect(card(shown, 7)).to_contain_text("a note that only observer sees: PRIVATE")
    shown.get_by_label("eyes").select_option("persuadee"); expect(card(shown, 7)).to_have_text("message 6: persuadee does not hear it"); assert "PRIVATE" not in shown.locator(".wb-stage").inner_text() and ODD not in shown.locator(".wb-stage").inner_text() and shown.locator(".wb-stage .wb-chip").count() == 0
    facts = shown.locator(".wb-known"); expect(facts).to_contain_text("What persuadee was given after 3 messages"); expect(facts.locator(".wb-shut")).to_have_text("goalhidden"); expect(card(shown, 5)).to_contain_text("later than this turn")
    shown.get_by_label("eyes").select_option("persuader"); expect(card(shown, 7)).to_contain_text(ODD); assert "PRIVATE" not in shown.locator(".wb-stage").inner_text(); card(shown, 1).click(); expect(facts).to_contain_text("hidden until 2 were said"); card(shown, 2).click(); expect(facts).to_contain_text("SECRET-GOAL")
    shown.get_by_label("eyes").select_option("observer"); expect(facts.locator(".wb-shut")).to_have_count(3); assert quiet(shown)


def test_branches_files_and_names(shown, made):
    twigs = shown.locator(".wb-twig"); expect(twigs).to_have_count(2); twigs.first.click(); expect(card(shown, 3)).not_to_contain_text("A bad one."); expect(shown.locator(".wb-stage")).to_contain_text("Which turns mattered"); expect(twigs.first).to_have_attribute("aria-selected", "true"); twigs.first.focus(); shown.keyboard.press("ArrowDown"); shown.keyboard.press("Enter"); expect(card(shown, 3)).to_contain_text("A bad one."); expect(twigs.nth(1)).to_have_attribute("aria-selected", "true"); assert shown.locator(".wb-tree").get_attribute("role") == "tree"
    mains = shown.locator(".wb-tree canvas"); mains.click(position=dict(x=300, y=22)); expect(twigs.first).to_have_attribute("aria-selected", "true"); expect(shown.locator(".wb-strip li").first).to_contain_text("message"); shown.locator(".wb-strip button").first.click(); top = max(opened(made.chunk(("weights", "4", "main", "0", "closed_form"))), key=lambda k: abs(k["change"] or 0)); expect(card(shown, top["turn"] + 1)).to_have_attribute("aria-current", "true")
    with shown.expect_download() as got: shown.get_by_role("button", name="dialogues.jsonl").click()
    assert len(open(got.value.path()).read().splitlines()) == sum(len(d.tree) for d in made.dialogues)
    with shown.expect_download() as got: shown.get_by_role("button", name="convokit.zip").click()
    assert open(got.value.path(), "rb").read(2) == b"PK" and shown.evaluate(UNNAMED) == 0 and shown.locator("[role=alert]:visible").count() == 0
    assert shown.evaluate("() => new Set([...document.querySelectorAll('[id]')].map(e => e.id)).size === document.querySelectorAll('[id]').length") and quiet(shown)


@pytest.mark.parametrize("scheme, width", [("light", 1400), ("dark", 420)])
def test_themes_and_widths(browser, page_file, scheme, width):
    page = ready(new_page(browser, color_scheme=scheme, offline=True, viewport={"width": width, "height": 900}), page_file); assert page.locator(".wb-dialogue").get_attribute("data-theme") == scheme and page.evaluate("document.documentElement.scrollWidth") <= width
    page.wait_for_timeout(150); contrast = page.evaluate("() => { const lum = c => { const [r, g, b] = c.match(/[\\d.]+/g).map(Number).map(v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; }, paper = '%s'; return Math.min(...[...document.querySelectorAll('.wb-card b, .wb-said, .wb-chip')].map(e => { const a = lum(getComputedStyle(e).color), b = lum(paper); return (Math.max(a, b) + .05) / (Math.min(a, b) + .05); })); }" % ("rgb(255,255,255)" if scheme == "light" else "rgb(17,17,17)"))
    assert contrast > 4.4 and page.evaluate(INKS) > 3 and quiet(page); page.context.close()


def test_200_turns_and_100_runs_are_few_nodes(browser, tmp_path):
    s = open_scenario(CLAIM.replace("rounds: 3", "rounds: 99")); w = DialogueSimulator(hold(s, agents(), runs=2)); assert len(w.dialogues[0].messages) == 200
    short = hold(open_scenario(CLAIM), agents(), runs=[f"s{i}" for i in range(98)]); w = DialogueSimulator([*w.dialogues, *short], turn=100); text = w.to_html(tmp_path/"big.html"); assert text.stat().st_size < 1_500_000
    page = ready(new_page(browser, offline=True), text); nodes = lambda: page.evaluate("document.querySelectorAll('.wb-dialogue *').length"); assert page.locator(".wb-card").count() == 30 and nodes() <= 600, nodes()
    page.locator(".wb-cards").focus(); page.keyboard.press("End"); expect(card(page, 200)).to_have_attribute("aria-current", "true"); expect(page.locator(".wb-skip").first).to_have_text("171 earlier messages"); page.keyboard.press("PageUp"); expect(card(page, 190)).to_be_visible(); assert nodes() <= 600 and quiet(page); page.context.close()


def test_a_trial_page(browser, tmp_path):
    import pandas as pd
    from test_dialogue_widget import condition
    from workbench.experiments.design import Design
    w = PersuasionSimulator(open_scenario(CLAIM), agents(), design=Design(dict(strength=["weak", "strong"]), reps=5), apply=condition, analysis=lambda f: {"odds": pd.DataFrame(dict(estimate=[1.5], low=[.4], high=[2.6], p=[.0004]), index=["strength[weak]"])})
    page = ready(new_page(browser, offline=True), w.to_html(tmp_path/"t.html")); expect(page.locator(".wb-plots figure")).to_have_count(3); expect(page.locator(".wb-plots figcaption").last).to_contain_text("bootstrap over the runs of both groups"); page.get_by_text("The trial").click(); expect(page.locator(".wb-plan")).to_have_text("EXPLORATORY: no plan was locked"); assert page.locator(".wb-more canvas").get_attribute("aria-label") == "odds: strength[weak] 1.5 [.4, 2.6] p < .001"
    assert page.locator(".wb-more tr").count() == 11 and w.frame().post.iloc[0] == pytest.approx(float(page.locator(".wb-more tr").nth(1).locator("td").last.inner_text()), abs=1e-3) and quiet(page); page.context.close()


def test_words_are_tinted_by_what_they_moved_and_say_their_number(browser, tmp_path):
    w = DialogueSimulator([monologue(("SRC_A", "ARG_4"), ("SRC_A", "CHAT_2"), ("SRC_A", "ARG_1"))], turn=1); reads = w.words(); page = ready(new_page(browser, offline=True), w.to_html(tmp_path/"w.html")); row = card(page, 1).locator(".wb-read"); expect(row.locator(".wb-token")).to_have_text(["SRC_A", "ARG_4"])
    tint = lambda t, i: [int(v) for v in re.findall(r"\d+", card(page, t).locator(".wb-token").nth(i).evaluate("e => getComputedStyle(e).backgroundColor"))[:3]]; up, still, down = tint(1, 1), tint(2, 1), tint(3, 1); assert up[0] > up[2] + 60 and down[2] > down[0] + 60 and max(still) - min(still) < 30
    note = card(page, 1).locator(".wb-read + .wb-note"); expect(note).to_contain_text("Belief of persuadee if asked here, model logit"); said = lambda v: f"{float(v):.3f}".rstrip("0").replace("0.", "."); row.locator(".wb-token").nth(1).hover(); expect(note).to_contain_text(f"after ARG_4: {said(reads[0].belief[2])} if asked here (model logit)")
    page.mouse.move(2, 2); row.focus(); expect(note).to_contain_text("after SRC_A"); page.keyboard.press("ArrowRight"); expect(note).to_contain_text("after ARG_4"); expect(row.locator("[aria-selected=true]")).to_have_text("ARG_4"); expect(card(page, 1)).to_have_attribute("aria-current", "true"); expect(page.locator(".wb-side")).to_contain_text("blue down, orange up"); assert page.evaluate(UNNAMED) == 0 and quiet(page); page.context.close()


def test_conditions_side_by_side_with_their_difference(browser, tmp_path):
    a, b = (hold(open_scenario(CLAIM), {**agents(), "persuader": Arguer(s)}, 12) for s in ((-.5, .5, 1.), (.5, 1., 2.))); w = DialogueSimulator([*a, *b], conditions=["a"] * 12 + ["b"] * 12, turn=5); g = w._beliefs()[0]["gaps"][0]; page = ready(new_page(browser, offline=True), w.to_html(tmp_path/"c.html"))
    expect(page.locator(".wb-plots figure")).to_have_count(3); expect(page.locator(".wb-plots figcaption").last).to_have_text("b minus a, closed form; band: 95 % bootstrap over pairs of runs, n 12"); expect(readout(page)).to_contain_text("b minus a: " + f"{g['values'][5]:.3f}".rstrip("0").replace("0.", ".")); expect(readout(page)).to_contain_text("12 pairs")
    page.get_by_label("belief", exact=True).select_option("1"); page.locator(".wb-plots").focus(); page.keyboard.press("Home"); page.keyboard.press("ArrowRight"); expect(readout(page)).to_contain_text("b minus a: no value"); assert quiet(page); page.context.close()


@pytest.mark.parametrize("scheme, width", [("light", 1200), ("dark", 420)])
def test_a_society_page(browser, tmp_path, scheme, width):
    "Cells, ridges, keys and names; two looks, one page without network."
    from workbench.dialogue.opinions import hegselmann_krause
    x = hegselmann_krause(np.random.default_rng(0).random(50), .12); w = SocietyView(x, marks={"mean": .5}, step=1); page = new_page(browser, color_scheme=scheme, offline=True, viewport={"width": width, "height": 900}); page.goto(w.to_html(tmp_path/"s.html").as_uri()); until(page, "() => document.querySelector('.wb-society .wb-readout')?.textContent.length > 12")
    told = unpack(w.chunk(("cells", "0")))[0]; order = np.argsort(told[:, -1], kind="stable"); page.locator(".wb-map").focus(); page.keyboard.press("ArrowDown"); expect(readout(page)).to_contain_text(f"agent {order[0]}, row 1 of 50"); page.keyboard.press("ArrowRight"); expect(readout(page)).to_contain_text("step 2"); page.keyboard.press("Home"); expect(readout(page)).to_contain_text("step 0 ·")
    value = float(re.search(r"≈ ([\d.]+)", readout(page).inner_text())[1]); assert value == pytest.approx(float(x.values[0, order[0]]), abs=1e-3); page.get_by_label("rows", exact=True).select_option("first"); expect(readout(page)).to_contain_text(f"agent {order[0]}, row {int(np.argsort(np.argsort(told[:, 0], kind='stable'))[order[0]]) + 1} of 50")
    canvas = page.locator(".wb-map canvas"); box = canvas.bounding_box(); canvas.click(position=dict(x=box["width"] - 10, y=8)); expect(readout(page)).to_contain_text(f"step {x.sizes['step'] - 1}"); expect(readout(page)).to_contain_text(f"agent {int(x.values[0].argmin())}, row 1 of 50")
    assert page.evaluate("document.querySelectorAll('.wb-society *').length") < 80 and page.evaluate("document.documentElement.scrollWidth") <= width and page.locator(".wb-society").get_attribute("data-theme") == scheme and page.evaluate(INKS.replace(".wb-dialogue", ".wb-society")) > 3 and page.evaluate(UNNAMED.replace(".wb-dialogue", ".wb-society")) == 0 and quiet(page); page.context.close()


def test_without_scripts_the_transcript_stays(browser, page_file):
    page = new_page(browser, java_script_enabled=False); page.goto(page_file.as_uri()); assert page.locator(".wb-host img").is_visible(); page.get_by_text("transcript", exact=True).click(); expect(page.get_by_text("2 persuader: A bad one.")).to_be_visible(); assert "true of that defined world" in page.locator(".wb-host").inner_text() and page.locator("details details details").count() == 9; page.context.close()


# --- JupyterLab ----------------------------------------------------------------------------------------------------------
CODE = """import workbench as wb
from workbench.dialogue.play import Said
from workbench.dialogue.reading import Reading, spanned
from workbench.widgets.dialogue_simulator import DialogueSimulator
lm = wb.load("micro")
class Lines:
    model = lm.id
    def __init__(self, lm): self.lm = lm
    def reading(self, v):
        text, marks = "<bos>", []
        for h in v.heard: marks.append((len(text) + 1, len(text) + 1 + len(h.text), h.turn, h.role)); text += " " + h.text
        if v.ask: marks.append((len(text) + 1, len(text) + 1 + len(v.ask), -2, "question")); text += " " + v.ask
        return Reading(self.lm, *spanned(self.lm, text, marks), v.role, v, tuple(self.lm.answer_id(o) for o in v.options))
    def __call__(self, v):
        r = self.reading(v); p = self.lm.run(r.ids[None]).last_logits.double().softmax(-1)[0]
        if v.ask: a, b = (float(p[i]) for i in r.answers); return Said(v.options[int(b > a)], belief=dict(model_logit=a / (a + b)), model=self.lm.id)
        return Said("I see.", model=self.lm.id)
trip = dict(name="trip", roles=["anna", "mark"], fields=dict(plan=dict(value="SECRET", visible=dict(anna="always"))), phases=[dict(name="talk", speakers=["anna", "mark"], rounds=2)], measures=dict(where=dict(ask="Anna lives in", of="mark", at=["each"], options=["Rome", "Paris"])))
w = DialogueSimulator(trip, dict(anna=lambda v: Said("Anna lives in Rome."), mark=Lines(lm)), runs=3, seconds=120, play=False)
w"""


@pytest.fixture
def patient(): expect.set_options(timeout=30_000); yield; expect.set_options(timeout=5_000)


def test_the_simulator_is_driven_in_jupyterlab(lab, patient):
    "Play a dialogue, edit a turn and see the difference, open attention and patching on the edited turn, take the seat blind, and read all of it in Python; reopen without a kernel."
    cells = ["print(len(w.dialogue.messages), w.status['state'], w.branch)", "d = w.difference(); print('difference', round(float(d.difference.iloc[0]), 4), w.turn, w._child and type(w._child).__name__)", "print('locked', w._child.locked, w._child.side, [w._child.tokens('key')[i] for i in w._child.locked])",
             "b = w.dialogue.beliefs(); print('person', w.dialogue.run, b.source.unique().tolist(), b.value.tolist(), [e.text for e in w.dialogue.messages])", "w.run, w.turn, w.eyes = 0, 1, 'mark'; print('set')"]
    nbformat.write(notebook("# Dialogue", CODE, *cells), lab.root/"dialogue.ipynb"); page = lab.open("dialogue.ipynb", run=False)
    page.evaluate("async () => { const p = window.jupyterapp.shell.currentWidget; await p.context.ready; await p.sessionContext.ready; }"); page.evaluate(RUN_CELL, 1); root = page.locator(".wb-dialogue"); expect(root).to_contain_text("anna speaks next", timeout=90_000)
    page.get_by_role("button", name="One message").click(); expect(card(page, 1)).to_contain_text("Anna lives in Rome."); page.get_by_role("button", name="Play on").click(); expect(card(page, 4)).to_contain_text("I see."); says(page, 2, "4 done main")

    card(page, 1).click(); expect(card(page, 1).get_by_role("button", name="patch this turn")).to_be_disabled(); assert "edit this one first" in card(page, 1).get_by_role("button", name="patch this turn").get_attribute("title"); assert "No dictionary" in card(page, 1).get_by_role("button", name="features").get_attribute("title")
    card(page, 1).get_by_role("button", name="edit").click(); area = page.get_by_label("Message 0, edited"); expect(area).to_be_focused(); area.fill("Anna lives in Paris."); page.get_by_role("button", name="Play on from here").click()
    expect(page.locator(".wb-side")).to_contain_text("What the edit changed: this branch minus main"); expect(card(page, 1)).to_contain_text("edited"); expect(page.locator(".wb-twig")).to_have_count(2); expect(card(page, 4)).to_contain_text("I see."); assert float(says(page, 3, "difference -").split()[1]) < -.2

    page.get_by_role("button", name="Which words moved it?").click(); expect(card(page, 1).locator(".wb-read .wb-token")).to_contain_text(["Paris"], timeout=60_000); expect(card(page, 1)).to_contain_text("Belief of mark if asked here, model logit")
    card(page, 1).get_by_role("button", name="attention").click(); expect(page.locator(".wb-attention")).to_be_visible(timeout=60_000); assert says(page, 4, "locked").strip().endswith("key ['in', 'Paris', '.']"); expect(page.locator(".wb-attention .wb-token[aria-selected=true]")).to_have_count(3)
    card(page, 1).get_by_role("button", name="patch this turn").click(); expect(page.locator(".wb-patching")).to_be_visible(timeout=60_000); expect(page.locator(".wb-attention")).to_have_count(0)

    page.get_by_label("a role to take").select_option("mark"); page.get_by_role("button", name="Sit down").click(); begin = page.get_by_role("button", name="Begin"); expect(begin).to_be_disabled(timeout=30_000); assert "SECRET" not in root.inner_text() and not page.locator(".wb-plots").is_visible()
    page.get_by_label("I have read this and agree").check(); begin.click(); expect(page.locator(".wb-ask")).to_have_text("Anna lives in"); expect(page.locator(".wb-talked")).to_contain_text("Anna lives in Rome."); assert "SECRET" not in root.inner_text() and "model logit" not in root.inner_text()
    for k, (answer, sure) in enumerate([("Rome", "90"), (None, None), ("Rome", "80"), ("Paris", "40"), (None, None), ("Rome", "")]):
        if answer is None: page.get_by_label("Your message").fill(f"Is that so? {k}"); expect(page.locator(".wb-ask")).to_contain_text("Your turn")
        else: page.get_by_label(answer, exact=True).check(); page.get_by_label("how likely, in per cent").fill(sure)
        timer = page.locator("[role=timer]"); expect(timer).to_contain_text(" of 2:00"); before = page.evaluate(SEAT); page.get_by_role("button", name="Send").click(); page.wait_for_function("was => (" + SEAT + ")() !== was || document.querySelector('.wb-seat input[type=radio]:checked') === null", arg=before); page.wait_for_timeout(250)
    expect(page.locator(".wb-seat")).to_contain_text("the dialogue is over"); said = says(page, 5, "person person-1"); assert "['human_report'] [0.9, 0.8, 0.4]" in said and "'Is that so? 1'" in said and "'Is that so? 4'" in said; expect(page.locator(".wb-say")).to_contain_text("A person took part")
    assert says(page, 6, "set"); expect(page.locator(".wb-known")).to_contain_text("What mark was given after 1 message."); expect(page.locator(".wb-shut")).to_have_text("planhidden"); assert page.evaluate(UNNAMED) == 0 and quiet(page), (page.errors, page.outside)

    page.evaluate("async () => { await window.jupyterapp.commands.execute('docmanager:save'); await window.jupyterapp.shell.currentWidget.sessionContext.shutdown(); }")
    page = lab.open("dialogue.ipynb", run=False); page.locator(".jp-OutputArea img").first.wait_for(); assert "model not found" not in page.locator(".jp-Notebook").inner_text()
