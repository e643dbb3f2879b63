"Planted concepts against a slow count, and shipped dictionaries against their cards: a small part of every card is measured again."
import json
from hashlib import sha256
from itertools import islice

import numpy as np
import pytest
import torch

import workbench
from workbench.features.concepts import auroc, concepts, find_concepts, told_rows
from workbench.features.errors import FeatureError
from workbench.features.formats import open_dictionary
from workbench.features.metrics import explained_variance, loss_recovered
from workbench.features.shipped import PLANS, missed, plan, shelve, summary_of, test_vectors as vectors_of, ids_of
from workbench.lm.edits import as_site
from workbench.tasks import corpus
from workbench.zoo import saes
from workbench.zoo.shelf import card as model_card


# --- concepts -------------------------------------------------------------------------------------------------------------
def test_rows_are_the_corpus_with_kinds():
    rows = told_rows(6, 9); assert [r[:2] for r in rows] == list(islice(corpus.rows(9), 6)) and {k for r in rows for k in r[2][1:]} <= {*corpus.WORLD} and all(len(r[2]) == len(r[0]) for r in rows)


def test_labels_are_what_the_words_say():
    rows = told_rows(80, 3); known = {c.name: c for c in concepts(rows)}; words = np.array([w for r in rows for w in r[0]], dtype=object)
    assert set(words[known["day"].label]) <= {"Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"} and known["day"].label.sum() == sum(w.endswith("day") and w not in ("Today", "Yesterday") for w in words)
    she = known["she next"]; at = np.flatnonzero(she.label & she.among); assert len(at) and {words[i + 1] for i in at} <= {"she", "herself", "her"} and not she.among[127::128].any()
    assert all(words[i + 1] in ("is", "are", "was", "were") for i in np.flatnonzero(known["plural verb next"].among))


def test_auroc_is_the_share_of_pairs():
    g = np.random.default_rng(0); code, label = g.integers(0, 4, (60, 5)).astype(float), g.random((2, 60)) < 0.4
    for i in range(2):
        p, n = code[label[i]], code[~label[i]]; slow = ((p[:, None] > n[None]) + 0.5 * (p[:, None] == n[None])).mean((0, 1)); assert np.allclose(auroc(code, label)[i], slow)
    assert np.isnan(auroc(code, np.zeros(60, bool))).all()


def test_a_planted_feature_is_found_and_luck_is_not():
    rows = told_rows(60, 4); day = [c for c in concepts(rows) if c.name in ("day", "city")]; n = 60 * 128; group = np.arange(n) // 128; g = np.random.default_rng(1)
    luck = np.abs(g.normal(size=(n, 300))); planted = luck.copy(); planted[:, 123] = day[0].label * 5; found = find_concepts(dict(planted=planted, luck=luck), day, group)
    i = [c.name for c in day].index(day[0].name); assert found.feature.values[i, 0] == 123 and found.auroc.values[i, 0] == 1.0 and np.abs(found.auroc.values[:, 1] - 0.5).max() < 0.15
    with pytest.raises(FeatureError, match="one row of codes"): find_concepts(dict(x=luck[:5]), day, group)


# --- shipped ---------------------------------------------------------------------------------------------------------------
def test_every_plan_is_there_and_small():
    assert set(saes.names()) == set(PLANS)
    for n in PLANS:
        weights, c = saes.folder(n) / "sae_weights.safetensors", saes.card(n)
        assert weights.stat().st_size <= 2e6 and sha256(weights.read_bytes()).hexdigest() == c["sha256"] and c["model_sha256"] == model_card(c["model"])["sha256"], f"{n} is not of this model: python -m workbench.features.shipped {n}"
        assert not missed(c) and c["plan"] == json.loads(json.dumps(plan(n).__dict__)) and c["summary"] == summary_of(c["measured"], c["concepts"]) and c["weaknesses"]


@pytest.mark.parametrize("name", list(PLANS))
def test_a_card_holds(name):
    "On 60 of the 400 rows: explained variance, L0, the best feature of three concepts, and the loss, beside the card's numbers."
    p, c, d = plan(name), saes.card(name), open_dictionary(name); lm = workbench.load(p.model); x, group, told = vectors_of(p, lm, 60); f = d.encode(x); m = c["measured"]
    assert d.site == as_site(p.site) and abs(explained_variance(x, d.decode(f)) - m["explained_variance"]) < 0.02 and abs(float((f != 0).sum(1).double().mean()) / m["l0"] - 1) < 0.1
    known = {k.name: k for k in concepts(told)}
    for r in sorted(c["concepts"], key=lambda r: -r["dictionary"])[:3]:
        k = known[r["concept"]]; assert abs(float(auroc(f[k.among, r["feature"]][:, None], k.label[k.among])[0, 0]) - r["dictionary"]) < 0.12, r
    q = loss_recovered(lm, d, ids_of(lm, told)[:20], site=p.site); assert abs(float(q.recovered.sel(loss="kl", ablation="mean")) - m["recovered"]["kl, mean ablation"][0]) < 0.05 and q.ce.values[0] < q.ce.values[1] < q.ce.values[3]


def test_refusals(tmp_path, monkeypatch):
    with pytest.raises(workbench.lm.errors.WorkbenchError, match="resid_post.2-topk"): saes.folder("micro/resid_post.2-topkk")
    with pytest.raises(FeatureError, match="planned"): plan("micro/none")
    monkeypatch.setattr("workbench.features.shipped.SAES", tmp_path); n = next(iter(PLANS)); bad = dict(saes.card(n), bars=[dict(what="explained_variance", bar=2.0, value=.9, holds=False)])
    with pytest.raises(FeatureError, match="misses its bars"): shelve(plan(n), open_dictionary(n), bad)
    assert not any(tmp_path.iterdir())
