"""What a role read, chat models in process, addresses through a cache, and prices: against a real server on loopback."""
import copy
import json
import math
import os
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
import urllib.request
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

import workbench
from workbench.dialogue.audit import audit
from workbench.dialogue.chat import Capture, Chat, as_messages, chat_of, folded, option_value, parsed, plain_lines, states, templated
from workbench.dialogue.endpoint import Endpoint, costs, estimate
from workbench.dialogue.errors import DialogueError
from workbench.dialogue.events import Events
from workbench.dialogue.play import Dialogue, Said, hold, view
from workbench.dialogue.reading import BEFORE, QUESTION, Reading, Span, reading, spanned
from workbench.dialogue.scenario import open_scenario
from workbench.lm.answers import Answer, Answers, AskError, NoAnswer, Prices
from workbench.lm.asking import Server
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


def test_spans_are_exact_where_tokens_are_bytes_that_join_across_lines(refusal):
    bpe = Tokenizer(models.BPE()); bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False); bpe.decoder = decoders.ByteLevel(); says = ["Hello there.", "Why?\nBecause é.", "  I see. ", "user: so?", "Yes.", "No!"]
    bpe.train_from_iterator(["a: Hello there.\nb: Why?\nBecause é.\nuser assistant so?\n"] * 50, trainers.BpeTrainer(vocab_size=320, special_tokens=["<|im_start|>", "<|im_end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False))
    tok = PreTrainedTokenizerFast(tokenizer_object=bpe); lm = copy.copy(refusal); lm.tokenizer = tok; s = open_scenario(dict(name="w", roles=["a", "b", "c"], phases=[dict(speakers=["a", "b", "c"], rounds=2)])); talk = Dialogue(s, {r: lambda v: Said(says[v.said]) for r in s.roles}).play()
    tok.chat_template = TEMPLATES["chatml"]; chat = chat_of(view(s, talk.tree, talk.leaf, "a", 0, ask="And now?"))
    for text, marks in (templated(tok, chat), plain_lines(chat, "a")):
        ids, spans = spanned(lm, text, marks); covered = [p for x in spans for p in range(x.start, x.stop)]; assert tok.decode(ids) == text and len(set(covered)) == len(covered)
        for x in spans:
            if x.turn >= 0: assert tok.decode(ids[x.start:x.stop]).strip() == says[x.turn].strip()


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


# --- leaks in prompts -------------------------------------------------------------------------------------------------
def test_the_audit_reads_prompts_and_names_a_leaky_agent(refusal):
    s = open_scenario({**DESK, "measures": {}}); honest = dict(visitor=Chat(refusal, max_new_tokens=3), guide=Chat(refusal, max_new_tokens=3)); told = audit(s, honest, runs=1, others=dict(secret="the blorb is in Oslo", late="lamp")).set_index(["field", "hidden_from"])
    assert told.leaks.sum() == 0 and told.prompts.to_dict() == {("secret", "guide"): 2, ("late", "visitor"): 2, ("late", "guide"): 1}
    def caught(agent, **more): t = audit(s, {**honest, "guide": agent}, runs=1, others=dict(secret="the blorb is in Oslo")).set_index(["field", "hidden_from"]); return t.loc[("secret", "guide")]
    by_hand = caught(Chat(refusal, max_new_tokens=3, system="The krell: the krell is in Lima.")); assert by_hand.leaks == 1 and by_hand.turn == 1 and by_hand.channel == "the prompt of 'guide' for message 1 holds its value 'the krell is in Lima', which its view does not"
    back_door = {}
    class Visitor(Chat):
        def __call__(self, v): back_door["hint"] = len(v.fields["secret"]); return super().__call__(v)
    hinted = Chat(refusal, max_new_tokens=3, temperature=0, system=lambda v: "kite " * back_door.get("hint", 0)); t = audit(s, dict(visitor=Visitor(refusal, max_new_tokens=3, system=""), guide=hinted), runs=1, others=dict(secret="in Oslo"))
    assert t.query("field == 'secret' and hidden_from == 'guide'").channel.item() == "the prompt of 'guide' for message 1 differs though its view is the same"
    assert audit(s, dict(visitor=lambda v: Said("the krell is in Lima" if "Lima" in v.fields["secret"] else "no"), guide=honest["guide"]), runs=1).leaks.sum() == 0     # it was said in public


# --- servers on loopback ----------------------------------------------------------------------------------------------
KEY = "sk-planted-0123456789abcdef"


def post(url):
    with urllib.request.urlopen(url, timeout=5) as r: return r.status == 200


@pytest.fixture(scope="module")
def served(refusal, tmp_path_factory):
    "`transformers serve` with a built-in model that was saved as a folder of its own."
    for needed in ("openai", "fastapi", "uvicorn"): pytest.importorskip(needed)
    folder = tmp_path_factory.mktemp("saved") / "chat-model"
    refusal.tokenizer.save_pretrained(folder); refusal.model.save_pretrained(folder); settings = copy.deepcopy(refusal.model.generation_config); settings.do_sample = True; settings.save_pretrained(folder)
    with socket.socket() as s: s.bind(("127.0.0.1", 0)); port = s.getsockname()[1]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}; log = open(folder.parent / "log", "wb")
    p = subprocess.Popen([str(Path(sys.executable).parent / "transformers"), "serve", str(folder), "--host", "127.0.0.1", "--port", str(port), "--device", "cpu"], env=env, stdout=log, stderr=log)
    for _ in range(600):
        try:
            if post(f"http://127.0.0.1:{port}/health"): break
        except OSError: assert p.poll() is None, (folder.parent / "log").read_text()[-2000:]
        time.sleep(.2)
    yield lambda **more: Server(str(folder), f"http://127.0.0.1:{port}/v1", **more)
    p.kill(); p.wait(); log.close()


def endpoint(server, **more): return Endpoint(server, **{**dict(system="", max_tokens=12, temperature=0, choices=""), **more})


def test_a_real_server_says_what_the_same_model_says_here(served, refusal, tmp_path):
    s = open_scenario(DESK); agent = endpoint(served(answers=tmp_path/"answers.db")); talk = Dialogue(s, dict(visitor=visitor, guide=agent)).play(); here = Dialogue(s, dict(visitor=visitor, guide=guide(refusal))).play()
    assert talk.done and talk.transcript().text.tolist() == here.transcript().text.tolist(); mine = [e for e in talk.tree if e.cost]
    assert [e.cost["tokens_in"] for e in mine] == [e.cost["tokens_in"] for e in here.tree if e.cost] and all(e.cost["cost"] is None and not e.cost["cached"] for e in mine)
    for e in talk.tree:
        if e.kind == "probe": assert set(e.belief) == {"verbal_report"} and e.data["meaning"]["logits"] == "not offered by the server"
    offline = endpoint(Server(agent.model, answers=tmp_path/"answers.db", replay=True)); again = Dialogue(s, dict(visitor=visitor, guide=offline)).play(); assert again.transcript().equals(talk.transcript()) and costs(again).cached.all()
    with pytest.raises(DialogueError, match="Replay has no answer with the key [0-9a-f]{32}"): Dialogue(s, dict(visitor=visitor, guide=offline), run=1).play()
    with pytest.raises(DialogueError, match="'guide' .* has no weights here"): reading(talk, talk.messages[1])


def test_a_seed_reaches_a_real_server(served):
    draw = lambda seed: served().ask([dict(role="user", content="tell me, friend, how to mend a kite.")], seed, temperature=8.0, max_tokens=8).text
    assert draw(1) == draw(1) and len({draw(i) for i in range(3)}) == 3


class Api(BaseHTTPRequestHandler):
    "The protocol over a built-in model, with log probabilities; `plan`: statuses to answer with first."
    def log_message(self, *a): pass
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"]))); me = self.server; me.seen.append(body)
        status = me.plan.pop(0) if me.plan else 200
        if me.before: me.before(len(me.seen))
        if status == 200 and body.get("logprobs") and me.refuses: status = 400
        reply = self._talk(body) if status == 200 else dict(error=dict(message=f"status {status} for {self.headers['Authorization']}", code="insufficient_quota" if status == 402 else None)); raw = json.dumps(reply).encode()
        try: self.send_response(429 if status == 402 else status); self.send_header("Retry-After", "0"); self.send_header("Content-Length", str(len(raw))); self.end_headers(); self.wfile.write(raw)
        except OSError: pass                                             # who asked is gone
    def _talk(self, body):
        lm = self.server.lm; g = lm.generate([body["messages"]], body["max_tokens"]); n = g.tokens.ids.shape[1] - len(g.ids[0]); p = lm.run(g.tokens.ids[:, :n]).last_logits[0].log_softmax(-1).topk(body.get("top_logprobs", 1))
        first = [dict(token=lm.tokenizer.decode([i]), logprob=float(v), bytes=None) for v, i in zip(*p)]; logprobs = dict(content=[dict(**first[0], top_logprobs=first)], refusal=None) if body.get("logprobs") else None
        return dict(id="1", object="chat.completion", created=0, model=body["model"], usage=dict(prompt_tokens=n, completion_tokens=len(g.ids[0]), total_tokens=n + len(g.ids[0])),
                    choices=[dict(index=0, finish_reason="stop", message=dict(role="assistant", content=g.texts[0]), logprobs=logprobs)])


@pytest.fixture
def api(refusal):
    pytest.importorskip("openai"); s = ThreadingHTTPServer(("127.0.0.1", 0), Api); s.lm, s.seen, s.plan, s.refuses, s.before = refusal, [], [], False, None; s.url = f"http://127.0.0.1:{s.server_port}/v1"
    threading.Thread(target=s.serve_forever, daemon=True).start(); yield s; s.shutdown(); s.server_close()


def test_log_probabilities_of_a_server_are_those_of_the_model(api, refusal):
    s = open_scenario(DESK); talk, here = (Dialogue(s, dict(visitor=visitor, guide=g)).play() for g in (endpoint(Server("m", api.url)), guide(refusal))); a, b = (d.beliefs().query("source == 'model_logit'").value.astype(float).to_numpy() for d in (talk, here))
    assert len(a) == 2 and abs(a - b).max() < 1e-5 and all(e.data["meaning"]["logits"] == "read from the server" for e in talk.tree if e.kind == "probe")
    api.refuses = True; agent = endpoint(Server("m", api.url, wait=.01)); words = Dialogue(s, dict(visitor=visitor, guide=agent)).play()
    assert words.done and set(words.beliefs().source) == {"verbal_report"} and agent.server.answers.calls().state.tolist() == ["failed"] + ["answered"] * 4 and agent.logprobs == 0
    n = len(api.seen); again = Dialogue(s, dict(visitor=visitor, guide=endpoint(Server("m", answers=agent.server.answers, replay=True)))).play(); assert again.transcript().equals(words.transcript()) and again.beliefs().equals(words.beliefs()) and len(api.seen) == n


def test_passing_errors_are_tried_again_and_others_are_not(api):
    chat = [dict(role="user", content="kite")]; api.plan += [503, 429, 500]; server = Server("m", api.url, wait=.001, max_tokens=3)
    assert server.ask(chat).text and server.answers.calls().state.tolist() == ["failed"] * 3 + ["answered"] and server.ask(chat).cached and len(api.seen) == 4
    for status, tries in ((401, "one try"), (402, "one try"), (503, "2 tries")):
        api.plan[:] = [status] * 2; n = len(api.seen)
        with pytest.raises(NoAnswer, match=tries): Server("m", api.url, wait=.001, tries=2, max_tokens=4).ask(chat)
        assert len(api.seen) - n == (2 if status == 503 else 1)


def test_a_key_is_written_nowhere(api, tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY); s = open_scenario(DESK); given = Server("m", api.url, KEY, answers=tmp_path/"a.db", wait=.001); agent = endpoint(given)
    api.plan += [401]; talk = Dialogue(s, dict(visitor=visitor, guide=agent), path=tmp_path/"log.jsonl").play(); assert "[key]" in talk.failure and "401" in talk.failure; talk.play(); assert talk.done
    from_environment = Server("m", api.url, answers=tmp_path/"b.db", tries=1); api.plan += [403]
    with pytest.raises(NoAnswer) as e: from_environment.ask([dict(role="user", content=f"my key is {KEY}")], max_tokens=3)
    from_environment.ask([dict(role="user", content=f"my key is {KEY}")], max_tokens=3)
    with pytest.raises(AskError, match="not pickled"): pickle.dumps(given)
    shown = "".join(traceback.format_exception(e.value)) + repr(given) + repr(agent) + talk.tree.to_frame().to_csv() + given.answers.calls().to_csv() + from_environment.answers.calls().to_csv()
    assert KEY not in shown and all(KEY.encode() not in f.read_bytes() for f in tmp_path.rglob("*") if f.is_file()) and len(list(tmp_path.rglob("*"))) == 3


def test_a_server_that_is_down_fails_one_dialogue_alone(api, tmp_path):
    with socket.socket() as free: free.bind(("127.0.0.1", 0)); port = free.getsockname()[1]
    s = open_scenario(DESK); down, up = endpoint(Server("m", f"http://127.0.0.1:{port}/v1", tries=2, wait=.001)), endpoint(Server("m", api.url))
    agent = lambda v: (down if len(api.seen) == 2 else up)(v); runs = hold(s, dict(visitor=visitor, guide=agent), runs=2, folder=tmp_path)     # the server goes away in the middle of the first run
    api.seen.append(None); assert "did not answer (2 tries)" in runs[0].failure and len(runs[0].messages) in (2, 3) and not runs[0].done
    later = hold(s, dict(visitor=visitor, guide=agent), runs=2, folder=tmp_path); assert all(d.done for d in later) and later[0].messages[:len(runs[0].messages)] == runs[0].messages and sum(e.kind == "failure" for e in later[0].tree) == 1


def test_a_kill_at_any_point_loses_no_event_and_pays_no_call_twice(api, tmp_path):
    s = open_scenario({**DESK, "measures": dict(help=dict(DESK["measures"]["help"], at=["start", "each"]))}); whole = Dialogue(s, dict(visitor=visitor, guide=endpoint(Server("m", api.url)))).play(); n = len(api.seen); api.seen.clear(); child = []
    def play(kill_after=None):
        pid = os.fork()
        if pid == 0:
            try:
                agent, done = endpoint(Server("m", api.url, answers=tmp_path/"a.db")), []
                def mortal(v):
                    said = agent(v); done.append(1)
                    if len(done) == kill_after: os.kill(os.getpid(), signal.SIGKILL)           # answered and kept, but no event yet
                    return said
                Dialogue(s, dict(visitor=visitor, guide=mortal), path=tmp_path/"log.jsonl").play(); os._exit(0)
            finally: os._exit(1)
        child[:] = [pid]; return os.waitpid(pid, 0)[1]
    assert os.WTERMSIG(play(2)) == signal.SIGKILL and len(api.seen) == 2
    api.before = lambda k: os.kill(child[0], signal.SIGKILL) if k == 4 else None; assert os.WTERMSIG(play()) == signal.SIGKILL; api.before = None       # asked, and gone before the answer came
    assert os.WTERMSIG(play(1)) == signal.SIGKILL and play() == 0
    tree, kept = Events(tmp_path/"log.jsonl"), Answers(tmp_path/"a.db"); same = lambda t: [(e.id, e.parent, e.kind, e.text, e.seed, e.belief) for e in t]; calls = kept.calls()
    assert same(tree) == same(whole.tree) and len(kept) == n and not calls[calls.state == "answered"].key.duplicated().any() and kept.ledger().lost.item() == 1 and len(api.seen) == n + 1


def test_a_dry_run_bounds_calls_tokens_and_price(api):
    s = open_scenario(DESK); prices = Prices({"m": (1, 4)}); agent = endpoint(Server("m", api.url, prices=prices)); agents = dict(visitor=visitor, guide=agent); e = estimate(s, agents, runs=2, message_tokens=12); assert not api.seen
    held = [Dialogue(s, agents, r).play() for r in range(2)]; paid = agent.server.answers.ledger().iloc[0]; each = [costs(d) for d in held]
    assert e.calls == len(api.seen) == paid.answered == 8 and e.tokens_in_most >= paid.tokens_in and e.tokens_out_most >= paid.tokens_out and e.cost_most >= paid.cost > 0 and sum(c.cost.sum() for c in each) == pytest.approx(paid.cost)
    assert estimate(s, dict(visitor=visitor, guide=endpoint(Server("unknown", api.url)))).unpriced == ("unknown",) and "no price is known for unknown" in repr(estimate(s, dict(visitor=visitor, guide=endpoint(Server("unknown", api.url)))))


# --- answers on disk --------------------------------------------------------------------------------------------------
def test_answers_are_one_for_each_key_and_shared_by_programs(tmp_path):
    sent = []; kept = Answers(tmp_path/"a.db"); chat = [dict(role="user", content="é \ud83d\ude00".encode("utf-16", "surrogatepass").decode("utf-16"))]
    ask = lambda store, **how: store.asked(lambda: sent.append(1) or Answer(f"answer {len(sent)}", 3, 2, (("a", -.5),)), **{**dict(model="m", messages=chat, settings=dict(temperature=0), seed=1), **how})
    first = ask(kept); other = Answers(tmp_path/"a.db"); again = ask(other); assert again == replace(first, cached=True) and again.top == (("a", -.5),) and again.paid == 0 and math.isnan(first.paid) and len(sent) == 1
    for change in (dict(model="n"), dict(seed=2), dict(settings=dict(temperature=.1)), dict(messages=chat + chat)): assert not ask(kept, **change).cached
    assert len(sent) == 5 and len(other) == 5
    kept.asked(lambda: Answer("no count"), "silent", chat, {}); assert kept.ledger().set_index("model").loc["silent", ["tokens_in", "tokens_out", "cost"]].isna().all() and kept.ledger().answered.tolist() == [4, 1, 1]
    (tmp_path/"no.db").write_text("this is no database, and long enough to be read as one" * 40)
    with pytest.raises(AskError, match="give a new file"): Answers(tmp_path/"no.db")
    Prices({"m": (1.5, 2)}, "EUR").save(tmp_path/"p.yaml"); p = Prices.open(tmp_path/"p.yaml"); assert p == {"m": (1.5, 2)} and p.currency == "EUR"
    with pytest.raises(AskError, match="needs `models:`"): (tmp_path/"p.yaml").write_text("m: 3"); Prices.open(tmp_path/"p.yaml")
