"""The command line as a newcomer, a script and a shell meet it: help, mistakes, files of parameters, one JSON document, signals, completion."""
import json, os, re, shlex, shutil, signal, subprocess, sys, time
from pathlib import Path

import pytest

import workbench
from workbench.lm.errors import WorkbenchError
from workbench.reporting import cli as command_line
from workbench.reporting.catalogue import describe, names
from workbench.reporting.cli import main
from workbench.reporting.param_files import Unquoted, from_json, from_toml, from_yaml, given, given_grid, read_file, value_as
from workbench.reporting.params import Misfit, read_params
from workbench.reporting.run import open_run, runs
from workbench.reporting.words import COMMANDS, EXITS, completion, pairs, top_parser

from conftest import ROOT, WORKBENCH, notebook

WORDS = [c.word for c in COMMANDS]


def said(capsys, *words):
    "`(exit code, stdout, stderr)` of a command run in this process."
    code = main([str(w) for w in words])
    return code, *capsys.readouterr()


def document(capsys, *words):
    "`(exit code, document)` of a command with `--json`: stdout must be one JSON document and nothing else."
    code, out, err = said(capsys, *words, "--json")
    return code, json.loads(out, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


# --- help -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("word", WORDS)
def test_every_command_has_help_with_examples(capsys, word):
    code, out, err = said(capsys, word, "--help")
    assert code == 0 and err == "" and out.startswith("usage: workbench ") and "Examples:" in out and "--json" in out
    assert code == said(capsys, word, "-h")[0] and max(map(len, out.splitlines())) <= 110
    assert document(capsys, word, "--help")[1]["help"].startswith("usage:")


@pytest.mark.parametrize("typed", [t for c in COMMANDS for t in c.examples])
def test_every_example_can_be_typed(typed):
    words = shlex.split(typed.split(" | ")[0].split(" > ")[0].removeprefix('eval "$(').removesuffix(')"'))
    assert words[0] == "workbench" and words[1] in WORDS
    args = top_parser()[0].parse_args(words[1:])
    report = getattr(args, "name", None)
    for name in [report] if isinstance(report, str) else report or []:
        if not name.endswith(".ipynb"): assert name in names(), name
    if args.word in ("report", "sweep") and args.param and not args.name.endswith(".ipynb"):
        params = describe(args.name).params
        given(params, [], pairs(args.param)) if args.word == "report" else given_grid(params, [], args.param)


def test_the_first_page_names_every_command_and_every_exit_code(capsys):
    for words in ([], ["--help"], ["-h"]):
        code, out, err = said(capsys, *words)
        assert code == 0 and err == "" and all(re.search(rf"^ +{w}\b", out, re.M) for w in WORDS) and all(re.search(rf"^ +{e} ", out, re.M) for e in EXITS)
    assert said(capsys, "--version")[1] == f"workbench {workbench.__version__}\n"


def test_words_need_no_torch():
    heavy = {"torch", "transformers", "numpy", "pandas", "xarray", "plotly", "papermill", "nbformat", "dask", "distributed", "duckdb", "matplotlib", "IPython"}
    asked = [["--help"], ["--version"], ["reports"], ["reports", "--json"], ["models"], ["report", "tour", "--help"], ["report", "tour", "-p", "n_hed=1"], ["sweep", "tour"], *([w, "--help"] for w in WORDS)]
    code = f"import sys, workbench.reporting.cli as c; print([c.main(w) for w in {asked}], file=sys.stderr); sys.exit(', '.join({heavy} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 0, done.stderr


# --- mistakes ---------------------------------------------------------------------------------------------------------
MISTAKES = [("raports", "Did you mean 'reports'"), ("report tour --fource", "Did you mean '--force'"), ("report tour --for", "Unrecognized option --for"), ("sweep tour -p n_heads=1,2 --jbos 2", "Did you mean '--jobs'"),
            ("report tour -p prompt=The cat", "goes in quotes"), ("report tour -p top_k=1 -p top_k=2", "given twice"), ("sweep tour -p top_k=1 -p top_k=2", "given twice"), ("report", "Which report?"), ("sweep", "Which report?"),
            ("sweep tour", "Which values?"), ("sweep tour -p modle=micro,x", "Did you mean 'model'"), ("sweep tour -p top_k=1..99", "from 1 to 50"), ("sweep tour -p top_k=1,2 --jobs 0", "a whole number from 1"),
            ("report tour --timeout -3", "a whole number from 1"), ("reports toor", "Did you mean 'tour'"), ("check", "required: MODEL"), ("check micr", "Did you mean 'micro'"), ("completion bsh", "invalid choice"),
            ("harvest micro text.txt --site resid_post.1", "required: --to"), ("harvest micro none.txt --site resid_post.1 --to acts", "none.txt"), ("gallery -o nowhere", "There is no folder"), ("report tour -q -v", "not allowed with"),
            ("--josn", "Unrecognized option --josn"), ("-q", "Unrecognized option -q")]


@pytest.mark.parametrize("words, says", MISTAKES, ids=[w for w, _ in MISTAKES])
def test_a_mistake_is_one_sentence_and_exit_code_2(capsys, tmp_path, monkeypatch, words, says):
    monkeypatch.chdir(tmp_path)
    code, out, err = said(capsys, *words.split())
    assert code == 2 and out == "" and says in err and len(err.strip().splitlines()) == 1 and err.startswith("workbench: ")
    code, found = document(capsys, *words.split())
    assert code == 2 and found == {"error": {"kind": "input", "message": err.strip().removeprefix("workbench: ")}}
    assert list(tmp_path.rglob("*.ipynb")) == []


# --- files of parameters ----------------------------------------------------------------------------------------------
def params(source): return read_params(notebook((source, "parameters")), "small")


KINDS = params('''from typing import Literal, Any, Optional
text: str = ""
n: int = 1
share: float = .5
flag: bool = False
words: list[str] = []
table: dict[str, float] = {}
shape: tuple[int, int] = (1, 2)
limit: int | None = None
note: str | None = None
side: Literal["on", "off"] = "on"
heads: Literal["auto"] | list[list[int]] = "auto"
anything: Any = None
''')
ODD = [("text: no", "no"), ("text: on", "on"), ("text: 1e3", "1e3"), ("text: 12:30", "12:30"), ("text: 2026-01-01", "2026-01-01"), ("text: 0x1F", "0x1F"), ("text: 1_000", "1_000"), ("text: .5", ".5"), ("text: 'null'", "null"), ("text: ''", ""),
       ("text: |\n  two\n  lines\n", "two\nlines\n"), ("text: =", "="), ("text: <<", "<<"), ("text: \"5\"", "5"), ("n: 017", 17), ("n: -3", -3), ("share: 1e3", 1000.0), ("share: 3", 3.0), ("flag: on", True), ("flag: no", False), ("flag: y", Misfit), ("flag: off", False),
       ("words: [sat, on, it, 1e3, no]", ["sat", "on", "it", "1e3", "no"]), ("words:\n- ~", Misfit), ("table: {a: 1e3, on: 2}", {"a": 1000.0, "on": 2.0}), ("shape: [3, 4]", (3, 4)), ("shape: [3, 4, 5]", Misfit), ("limit: ~", None), ("limit: null", None),
       ("limit:", None), ("note: null", None), ("note: no", "no"), ("side: on", "on"), ("side: off", "off"), ("side: yes", Misfit), ("heads: auto", "auto"), ("heads: [[1, 2], [3, 4]]", [[1, 2], [3, 4]]), ("heads: [[1, two]]", Misfit),
       ("anything: on", "on"), ("anything: 1e3", 1000.0), ("anything: [1, a, true]", [1, "a", True]), ("anything: {a: [1]}", {"a": [1]}),
       ("text:", Misfit), ("text: null", Misfit), ("text: ~", Misfit), ("text: [a]", Misfit), ("n: 1e3", Misfit), ("n: '3'", Misfit), ("n: 3.0", Misfit), ("n: 12:30", Misfit), ("n: yes", Misfit), ("share: .nan", Misfit), ("share: .inf", Misfit), ("share: nan", Misfit)]


@pytest.mark.parametrize("text, value", ODD, ids=[t for t, _ in ODD])
def test_yaml_means_what_was_typed(text, value):
    [(name, found)] = from_yaml(text).items()
    if value is Misfit:
        with pytest.raises(Misfit): value_as(KINDS[name].kind, found)
    else:
        got = value_as(KINDS[name].kind, found)
        assert got == value and type(got) is type(value)


def test_what_pyyaml_would_have_made_of_it():
    "The same texts read by `safe_load` are other values: the reason for reading them ourselves."
    import yaml
    changed = [t for t, v in ODD if v is not Misfit and "anything" not in t and t not in ("text: =", "text: <<") and yaml.safe_load(t)[t.split(":")[0]] != v]
    assert {"text: no", "text: on", "text: 12:30", "text: 2026-01-01", "n: 017", "share: 1e3", "words: [sat, on, it, 1e3, no]", "side: on", "note: no"} <= set(changed)


BAD_FILES = [("p.yaml", "n: 1\nn: 2", "'n' is there twice"), ("p.yaml", "text: &a x\nnote: *a", "aliases like \\*a"), ("p.yaml", "text: !!python/object/apply:os.system [x]", "tags like"), ("p.yaml", "text: [1", "this is no YAML"), ("p.yaml", "- a", "must hold names"),
             ("p.yaml", "[a, b]: 1", "a name must be a word"), ("p.yaml", "a: 1\n---\nb: 2", "no YAML"), ("p.yaml", "nn: 1", "no parameter 'nn'. Did you mean 'n'"), ("p.yml", "n: one", "must be int, not 'one'"), ("p.json", '{"n": "1"}', "must be int"), ("p.json", '{"n": 1, "n": 2}', "there twice"),
             ("p.json", '{"share": NaN}', "NaN is not a number"), ("p.json", '{"n": 1', "line 1: this is no JSON"), ("p.json", "[" * 100_000, "nested too deeply"), ("p.toml", "n = 1\nn = 2", "no TOML"), ("p.toml", "text = 2026-01-01", "must be str"),
             ("p.txt", "n: 1", "must end in .yaml"), ("none.yaml", None, "cannot be read"), ("p.yaml", b"\xff\xfe\x00", "not UTF-8"), ("p.yaml", "a: " + "[" * 5000, "nested too deeply|no YAML")]


@pytest.mark.parametrize("name, text, says", BAD_FILES, ids=[f"{n} {str(t)[:30]!r}" for n, t, _ in BAD_FILES])
def test_a_file_that_cannot_be_used(tmp_path, name, text, says):
    if text is not None: (tmp_path/name).write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(WorkbenchError, match=says) as error: given(KINDS, [tmp_path/name], {}, "small")
    assert name in str(error.value) and "\n" not in str(error.value)


def test_three_formats_say_the_same_and_words_win(tmp_path):
    texts = {"a.yaml": "\ufefftext: no\nn: 3\nwords: [a, 'on']\nshare: 1\n# a comment", "a.json": '{"text": "no", "n": 3, "words": ["a", "on"], "share": 1}', "a.toml": 'text = "no"\nn = 3\nwords = ["a", "on"]\nshare = 1.0'}
    for name, text in texts.items(): (tmp_path/name).write_text(text)
    found = [given(KINDS, [tmp_path/name], {"n": "4"}, "small") for name in texts]
    assert found[0] == found[1] == found[2] == {"text": "no", "n": 4, "words": ["a", "on"], "share": 1.0}
    (tmp_path/"later.yaml").write_text("n: 9\nflag: on")
    assert given(KINDS, [tmp_path/"a.json", tmp_path/"later.yaml"], {}, "small") == found[0] | {"n": 9, "flag": True}
    (tmp_path/"empty.yaml").write_text("# nothing yet\n")
    assert given(KINDS, [tmp_path/"empty.yaml"], {}) == {}


def test_a_grid_from_a_file(tmp_path):
    (tmp_path/"g.yaml").write_text("text: [no, on]\nn: 0..2\nwords: [a, b]\nshape: [[1, 2], [3, 4]]\nnote: a, b\nflag: [on, off]")
    (tmp_path/"g.json").write_text('{"text": ["no", "on"], "n": "0..2", "words": ["a", "b"], "shape": [[1, 2], [3, 4]], "note": "a, b", "flag": [true, false]}')
    from workbench.reporting.grid import grid_of
    wanted = {"text": ["no", "on"], "n": [0, 1, 2], "words": [["a", "b"]], "shape": [(1, 2), (3, 4)], "note": ["a, b"], "flag": [True, False]}
    for name in ("g.yaml", "g.json"): assert grid_of(KINDS, given_grid(KINDS, [tmp_path/name], [], "small"), "small") == wanted
    (tmp_path/"g.yaml").write_text("n: [1, two]")
    with pytest.raises(WorkbenchError, match="must be int, not 'two'"): given_grid(KINDS, [tmp_path/"g.yaml"], [], "small")


# --- one document -----------------------------------------------------------------------------------------------------
def test_lists_for_programs(capsys):
    code, reports = document(capsys, "reports")
    assert code == 0 and [r["name"] for r in reports] == names()
    tour = next(r for r in reports if r["name"] == "tour")
    assert {p["name"]: p["range"] for p in tour["parameters"]}["top_k"] == {"least": 1, "most": 50}
    patching = document(capsys, "reports", "patching")[1][0]
    assert next(p for p in patching["parameters"] if p["name"] == "metric")["choices"] == ["logit_difference", "log_probability", "probability", "kl"]
    assert all(p["help"] and p["type"] for r in reports for p in r["parameters"])
    code, models = document(capsys, "models")
    assert code == 0 and [m["name"] for m in models] == workbench.zoo.names() and models[0]["layers"] == 4


def test_every_report_says_how_long_it_takes(capsys):
    assert all(0 < r["minutes"] < 30 for r in document(capsys, "reports")[1])
    out = said(capsys, "reports")[1]
    assert "not measured" not in out and all(f"  {p} " in out for n in names() for p in describe(n).params)
    assert len(said(capsys, "reports", "--quiet")[1].splitlines()) == len(names())


def test_a_run_for_a_program_and_for_a_person(write_report, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_report("n: int = 2\ntext: str = ''", "print('a cell prints')", result="{'twice': 2 * n, 'text': text, 'nothing': None}")
    (tmp_path/"p.yaml").write_text("text: no\nn: 3\n")
    code, out, err = said(capsys, "report", path, "-f", "p.yaml", "-p", "n=4")
    page = Path(out.strip())
    assert code == 0 and page.is_file() and "small: " in err and "a cell prints" not in out
    code, found = document(capsys, "report", path, "-p", "n=4", "-p", "text=no")
    assert code == 0 and found["cached"] and found["result"] == {"twice": 8, "text": "no", "nothing": None} and found["page"] == str(page) and found["status"] == "done"
    code, out, err = said(capsys, "report", path, "-f", "p.yaml", "-p", "n=4", "--quiet")
    assert (code, out, err) == (0, f"{page}\n", "")
    code, out, err = said(capsys, "report", path, "-f", "p.yaml", "-p", "n=4", "--verbose")
    assert code == 0 and out == f"{page}\n" and "Nothing was run" in err and "Key: " in err and "CPU s" in err
    code, found = document(capsys, "report", path, "-f", "p.yaml", "-p", "n=4", "--force", "--quiet")
    assert code == 0 and not found["cached"] and len(runs(tmp_path/"_runs")) == 1


def test_a_failure_for_a_program(write_report, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, found = document(capsys, "report", write_report("n: int = 0", "1 / n"), "--quiet")
    assert code == 1 and found["error"]["kind"] == "failed" and found["run"]["failure"]["error"].startswith("ZeroDivisionError") and Path(found["run"]["notebook"]).is_file()


def test_many_runs(write_report, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write_report("n: int = 2\nword: str = 'a'", "assert n != 1", result="{'twice': 2 * n}")
    code, found = document(capsys, "sweep", path, "-p", "n=0..1", "--jobs", "1", "--quiet")
    assert code == 1 and [m["status"] for m in found["members"]] == ["done", "failed"] and Path(found["page"]).is_file()
    code, out, err = said(capsys, "sweep", path, "-p", "n=0,1", "--jobs", "1", "--quiet")
    assert code == 1 and Path(out.strip()).is_file() and "1 failed" in err and "AssertionError" in err
    code, out, err = said(capsys, "sweep", path, "-p", "n=0", "-p", "word=a", "--jobs", "1")
    assert code == 0 and "1 member" in err
    code, found = document(capsys, "gallery")
    assert code == 0 and found == {"page": str(tmp_path/"_runs"/"index.html")} and "Small" in Path(found["page"]).read_text()
    assert said(capsys, "gallery", "--to", tmp_path/"site")[1] == f"{tmp_path/'site'/'index.html'}\n"


def test_activations(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path/"text.txt").write_text("When Mary and John went to the store , John gave a drink to Mary .\n" * 20)
    words = "harvest", "micro", "text.txt", "--site", "resid_post.1", "-s", "mlp_out.0", "--to", "acts", "--tokens", "64", "--context", "16"
    code, found = document(capsys, *words)
    assert code == 0 and found["sites"] == ["resid_post.1", "mlp_out.0"] and 0 < found["tokens"] <= 64 and found["shards"] == 1
    from workbench.scale.harvest import open_harvest
    assert len(open_harvest("acts")["resid_post.1"]) == found["vectors"]
    assert said(capsys, *words)[:2] == (0, "acts\n")


def test_check_tells_both(capsys):
    code, found = document(capsys, "check", "induction")
    assert code == 0 and found["ok"] and found["parity"] < found["tolerance"] and found["dtype"] == "torch.float32"
    assert "agrees within" in said(capsys, "check", "induction")[1]


def test_what_others_print_does_not_reach_the_document(tmp_path):
    code = ("import os, sys, workbench.reporting.cli as c\n"
            "def noisy(args): print('printed'); os.system('echo from a process'); os.write(1, b'straight to the descriptor\\n'); return c.Answer({'n': float('inf'), 'path': c.workbench})\n"
            "c.DO['models'] = noisy; sys.argv = ['workbench', 'models', '--json']; sys.exit(c.main())")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0 and json.loads(done.stdout)["n"] is None and all(w in done.stderr for w in ("printed", "from a process", "straight to"))


def test_an_error_of_ours_is_no_traceback_unless_asked_for(capsys, monkeypatch):
    def broken(args): raise KeyError("oh")
    monkeypatch.setitem(command_line.DO, "models", broken)
    code, out, err = said(capsys, "models")
    assert code == 1 and out == "" and len(err.splitlines()) == 1 and "KeyError" in err and "--verbose" in err
    assert "Traceback" in said(capsys, "models", "--verbose")[2]
    assert document(capsys, "models")[1]["error"]["kind"] == "unexpected"


def test_a_reader_that_leaves_early_is_no_error():
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {WORKBENCH[0]} reports | head -n 1"], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "" and len(done.stdout.splitlines()) == 1


# --- signals ----------------------------------------------------------------------------------------------------------
def kernels(folder) -> list:
    "Processes that still work in `folder`."
    import psutil
    found = []
    for p in psutil.process_iter(["cmdline"]):
        try:
            if p.status() != psutil.STATUS_ZOMBIE and p.cwd().startswith(str(folder)): found.append(p.info["cmdline"])
        except psutil.Error: pass
    return found


def gone(folder) -> bool:
    "Whether nothing works there any more, after a moment at most."
    end = time.monotonic() + 20
    while kernels(folder) and time.monotonic() < end: time.sleep(.1)
    return not kernels(folder)


SLEEPS = "open('started', 'w').close(); import time; time.sleep(120)"


@pytest.mark.parametrize("words", [(), ("--json",)], ids=["text", "json"])
def test_ctrl_c_at_a_terminal(write_report, tmp_path, words):
    "A real terminal sends the signal to the command and to all its children at once."
    import pexpect
    path = write_report("n: int = 0", SLEEPS.replace("'started'", repr(str(tmp_path/"started"))))
    child = pexpect.spawn(WORKBENCH[0], ["report", str(path), *words], cwd=str(tmp_path), timeout=120, encoding="utf-8")
    end = time.monotonic() + 120
    while not (tmp_path/"started").exists() and time.monotonic() < end: time.sleep(.05)
    child.sendintr(); shown = child.read(); child.close()
    assert child.exitstatus == 130 and "Traceback" not in shown and "Interrupted. Kept so far: " in shown.replace("\r\n", " ")
    [folder] = (tmp_path/"_runs"/"small").iterdir()
    assert folder.name.endswith("-interrupted") and open_run(folder).status == "interrupted" and gone(tmp_path)
    if words: assert '"kind": "interrupted"' in shown


def test_ended_by_another_program(write_report, tmp_path):
    path = write_report("n: int = 0", SLEEPS.replace("'started'", repr(str(tmp_path/"started"))))
    process = subprocess.Popen([*WORKBENCH, "report", str(path)], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    end = time.monotonic() + 120
    while not (tmp_path/"started").exists() and time.monotonic() < end: time.sleep(.05)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143 and "Traceback" not in err and "Ended by signal 15. Kept so far" in err and [r.status for r in runs(tmp_path/"_runs")] == ["interrupted"] and gone(tmp_path)


# --- completion -------------------------------------------------------------------------------------------------------
def completed(line: str) -> list[str]:
    "What bash offers at the end of a line, asked of a real bash."
    words = line.split(" ")
    script = f"{completion('bash')}\nCOMP_WORDS=({' '.join(map(shlex.quote, words))}); COMP_CWORD={len(words) - 1}; COMP_LINE={shlex.quote(line)}; COMP_POINT={len(line)}\n" \
             "$(complete -p workbench | sed 's/.*-F \\([^ ]*\\).*/\\1/') workbench \"${COMP_WORDS[COMP_CWORD]}\" \"${COMP_WORDS[COMP_CWORD-1]}\"; printf '%s\\n' \"${COMPREPLY[@]}\""
    done = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True, cwd=ROOT/"tests")
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("line, offered", [("workbench sw", {"sweep"}), ("workbench report to", {"tour"}), ("workbench report tour --f", {"--file", "--force"}), ("workbench check induct", {"induction"}), ("workbench completion ", {"bash", "zsh", "fish"}),
                                           ("workbench report tour -o gold", {"golden"}), ("workbench report tour -f conf", {"conftest.py"})])
def test_bash_completes(line, offered): assert set(completed(line)) == offered


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_script_for_each_shell(capsys, shell):
    code, out, err = said(capsys, "completion", shell)
    assert code == 0 and err == "" and all(w in out for w in [*WORDS, *names(), "--scheduler"])
    assert document(capsys, "completion", shell)[1] == {"shell": shell, "script": out.rstrip("\n")} or document(capsys, "completion", shell)[1]["script"] == out.removesuffix("\n")
    if shutil.which(shell):
        done = subprocess.run([shell, "-n"], input=out, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
