"""The widgets, each made once with a small model and kept by key, alive on a page of its own."""
import hashlib, html, json, os, subprocess, sys
from dataclasses import dataclass
from pathlib import Path

from .house import ROOT
from .page import Page
from .prose import Site, prose, rel
from .reference import code


@dataclass(frozen=True)
class Card:
    "A widget on show. `call` is what a reader types; `setup` is what stands above it; `more` is done to `w` afterwards, so that there is something to see."
    name: str
    line: str
    text: str          # what to do on the page
    setup: str
    call: str
    lesson: str        # its notebook
    more: str = ""

    @property
    def page(self) -> str: return f"gallery/{self.name.lower()}.html"


CARDS = [
    Card("AttentionExplorer", "Every head at a glance, one of them in full, and what the model says when heads are changed.",
         "Click a thumbnail to choose a layer and head; hover over the matrix to read one value; click a token to lock it and see what it looks at. Weighting can be the pattern, the value-weighted pattern, the norm of what is written, or the share in the answer.",
         'import workbench as wb\nfrom workbench.widgets import AttentionExplorer\n\nlm = wb.load("micro")\nprompt = "When Mary and John went to the store, John gave a drink to"',
         'w = AttentionExplorer(lm, prompt, answer=" Mary", foil=" John", layer=2, head=3, locked=[14])\nw', "nbs/widgets/06_attention_explorer.ipynb"),
    Card("PatchingGrid", "Which states carry an answer: a grid of patched runs, with the next tokens behind each cell.",
         "Click a cell: the bars show what the model says clean, corrupted, and with that one state patched. Sites share one scale. Direction, ablation and n stand above the grid.",
         'import workbench as wb\nfrom workbench.tasks import make\nfrom workbench.widgets import PatchingGrid\n\nlm = wb.load("micro")',
         'w = PatchingGrid(lm, make("ioi", n=12))\nw', "nbs/widgets/09_patching_grid.ipynb", 'w.select(site="resid_pre", layer=3, pos=15)'),
    Card("FeatureBrowser", "A dictionary's features: found by query, shown by their contexts from strongest to silent.",
         "Choose a feature in the list; read its contexts from the strongest to the silent; sort by density or strength. A page holds the features that were pinned, here 24 of 768; with a kernel the browser shows all, takes your own text and steers.",
         'import tempfile\nimport workbench as wb\nfrom workbench.features import FeatureStore, open_dictionary\nfrom workbench.tasks import make\nfrom workbench.widgets import FeatureBrowser\n\nlm = wb.load("micro")\nstore = FeatureStore(lm, open_dictionary("micro/resid_post.2-topk"), make("ioi", n=60).prompts, tempfile.mkdtemp()).collect()',
         'w = FeatureBrowser(store, query="density<.1 max>2")\nw', "nbs/widgets/13_feature_browser.ipynb", "w.pins = [int(f) for f in store.features('density<.1 max>2')[:24]]"),
    Card("TrainingRoom", "Watch a sparse dictionary learn: error, sparsity, dead features, and what a step costs.",
         "Read the curves; hover for values. With a kernel the room can be paused, resumed and stopped.",
         "from workbench.features import Trainer\nfrom workbench.features.superposition import Superposition\nfrom workbench.widgets import TrainingRoom\n\nworld = Superposition(d=24, n_features=60, l0=3, bias=2.)\ntrainer = Trainer(world, \"batchtopk\", n_features=72, k=3, steps=400, batch=512, lr=3e-3, report_every=10)",
         "w = TrainingRoom(trainer)\nw", "nbs/widgets/14_training_room.ipynb"),
    Card("PersuasionSimulator", "A dialogue, belief turn by turn, over runs and conditions.",
         "Choose a run and click a message; look through the eyes of a role; watch the belief turn by turn, over runs. Below stands the trial: who was allocated to which condition, and the belief before and after.",
         '''from workbench.dialogue import Arguer, Bayesian, open_scenario
from workbench.experiments.design import Design
from workbench.widgets import PersuasionSimulator

claim = open_scenario("""
name: one claim
roles: [persuader, persuadee]
fields:
  prior: {value: -1.0, visible: {persuadee: always}}
  trust: {value: 0.8, visible: {persuadee: always}}
phases: [{name: talk, speakers: [persuader, persuadee], rounds: 3}]
measures: {agreement: {ask: "Do you agree?", of: persuadee, at: [start, each], options: ["yes", "no"]}}
""")
agents = dict(persuader=Arguer(), persuadee=Bayesian())
design = Design(dict(strength=["weak", "strong"]), reps=30, seed=1)

def apply(scenario, agents, row):
    prior = [-1.5, -.5, .5][row["run"] % 3] if "run" in row else -.5
    return scenario.having(prior=prior), {**agents, "persuader": Arguer((0., .5, 1.) if row["strength"] == "strong" else (-.5, 0., .5))}''',
         "w = PersuasionSimulator(claim, agents, design=design, apply=apply)\nw", "nbs/widgets/17_dialogue_simulator.ipynb"),
    Card("SocietyView", "Opinions or strategies of many agents over time.",
         "Move the step; click an agent to follow it; order by the last value or by number.",
         "import numpy as np\nfrom workbench.dialogue.opinions import hegselmann_krause\nfrom workbench.widgets import SocietyView\n\nx = hegselmann_krause(np.random.default_rng(0).random(60), .12)",
         'w = SocietyView(x, marks={"mean": float(x[-1].mean())}, step=2, agent=7)\nw', "nbs/widgets/19_society.ipynb"),
    Card("ExplainChat", "Ask a model why it said that; each answer is a measurement, with how far to trust it.",
         "Read the exchange from the top. With a kernel you ask your own questions: why, why not, what if, similar texts.",
         'import random\nimport workbench as wb\nfrom workbench.dialogue.explain import Explainer\nfrom workbench.tasks import opinions\nfrom workbench.widgets import ExplainChat\n\nrng = random.Random(1); texts = [opinions.say(*opinions.plan(rng))[0] for _ in range(120)]\nprompt = "Speak as a citizen. Should we follow the blue plan to open the school soon? <assistant>"',
         'w = ExplainChat(Explainer(wb.load("opinions-shallow"), ["Yes", "No", "Unsure"], texts), prompt, ["Why does it say that?", "Why not Yes?", "What if the plan was red?"])\nw', "nbs/widgets/18_explain_chat.ipynb"),
    Card("Predict", "A prediction before a measurement: choose, then measure, then compare.",
         "Choose an answer. In a notebook `w.reveal(measured, why)` says what you predicted beside what was measured.",
         "from workbench.widgets import Predict", 'w = Predict("Where is the answer after layer 2?", ["at the name", "at the last token", "nowhere alone"])\nw', "nbs/widgets/20_predict.ipynb"),
    Card("RelianceQuiz", "Decide with a model's advice and an explanation, and learn how far you relied on it where it was wrong.",
         "Answer, see what the model says and why, then decide. Some explanations are not the model's own; which ones is said after your decision. The scores come at the end.",
         'import workbench as wb\nfrom workbench.tasks import make\nfrom workbench.theory.reliance import quiz_items\nfrom workbench.widgets.reliance_quiz import RelianceQuiz\n\nitems = quiz_items(wb.load("micro"), make("laundry", n=160, seed=3, form="ordinal"), n=12, seed=2)',
         "w = RelianceQuiz(items)\nw", "nbs/widgets/21_reliance_quiz.ipynb"),
]

MAKE = """import json, os, sys
os.environ["WORKBENCH_WIDGETS"] = "page"
import torch; torch.set_num_threads(1)
for asked in json.load(sys.stdin):
    room = {}; exec(asked["setup"] + "\\n" + asked["call"].removesuffix("\\nw") + "\\n" + asked["more"], room)
    w = room["w"]; w.to_png(asked["out"] + ".light.png", scale=1.2); w.to_png(asked["out"] + ".dark.png", scale=1.2, dark=True)
    open(asked["out"] + ".html", "w").write(w.fragment())
"""


def key(card: Card) -> str:
    "Of what a widget depends on."
    from workbench.reporting.key import package_hash
    return hashlib.sha256("\n".join([package_hash(), card.setup, card.call, card.more, MAKE]).encode()).hexdigest()[:16]


def made(cards: list[Card], cache: Path) -> dict[str, str]:
    "Make the widgets that were not made before, all in one process; the stem of each one's files."
    cache.mkdir(parents=True, exist_ok=True); stems = {c.name: str(cache/f"{c.name}-{key(c)}") for c in cards}
    asked = [dict(setup=c.setup, call=c.call, more=c.more, out=stems[c.name]) for c in cards if not Path(stems[c.name] + ".html").exists()]
    if asked:
        done = subprocess.run([sys.executable, "-c", MAKE], input=json.dumps(asked), text=True, capture_output=True, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"})
        if done.returncode: raise RuntimeError(f"A widget could not be made:\n{done.stderr[-3000:]}")
    for c in cards:
        for old in cache.glob(f"{c.name}-*"):
            if not str(old).startswith(stems[c.name]): old.unlink()
    return stems


def page(card: Card, site: Site, stem: str) -> Page:
    "The widget's own page."
    here = card.page
    home = site.names.get(card.name, [""])[0]; api, lesson = site.api(home, card.name), site.pages.get(card.lesson)
    links = " ".join(f'<a href="{rel(to, here)}">{word}</a>' for to, word in ((api, "Reference"), (lesson, "How it is made")) if to)
    body = (f'<h1>{card.name}</h1><p class="lead">{card.line}</p><p class="about">{links}</p><p>{card.text}</p><div class="stage">{Path(stem + ".html").read_text("utf-8")}</div>'
            f'<h2 id="call">How it was called</h2><pre class="wb-code"><code>{code(card.setup)}\n\n{code(card.call)}</code></pre>')
    return Page(here, card.name, card.line, body, [], "gallery", [("page", "", card.name, f"{card.line} {card.text}"), ("heading", "call", f"{card.name}: how it is called", card.call)], "widget", True)


def overview(cards: list[Card], site: Site) -> Page:
    "All of them, as cards."
    here = "gallery/index.html"
    one = lambda c: (f'<article class="card"><a class="thumb" href="{rel(c.page, here)}" tabindex="-1" aria-hidden="true"><img class="light" loading="lazy" alt="" src="{c.name}.light.png"><img class="dark" loading="lazy" alt="" src="{c.name}.dark.png"></a>'
                     f'<h2 id="{c.name}"><a href="{rel(c.page, here)}">{c.name}</a></h2><p>{c.line}</p><pre class="wb-code"><code>{code(next(x for x in c.setup.splitlines() if x.endswith(f"import {c.name}")) + chr(10) + c.call.removesuffix(chr(10) + "w"))}</code></pre></article>')
    line = "Every widget in its static form: alive on its page, without a kernel or a network."
    body = (f'<h1>Widgets</h1><p class="lead">{line}</p><p>The same code draws them in JupyterLab, where what is clicked arrives in Python (<code>w.selection</code>), and in a report or on a page like these. '
            f'Every widget also gives a still picture (<code>to_png</code>, <code>to_svg</code>) and a page of its own (<code>to_html</code>).</p><div class="cards">{"".join(map(one, cards))}</div>')
    return Page(here, "All widgets", line, body, [], "gallery", [("page", "", "All widgets", line)], "widget", True)
