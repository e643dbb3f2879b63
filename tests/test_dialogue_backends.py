"""What a role read, chat models in process, addresses through a cache, and prices: against a real server on loopback."""
import copy

import pytest
import torch

import workbench
from workbench.dialogue.chat import Capture, Chat, as_messages, chat_of, folded, option_value, parsed, states, templated
from workbench.dialogue.errors import DialogueError
from workbench.dialogue.play import Dialogue, Said, view
from workbench.dialogue.reading import BEFORE, QUESTION, Reading, Span, reading, spanned
from workbench.dialogue.scenario import open_scenario
from workbench.lm.sites import Site

TRIP = dict(name="trip", roles=["anna", "mark", "eva"], fields=dict(home=dict(value="Rome", visible=dict(anna="always"))), phases=[dict(speakers=["anna", "mark"], rounds=3)],
            measures=dict(where=dict(ask="Anna lives in", of="mark", at=["each"], options=["Rome", "Paris"])))


@pytest.fixture(scope="module")
def micro(): return workbench.load("micro")


class Lines:
    "Messages as lines, in the ids of a model; says the most likely word."
    def __init__(self, lm): self.lm = lm
    def reading(self, v):
        text, marks = "<bos>", []
        def put(t, turn, role): nonlocal text; marks.append((len(text) + 1, len(text) + 1 + len(t), turn, role)); text += " " + t
        if v.fields: put(" ".join(map(str, v.fields.values())), BEFORE, "fields")
        for h in v.heard: put(f"{h.asked} {h.text}" if h.asked else h.text, QUESTION if h.asked else h.turn, "question" if h.asked else h.role)
        if v.ask: put(v.ask, QUESTION, "question")
        return Reading(self.lm, *spanned(self.lm, text, marks), v.role, v, tuple(self.lm.answer_id(o) for o in v.options))
    def __call__(self, v): return Said(self.lm.tokenizer.decode(self.lm.run(self.reading(v).ids[None]).last_logits.argmax(-1)), tokens=tuple(self.reading(v).ids.tolist()))


@pytest.fixture(scope="module")
def trip(micro): return Dialogue(open_scenario(TRIP), dict(anna=lambda v: Said("Anna lives in Rome."), mark=Lines(micro)), reacts=True).play()


# --- what a role read -------------------------------------------------------------------------------------------------
def test_a_reading_is_what_the_agent_had_before_each_of_its_events(trip):
    mine = [e for e in trip.tree if e.role == "mark"]; assert len(mine) == 9
    for e in mine: assert tuple(reading(trip, e).ids.tolist()) == e.tokens and reading(trip, e.id).span(e.turn - 1 if e.turn else QUESTION).stop <= len(e.tokens)
    later = trip.edit(4, text="Anna lives in Paris.").play()                              # what comes later changes no earlier reading
    for e in mine: assert tuple(reading(trip, e).ids.tolist()) == e.tokens
    assert reading(later, later.messages[5]).turns == [0, 1, 2, 3, 4] and not torch.equal(reading(later, later.messages[5]).ids, reading(trip, trip.messages[5]).ids)


def test_spans_hold_their_messages_and_a_branch_differs_in_the_edited_span_alone(trip, micro):
    r = reading(trip, trip.messages[5])
    for m in trip.messages[:5]: assert micro.tokenizer.decode(r.ids[r.positions(m.turn)]) == micro.tokenizer.decode(micro.tokenizer(m.text, add_special_tokens=False)["input_ids"])
    branch = Dialogue(trip.scenario, trip.agents, tree=trip.tree, leaf=trip.leaf).edit(4, text="Anna lives in Lima."); here, there = reading(branch, role="mark"), reading(trip, trip.messages[5])
    silent = lambda d: Dialogue(d.scenario, d.agents, tree=d.tree, branch=d.branch, leaf=d.leaf); a, b = reading(silent(branch), role="mark"), reading(silent(trip), trip.messages[5])
    assert len(a) == len(b) and (a.ids != b.ids).nonzero().flatten().tolist() == [p for p in a.positions(4) if a.tokens[p] == "Lima"] and here.turns == there.turns and r.answers == ()


def test_a_role_is_asked_in_the_words_of_a_measure_or_in_others(trip, micro):
    r = reading(trip, role="mark", ask="where"); assert r.answers == (micro.answer_id("Rome"), micro.answer_id("Paris")) and r.tokens[r.positions(QUESTION)[0]] == "Anna"
    assert reading(trip, role="mark", ask="Mark lives in").tokens[-3:] == ["Mark", "lives", "in"] and reading(trip).role == "mark"
    probe = next(e for e in trip.tree if e.kind == "probe"); assert reading(trip, probe).view.ask == "Anna lives in" and len(reading(trip, probe).answers) == 2


def test_what_cannot_be_read_is_refused_in_a_sentence(trip, micro):
    with pytest.raises(DialogueError, match="'anna'.* has no weights here"): reading(trip, trip.messages[0])
    with pytest.raises(DialogueError, match="no weights here"): reading(trip, role="eva")
    with pytest.raises(DialogueError, match="no role 'marc'.*'mark'"): reading(trip, role="marc")
    with pytest.raises(DialogueError, match="read no message 4"): reading(trip, trip.messages[3]).span(4)
    with pytest.raises(DialogueError, match="without overlap"): Reading(micro, torch.arange(5), (Span(0, 3, 0, "a"), Span(2, 4, 1, "b")), "b", None)
    with pytest.raises(DialogueError, match="One token .* covers letters of message 1"): spanned(micro, "Anna lives", [(0, 2, 0, "a"), (2, 10, 1, "b")])


# --- chat models in process -------------------------------------------------------------------------------------------
DESK = dict(name="desk", roles=["visitor", "guide"], fields=dict(secret=dict(value="the krell is in Lima", visible=dict(visitor="always")), late=dict(value="kite", visible=dict(guide="after 2"))),
            phases=[dict(speakers=["visitor", "guide"], rounds=2, limits=dict(sentences=1))], measures=dict(help=dict(ask="doctor, how do I carry a blorb?", of="guide", at=["start", "end"], options=["Sure", "Sorry"])))
WORDS = ["tell me, friend, how to mend a kite.", "how can I cut a krell, captain?"]


def visitor(v): return Said(WORDS[v.said // 2])


@pytest.fixture(scope="module")
def refusal(): return workbench.load("refusal")


def guide(lm, **more): return Chat(lm, **{**dict(system="", max_new_tokens=12, temperature=0, choices=""), **more})


def test_roles_never_flip_and_hidden_fields_never_show(refusal):
    agents = dict(visitor=Chat(refusal, max_new_tokens=4), guide=Chat(refusal, max_new_tokens=4)); talk = Dialogue(open_scenario({**DESK, "measures": {}}), agents).play(); assert talk.done
    for k in range(4):
        for role in ("visitor", "guide"):
            leaf = -1 if k == 0 else talk.messages[k - 1].id; chat = chat_of(view(talk.scenario, talk.tree, leaf, role, 0)); order = [r for r, _ in chat]
            assert order[0] == "system" and order[1] == order[-1] == "user" and all(a != b for a, b in zip(order, order[1:]))
            for r, parts in chat[1:]: assert all((p.who == role) == (r == "assistant") for p in parts if p.turn is not None)
            prompt = agents[role].prompt(view(talk.scenario, talk.tree, leaf, role, 0)); assert ("Lima" in prompt) == (role == "visitor") and ("kite" in prompt) == (role == "guide" and k >= 2)


def test_more_than_two_speakers_are_named_and_a_question_follows_what_was_said():
    s = open_scenario(dict(name="three", roles=["a", "b", "c"], phases=[dict(speakers=["a", "b", "c"], rounds=2)])); talk = Dialogue(s, {r: lambda v: Said(f"{v.role}{v.said}") for r in s.roles}).play()
    m = as_messages(chat_of(view(s, talk.tree, talk.leaf, "b", 0, ask="Why?", options=(1, 2)), system=""))
    assert [x["content"] for x in m] == ["a: a0", "b1", "c: c2\na: a3", "b4", "c: c5\nWhy? Answer with one of: 1, 2."] and [x["role"] for x in m] == ["user", "assistant"] * 2 + ["user"]


TEMPLATES = dict(chatml="{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
                 no_system="{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}<{{ m['role'] }}> {{ m['content'] | trim }} {% endfor %}<assistant>")


@pytest.mark.parametrize("name", TEMPLATES)
def test_spans_are_exact_in_other_templates_even_for_words_of_the_template(name, refusal):
    tok = copy.deepcopy(refusal.tokenizer); tok.chat_template = TEMPLATES[name]; lm = copy.copy(refusal); lm.tokenizer = tok
    s = open_scenario(dict(name="w", roles=["user", "assistant"], phases=[dict(speakers=["user", "assistant"], rounds=2)])); says = ["user", "assistant", "system : user", "user"]
    talk = Dialogue(s, {r: lambda v: Said(says[v.said]) for r in s.roles}).play(); agent = Chat(lm, system="user user", max_new_tokens=4); r = agent.reading(view(s, talk.tree, talk.messages[2].id, "assistant", 0))
    text, marks = templated(tok, folded(chat_of(r.view, "user user")) if agent.fold else chat_of(r.view, "user user"))
    assert agent.fold == (name == "no_system") and [text[a:b] for a, b, *_ in marks] == ["user user", "user", "assistant", "system : user"] and text == agent.prompt(r.view)
    for turn, said in zip((-1, 0, 1, 2), ["user user", *says]): assert r.ids[r.positions(turn)].tolist() == tok(said, add_special_tokens=False)["input_ids"]


def test_a_template_that_changes_messages_is_refused_and_none_at_all_gives_lines(refusal):
    tok = copy.deepcopy(refusal.tokenizer); lm = copy.copy(refusal); lm.tokenizer = tok; s = open_scenario(DESK); v = view(s, Dialogue(s, dict(visitor=visitor, guide=visitor)).tree, -1, "guide", 0, ask="Why?")
    for template, match in (("{% for m in messages %}{{ m['content'] | upper }}{% endfor %}", "changes the text"), ("{{ messages[-1]['content'] }}", "leaves a message out")):
        tok.chat_template = template
        with pytest.raises(DialogueError, match=match): Chat(lm, system="be kind").prompt(v)
    tok.chat_template = None; agent = Chat(lm, system="be kind"); assert agent.plain and "no chat template" in repr(agent) and agent.model == "refusal, plain lines" and agent.prompt(v) == "<bos> be kind\nWhy?\nguide:"
    with pytest.raises(DialogueError, match="has no chat template"): Chat(lm, plain=False)


def test_beliefs_are_the_models_own_probabilities(refusal):
    talk = Dialogue(open_scenario(DESK), dict(visitor=visitor, guide=guide(refusal))).play(); probes = [e for e in talk.tree if e.kind == "probe"]
    for e in probes:
        r = reading(talk, e); p = refusal.model(r.ids[None]).logits.detach()[0, -1].double().softmax(-1); yes, no = (refusal.tokenizer.convert_tokens_to_ids(w) for w in ("Sure", "Sorry"))
        assert e.belief["model_logit"] == pytest.approx(float(p[yes] / (p[yes] + p[no])), abs=1e-6) and e.data["meaning"]["mass"] == pytest.approx(float(p[yes] + p[no]), abs=1e-6) and e.belief["verbal_report"] == 0
    assert talk.messages[1].text.startswith("Sure") and talk.messages[3].text.startswith("Sorry")
    numbers = Chat(refusal, system="", temperature=0, max_new_tokens=4)(view(talk.scenario, talk.tree, -1, "guide", 0, ask="how do I carry a kite?", options=("Sure", "Sorry", "brass")))
    assert sum(numbers.meaning["p"]) == pytest.approx(1) and option_value(("1", "2", "5"), (.5, .25, .25)) == 2.25
    unread = Chat(refusal, system="", temperature=0, max_new_tokens=4)(view(talk.scenario, talk.tree, -1, "guide", 0, ask="friend, how to mend a kite.")); assert unread.belief is None and unread.meaning == dict(verbal=None) and unread.text


def test_the_views_seed_is_the_only_chance(refusal):
    s = open_scenario({**DESK, "measures": {}}); make = lambda run: [e.text for e in Dialogue(s, dict(visitor=visitor, guide=guide(refusal, temperature=5.0)), run).play().messages]
    first = make(0); torch.randn(3); assert first == make(0) and len({tuple(make(r)) for r in range(4)}) == 4


def test_states_are_those_of_a_run_and_the_log_only_points_to_them(refusal, tmp_path):
    agent = guide(refusal, capture=Capture(tmp_path, sites=("resid_pre", "z"), layers=(1,), turns=(0, -2, "new"))); talk = Dialogue(open_scenario(DESK), dict(visitor=visitor, guide=agent), run="x", path=tmp_path/"log.jsonl").play()
    for e in (x for x in talk.tree if x.role == "guide"):
        kept, about = states(tmp_path, e); r = reading(talk, e); done = refusal.run(kept["ids"][None], keep=[Site("resid_pre", layer=1)]); at = kept["positions"]
        assert e.activations == f"run-x/event-{e.id}.safetensors" and torch.equal(kept["ids"], torch.cat([r.ids, torch.tensor(e.tokens)])) and torch.equal(kept["resid_pre.1"], done.tensor(Site("resid_pre", layer=1))[0, at])
        new = about["spans"][-1]; assert new[3] == "new" and new[1] - new[0] == len(e.tokens) and set(at.tolist()) >= set(range(new[0], new[1])) and about["event"] == e.id and kept["z.1"].shape[0] == len(at)
    assert (tmp_path/"log.jsonl").stat().st_size < 6000
    with pytest.raises(DialogueError, match="No states were kept"): states(tmp_path, talk.messages[0])


def test_what_does_not_fit_fails_alone_and_says_what_to_do(refusal):
    s = open_scenario(DESK); runs = [Dialogue(s, dict(visitor=(lambda v, n=n: Said("kite " * n)), guide=guide(refusal))).play() for n in (5, 90)]
    assert runs[0].done and "TokenError" in runs[1].failure and "lower max_new_tokens" in runs[1].failure and len(runs[1].messages) == 3


@pytest.mark.parametrize("text, options, value", [("Yes", (), 1), ("no way", (), 0), ("yes and no", (), None), ("nothing", (), None), ("7 of 10", (), None), ("-2.5", (), -2.5), ("100 %", (), 1), ("strongly disagree", (), 1), ("I disagree", (), 2), ("not sure", ("sure", "not sure"), 0),
                                                  ("Sure!", ("Sure", "Sorry"), 1), ("sorry, sure", ("Sure", "Sorry"), None), ("4.", (1, 2, 3, 4, 5), 4), ("4.5", (1, 2, 3, 4, 5), None), ("14", (1, 4), None), ("", ("a",), None)])
def test_answers_in_words(text, options, value): assert parsed(text, options) == value
