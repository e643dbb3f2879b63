"""What a role read, chat models in process, addresses through a cache, and prices: against a real server on loopback."""
import pytest
import torch

import workbench
from workbench.dialogue.errors import DialogueError
from workbench.dialogue.play import Dialogue, Said
from workbench.dialogue.reading import BEFORE, QUESTION, Reading, Span, reading, spanned
from workbench.dialogue.scenario import open_scenario

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
