"""The guide: its data are complete and true, and every method page has a formula, shapes, a source and how it can mislead."""
import json
import re
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import yaml

from workbench.lm.sites import KINDS
from workbench.teach.glossary import glossary, plain, problems, used
from workbench.teach.methods import VOCABULARY, MethodError, _exported, _tags, card, cards, declared, methods, missing

ROOT = Path(__file__).resolve().parents[1]
NBS = ROOT/"nbs"
NO_METHODS = {"lm", "zoo", "tasks", "widgets", "reporting", "scale", "teach", "tutorials", "__pycache__"}   # ground, instruments and teaching: folders that explain no model


@lru_cache(None)
def cells(page: str, kind: str) -> list:
    "Sources of the code or markdown cells of a page below nbs/."
    return ["".join(c["source"]) for c in json.loads((NBS/page).read_text("utf-8"))["cells"] if c["cell_type"] == kind]


@lru_cache(None)
def prose(page: str) -> str: return "\n".join(cells(page, "markdown"))
@lru_cache(None)
def code(page: str) -> str: return "\n".join(cells(page, "code"))


# --- methods ------------------------------------------------------------------------------------------------------------
def test_every_public_method_is_tagged():
    assert missing() == []
    assert {p.parent.name for p in (ROOT/"workbench").glob("*/*.py")} - NO_METHODS == set(declared())          # a new room has to be in the table, or here
    assert all(getattr(c, question) in words for c in cards() for question, words in VOCABULARY.items())


@pytest.mark.parametrize("room", declared())
def test_a_method_without_a_tag_is_noticed(room):
    "Taking the line of an exported method, or the only line of a module, out of the file is noticed."
    table = declared()[room]; keys = [k for k in table if k != "parts"]; modules = [k.split(".")[0] for k in keys]
    alone = [k for k in keys if k.split(".")[1] in _exported(room) or modules.count(k.split(".")[0]) == 1]
    assert len(alone) > len(keys) / 3
    for key in alone: assert missing({room: {k: v for k, v in table.items() if k != key}}), key


def test_tags_are_checked():
    with pytest.raises(MethodError, match="four words"): _tags("component local causal", "a.b")
    with pytest.raises(MethodError, match="local or global"): _tags("component here causal post-hoc", "a.b")
    with pytest.raises(MethodError, match="no method 'patchh'"): card("patchh")
    assert "lens.race is not there" not in missing({"lens": declared()["lens"]}) and "lens.nothing is not there" in missing({"lens": declared()["lens"] | {"race.nothing": {"is": "behaviour local observational post-hoc"}}})


def test_cards_have_a_sentence_a_page_and_reports_that_exist():
    reports = {p.stem for p in (ROOT/"reports").glob("*.ipynb")}
    for c in cards():
        assert c.line and (NBS/c.notebook).exists(), c.name
        assert set(c.reports) <= reports and [step for step, _ in c.steps] == ["explained", "access", "comes out", "read with care"]
    table = methods().set_index("method")
    assert "illusion_debate" in table.reports["das"] and "persuasion" in table.reports["trial"] and table.reports["flow"] == ""
    assert set("".join(table.reports.str.replace(", ", " ") + " ").split()) >= reports - {"features"}           # that one reaches its methods through `overview`


def test_papers_of_a_card_stand_on_its_page():
    for c in cards():
        for paper in c.papers:
            name, year = paper.rsplit(" ", 1)
            assert any(re.search(rf"{re.escape(name)}[^\n]{{0,140}}{year}", prose(p) + code(p)) for p in (c.notebook, *c.more)), (c.name, paper)


# --- the house style of method pages ---------------------------------------------------------------------------------------
SHAPES = r"\((?:\d+ )?[a-z_]+(?:, [a-z_0-9]+)+\)|\([a-z_]+,\)"         # (prompt, layer, head) or (prompt,)
SOURCE = r"[A-Z][\w\u00c0-\u017f-]+[^.\n]{0,60}\b(?:19|20)\d\d\b"      # a name and a year
EXCEPT = {
    ("formula", "features/18_records.ipynb"): "a store: what it keeps is defined where it is gathered",
    ("source", "features/18_records.ipynb"): "a store of this package",
    ("formula", "dialogue/19_entangled.ipynb"): "scored by rules that stand in a table; a share needs no formula",
    ("formula", "dialogue/20_covert.ipynb"): "a game that is read by rules in a table",
    ("formula", "theory/09_novelty_tracer.ipynb"): "a look-up of n-grams, told in a sentence",
    ("source", "patching/51_generation.ipynb"): "what is new is a check of the cache, which is bookkeeping",
    ("source", "patching/52_turns.ipynb"): "activation patching with turns as positions; its sources stand with patch",
    ("source", "dialogue/11_tiny.ipynb"): "agents of this package",
    ("source", "dialogue/25_readout.ipynb"): "a difference of logits, asked at every token",
}


@lru_cache(1)
def lacking() -> set:
    "(what, page) that the pages of methods do not have."
    out = set()
    for page in {c.notebook for c in cards()}:
        if "$" not in prose(page): out.add(("formula", page))
        if not re.search(r"^#+ .*mislead", prose(page), re.M | re.I): out.add(("how it can mislead", page))
        if not re.search(SHAPES, code(page)): out.add(("shapes", page))
        if not re.search(SOURCE, prose(page)) and not any(c.papers for c in cards() if c.notebook == page): out.add(("source", page))
    return out


def test_method_pages_have_formula_shapes_source_and_doubts():
    assert lacking() - set(EXCEPT) == set()
    assert set(EXCEPT) - lacking() == set()                              # an exception that is not needed any more goes


def test_no_page_shows_prose_as_a_heading():
    for path in NBS.rglob("*.ipynb"):
        for cell in cells(str(path.relative_to(NBS)), "markdown"):
            assert not cell.startswith("# # "), path


# --- glossary ---------------------------------------------------------------------------------------------------------------
def test_glossary_is_ordered_linked_and_closed():
    pages = {str(p.relative_to(NBS)) for p in NBS.rglob("*.ipynb")}
    assert problems(glossary(), pages, KINDS) == []
    assert all("[[" not in plain(e["means"]) and 1 <= len(re.findall(r"[.?](?: |$)", e["means"])) <= 4 for e in glossary().values())


def test_glossary_problems_are_found():
    terms, pages = glossary(), {e["where"] for e in glossary().values()}
    assert problems(dict(reversed(terms.items())), pages, [])
    assert problems({k: v for k, v in terms.items() if k != "residual stream"}, pages, KINDS)[-3:] == [f"no entry explains the site '{s}'" for s in ("resid_pre", "resid_mid", "resid_post")]
    assert "'circuit' uses 'faithfulness', which is not defined" in problems({k: v for k, v in terms.items() if k != "faithfulness"}, pages, [])
    assert problems(terms, pages - {"bias/00_context_knob.ipynb"}, []) == ["'context knob' links to bias/00_context_knob.ipynb, which is not there"]
    assert used("[[a]] and [[b|c]]") == ["a", "b"] and plain("[[a]] and [[b|c]]") == "a and c"


@pytest.mark.parametrize("term", ["projection", "transference", "explanation", "goal misgeneralisation", "reward hacking", "power seeking", "deceptive alignment", "faithfulness", "plausibility", "mediator", "post-hoc", "transparent", "local and global"])
def test_terms_that_the_theory_rows_ask_for(term): assert term in glossary()


# --- the catalogue ------------------------------------------------------------------------------------------------------------
def test_catalogue_of_papers():
    rows = {i: (room, r) for room, rs in yaml.safe_load((NBS/"guide/papers.yaml").read_text("utf-8")).items() for i, r in rs.items()}
    assert len(rows) == 290 and all(re.fullmatch(r"S\d{3}", i) for i in rows)
    for i, (room, r) in rows.items():
        assert set(r) <= {"title", "state", "where", "note"} and r["state"] in ("done", "partly", "not"), i
        assert bool(r.get("where")) == (r["state"] != "not") and (r["state"] != "partly" or r.get("note")), i
        assert all((NBS/w).exists() for w in r.get("where", ())), i
    where = {w for _, r in rows.values() for w in r.get("where", ())}
    assert {"attention/09_successor.ipynb", "patching/32_das.ipynb", "guide/02_methods.ipynb"} <= where


# --- coming from another library --------------------------------------------------------------------------------------------------
def test_every_cell_of_a_peer_was_run_and_is_compared():
    page = "guide/00_coming_from.ipynb"
    theirs = [m[2].strip() for c in cells(page, "code") if (m := re.match(r"#\| eval: false\n# (\w+) · (.+)\n", c))]
    kept = np.load(ROOT/"tests/golden/coming_from.npz")
    assert sorted(theirs) == sorted(kept.files) == sorted(re.findall(r'difference\("([^"]+)"', code(page))) and len(theirs) == len(set(theirs)) >= 11
    assert all(np.isfinite(kept[t]).all() and kept[t].std() > 0 for t in theirs)
    assert set(json.loads((ROOT/"tests/golden/coming_from.json").read_text())) == {"TransformerLens", "nnsight", "BertViz", "CircuitsVis", "SAELens"}


# --- links ------------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("page", sorted(p.name for p in (NBS/"guide").glob("*.ipynb")))
def test_links_of_the_guide(page):
    outputs = [str("".join(o.get("data", {}).get("text/markdown", ""))) for c in json.loads((NBS/"guide"/page).read_text("utf-8"))["cells"] for o in c.get("outputs", ())]
    links = re.findall(r"\]\(([^)#\s]+\.ipynb)", prose(f"guide/{page}") + "\n".join(outputs))
    assert links and [l for l in links if not (NBS/"guide"/l).resolve().exists()] == []
