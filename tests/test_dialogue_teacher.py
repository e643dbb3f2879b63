"""Who is explained to: closed forms and bounds, released code beside the paper, planted mental models, a built-in student; Shapley values beside all orders, axioms, a closed form."""
import itertools

import numpy as np
import pytest
from scipy.special import softmax

import workbench as wb
from workbench.dialogue.audit import audit
from workbench.dialogue.errors import DialogueError
from workbench.dialogue.play import Said
from workbench.dialogue.shapley import decides, noise_share, shapley
from workbench.dialogue.teacher import (BUDGETS, FUNCTIONS, MentalModel, Question, Student, afterwards, asks, budget_curve, chosen, leak, lesson, lessons, micro_lessons, misled, paired_gain, passages, personalised, prompted, scores, taught, useful)

UTILITY = "utility_correct_student_confidence"
area = lambda ds, f, **how: float(budget_curve(ds, [f], **how)["area"][0])


def test_utility_is_the_best_of_all_choices_by_enumeration():
    for seed in range(4):
        ds = micro_lessons(9, seed=seed, harmful=.3); g = ds.gold.values; i = np.arange(9); p, q = ds.own.values[i, g], ds.told.values[i, g]
        for k in range(10):
            every = max(np.where(np.isin(i, c), q, p).mean() for c in itertools.combinations(range(9), k)); assert np.isclose(np.where(chosen(UTILITY, ds, k / 9), q, p).mean(), every)


@pytest.mark.parametrize("harmful", [0., .4])
def test_curves_meet_at_the_ends_and_hindsight_bounds_them(harmful):
    ds = micro_lessons(600, seed=3, harmful=harmful); names = [f for f in FUNCTIONS if not f.startswith("mm")]; c = budget_curve(ds, names)["accuracy"]
    assert (c.isel(budget=0) == c.isel(budget=0)[0]).all() and (c.isel(budget=-1) == c.isel(budget=-1)[0, 0]).all() and (c <= c.sel(function="hindsight") + 1e-12).all()
    if not harmful: assert (c.diff("budget") >= 0).all()                     # an explanation that helps never costs a right answer
    else: assert c.sel(function=UTILITY).max() > c.sel(function=UTILITY).isel(budget=-1).max()


def test_random_is_a_straight_line_and_the_oracle_bounds_where_explaining_is_sure_to_work():
    ds = micro_lessons(500, seed=1); c = budget_curve(ds, ["random"], seeds=range(100), expected=True)["mean"].values[0]; line = c[0] + (c[-1] - c[0]) * np.array(BUDGETS); assert np.abs(c - line).max() < .004
    sure = budget_curve(micro_lessons(500, trust=1e5), ["oracle", UTILITY, "hindsight"])["mean"]; assert (sure <= sure[0] + 1e-12).all()


def test_released_code_does_what_it_does():
    ds = micro_lessons(500, seed=2); wrong = ds.own_answer.values != ds.gold.values
    assert (chosen("oracle", ds, 0., "as_released") == wrong).all() and chosen("oracle", ds, 0.).sum() == 0
    surest = ds.own.values.max(1); assert surest[chosen("least_student_confidence", ds, .2, "as_released")].min() > surest[chosen("least_student_confidence", ds, .2)].max()
    five = micro_lessons(9); assert chosen("random", five, .4, "as_released").sum() == 3 and chosen("random", five, .4).sum() == 4
    assert (scores(UTILITY, ds, deceive=True, conformance="as_released") == scores(UTILITY, ds, conformance="as_released")).all() and np.corrcoef(scores(UTILITY, ds, deceive=True), scores(UTILITY, ds))[0, 1] < -.99


def test_the_leak_is_said_and_can_be_switched_off():
    assert leak("mm_both") and not leak("mm_both", False) and leak(UTILITY, False, "as_released") and not leak("random") and leak("oracle", False)
    ds = micro_lessons(300, seed=5); other = ds.assign(gold=("item", 1 - ds.gold.values)); mm = ds.own.values, ds.told.values
    for f in ("mm_both", UTILITY, "correct_teacher_confidence"):
        assert (scores(f, ds, mm, use_gold_label=False) == scores(f, other, mm, use_gold_label=False)).all() and not (scores(f, ds, mm) == scores(f, other, mm)).all()
    hidden = lesson(Question("q", ("a", "b"), 0), use_gold_label=False); assert hidden.fields["gold"].visible == {} and "student" not in lesson(Question("q", ("a", "b"), 0)).fields["gold"].visible


def test_the_student_cannot_see_the_answer_but_a_teacher_can_tell_it():
    s = lesson(Question("Which?", ("a", "b"), 0)); student = Student(lambda p, o: softmax([5. * (x in p) for x in o]), source="closed_form")
    assert audit(s, dict(teacher=lambda v: Said("It is a rule."), student=student)).leaks.sum() == 0
    told = audit(s, dict(teacher=lambda v: Said(f"It is {v.fields['gold']}."), student=student), others=dict(gold="b")); assert "teacher said it" in told.channel.iloc[0] or told.leaks.sum() == 0
    ds = taught([Question("Which?", ("x", "y"), 1, "It is y.")] * 3, student); assert (ds.told_answer == 1).all() and np.allclose(ds.own, .5) and ds.attrs["source"] == "closed_form"


def test_a_mental_model_finds_planted_weights_and_ranks_almost_as_the_truth():
    rng = np.random.default_rng(1); x, w0, w1 = rng.normal(size=(3000, 3, 3)), np.array([1.5, 0, -1.]), np.array([1.5, 2, 0.]); gold = rng.integers(0, 3, 3000)
    own, told = softmax(x @ w0, 1), softmax(x @ w1, 1); draw = lambda p: (p.cumsum(1) > rng.random((len(p), 1))).argmax(1); ds = lessons(own, told, gold, None, a := draw(own), b := draw(told)); first, rest = slice(0, 2000), slice(2000, None)
    mental = MentalModel.fit(x[first], a[first], b[first]); assert np.abs(mental.own - w0).max() < .2 and np.abs(mental.told - w1).max() < .25
    held = ds.isel(item=rest); mm = mental.predict(x[rest]); assert abs(area(held, "mm_both", mm=mm, expected=True) - area(held, UTILITY, expected=True)) < .004
    noise = MentalModel.fit(x[first], rng.permutation(a[first]), rng.permutation(b[first])).predict(x[rest]); assert abs(area(held, "mm_both", mm=noise, expected=True) - area(held, "random", seeds=range(20), expected=True)) < .02


@pytest.fixture(scope="module")
def qa():
    student, demos, test = Student(asks(wb.load("qa"))), passages(80, seed=11), passages(160, seed=12); seen, ds = taught(demos, student), taught(test, student); f = lambda qs: np.stack([q.features for q in qs])
    return student, test, ds, MentalModel.fit(f(demos), seen.own_answer, seen.told_answer).predict(f(test))


def test_explaining_where_utility_is_predicted_gives_the_built_in_student_more(qa):
    _, test, ds, mm = qa
    for other in ("random", "least_student_confidence"): g = paired_gain(ds, "mm_both", other, mm=mm); assert g["low"] > 0 and g["n"] == 160
    c = budget_curve(ds, ["mm_both", "hindsight"], mm=mm); assert (c["mean"][0] <= c["mean"][1] + 1e-12).all() and (c.low <= c["mean"]).all() and (c["mean"] <= c.high).all()
    shuffled = [np.random.default_rng(0).permutation(m) for m in mm]; assert abs(paired_gain(ds, "mm_both", "random", mm=shuffled)["gain"]) < .05


def test_a_false_teacher_drags_the_built_in_student_to_chance(qa):
    easy = passages(48, seed=13, situations=("known", "new")); fall = budget_curve(taught(easy, qa[0], misled(easy)), ["random", UTILITY], deceive=True)["mean"]
    assert fall[0, 0] > .5 and float(fall[0, -1]) < .35 and (fall[1] <= fall[0] + 1e-12).all()
    closed = budget_curve(micro_lessons(400, misleading=True), ["random", UTILITY], deceive=True, expected=True)["mean"]; assert np.isclose(closed[:, -1], .5).all()


def test_the_teacher_finds_the_way_its_student_profits_from(qa):
    changed = passages(16, seed=14, situations=("changed",)); one = [next(s for s in q.explanation.split(". ") if q.options[q.gold] in s).rstrip(".") + "." for q in changed]
    long, short = taught(changed, qa[0]), taught(changed, qa[0], one); assert personalised(dict(long=long, short=short))["style"] == "long" and len(useful(short)) == 0
    rest = passages(16, seed=15, situations=("new",)); after = afterwards(qa[0].ask, rest[:4], rest[4:], ks=(2, 4)); assert np.abs(after - after.attrs["before"]).max() < .35


def test_the_prompted_mental_model_shows_right_answers_only_when_told_to():
    seen = []; q = Question("Sky?", ("blue", "red"), 0, "Look up."); ask = lambda p, o: (seen.append(p), np.array([.6, .4]))[1]
    own, told = prompted(ask, [q], [q, q], [0, 1], [0, 0], use_gold_label=False); assert own.shape == told.shape == (1, 2) and not any("Correct" in p for p in seen) and "AI Predicted Answer: red" in seen[0] and "Look up. So the answer is blue" in seen[1]
    seen.clear(); prompted(ask, [q], [q], [1], [0]); assert all("Correct Answer: blue" in p for p in seen)


@pytest.mark.parametrize("call, words", [(lambda d: chosen("oracel", d, .2), "Did you mean"), (lambda d: chosen("mm_both", d, .2), "mental model"), (lambda d: chosen("random", d, 1.2), "share"),
                                         (lambda d: lessons([[.5, .4]], [[.5, .5]], [0]), "sum to 1"), (lambda d: scores("random", d, conformance="papr"), "paper or as_released"), (lambda d: scores(UTILITY, d.drop_vars("teacher"), use_gold_label=False), "teacher"),
                                         (lambda d: Question("q", ("a",), 2), "gold=2"), (lambda d: MentalModel.fit(np.zeros((3, 2)), [0], [0]), "features"), (lambda d: micro_lessons(harmful=2), "share")])
def test_bad_input_is_told(call, words):
    with pytest.raises(DialogueError, match=words): call(micro_lessons(20))


# --- Shapley values ------------------------------------------------------------------------------------------------------

def random_game(n, seed):
    "A set function with all interactions, as a function of rows, and its Shapley values by all orders."
    rng = np.random.default_rng(seed); v = {s: rng.normal() for k in range(n + 1) for s in itertools.combinations(range(n), k)}; names = [f"f{i}" for i in range(n)]
    value = lambda row: v[tuple(i for i in range(n) if row[names[i]])]; phi = np.zeros(n)
    for o in itertools.permutations(range(n)):
        for k, i in enumerate(o): phi[i] += v[tuple(sorted(o[:k + 1]))] - v[tuple(sorted(o[:k]))]
    import math
    return (lambda rows: [value(r) for r in rows]), dict.fromkeys(names, 1), dict.fromkeys(names, 0), phi / math.factorial(n)


@pytest.mark.parametrize("seed", range(3))
def test_shapley_values_are_the_mean_over_all_orders_and_add_up(seed):
    f, one, zero, slow = random_game(5, seed); s = shapley(f, one, zero); assert np.abs(s - slow).max() < 1e-12 and abs(s.attrs["gap"]) < 1e-12 and s.attrs["coalitions"] == 32
    assert np.isclose(s.sum(), s.attrs["all"] - s.attrs["none"])
    drawn = shapley(f, one, zero, draws=150, seed=seed); assert drawn.attrs["exact"] == 0 and abs(drawn.attrs["gap"]) < 1e-9 and (np.abs(drawn - slow) < .5).all() and ((drawn.low <= slow) & (slow <= drawn.high)).sum() >= 4


def test_dummy_symmetry_and_the_additive_model():
    one, zero = dict(a=1, b=1, c=1), dict(a=0, b=0, c=0); s = shapley(lambda rows: [np.sin(2 * r["a"] + 2 * r["b"]) for r in rows], one, zero); assert abs(float(s[2])) < 1e-15 and abs(float(s[0] - s[1])) < 1e-12
    rng = np.random.default_rng(3); names = list("abcdefghijklmno"); terms = {f: rng.normal(size=3) for f in names}; back = [{f: int(rng.integers(3)) for f in names} for _ in range(4)]; add = lambda rows: [sum(terms[f][r[f]] for f in names) for r in rows]
    s = shapley(add, dict.fromkeys(names, 0), back, draws=20); assert np.abs(s - [terms[f][0] - np.mean([terms[f][b[f]] for b in back]) for f in names]).max() < 1e-9 and (s.high - s.low).max() < 1e-9     # 15 fields: sampled, and every order agrees


def test_shapley_of_a_model_adds_up_and_the_word_that_cannot_matter_does_not():
    template = "Speak as a {who}. Should we follow the {party} plan to {act} the {topic} {when}? <assistant>"; x = dict(who="red", party="blue", act="open", topic="school", when="now"); back = [dict(who="blue", party="red", act="rent", topic="river", when="soon"), dict(who="citizen", party="red", act="tax", topic="bridge", when="again")]
    lm = wb.load("opinions-shallow"); direct = lambda row, o: lm.run(template.format(**row)).last_logits[0].double().softmax(-1)[lm.answer_id(o)].item()
    s = shapley(decides(lm, template, ["Yes", "No"]), x, back); assert abs(s.attrs["gap"]) < 1e-6 and abs(s.attrs["all"] - direct(x, "Yes") / (direct(x, "Yes") + direct(x, "No"))) < 1e-5
    assert noise_share(s, ["when", "act", "topic"])["share"] < .05 and abs(float(s.sel(field="party"))) > .1
    odds = shapley(decides(lm, template, ["Yes", "No"], scale="log_odds"), x, back); assert np.isclose(odds.attrs["all"], np.log(s.attrs["all"] / (1 - s.attrs["all"])), atol=1e-4)


@pytest.mark.parametrize("call, words", [(lambda f: shapley(f, dict(a=1), dict(b=1)), "the same ones"), (lambda f: shapley(f, dict(a=1), []), "background"), (lambda f: shapley(lambda rows: [np.nan] * len(rows), dict(a=1), dict(a=0)), "finite"),
                                         (lambda f: noise_share(shapley(f, dict(a=1), dict(a=0)), ["z"]), "no field"), (lambda f: noise_share(shapley(lambda r: [1.] * len(r), dict(a=1), dict(a=0)), ["a"]), "no shares"),
                                         (lambda f: decides(wb.load("opinions-shallow"), "{a}", ["Yes"]), "two options"), (lambda f: decides(wb.load("opinions-shallow"), "{a} {b}", ["Yes", "No"])([dict(a="red")]), "'b'")])
def test_bad_games_are_told(call, words):
    with pytest.raises(DialogueError, match=words): call(lambda rows: [float(r["a"]) for r in rows])
