"""The package read as text, without importing it: every public name with its signature, docstring, notes on parameters and source."""
import ast, io, re, tokenize
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SPECIAL = {"__call__", "__getitem__", "__len__", "__iter__", "__contains__", "__enter__", "__add__", "__or__", "__matmul__", "__rshift__"}


@dataclass
class Param:
    "A parameter, or the field of a dataclass."
    name: str
    kind: str = ""      # its annotation
    default: str = ""
    note: str = ""      # the comment beside it


@dataclass
class Name:
    "A public name, or a member of a class."
    name: str
    kind: str                                    # function, class, method, property, value
    module: str
    signature: str = ""
    doc: str = ""
    source: str = ""
    line: int = 0
    params: list = field(default_factory=list)
    returns: Param | None = None
    bases: list = field(default_factory=list)
    members: list = field(default_factory=list)

    @property
    def short(self) -> str: return self.name.rsplit(".", 1)[-1]
    @property
    def noted(self) -> bool: return any(p.note for p in self.params) or bool(self.returns and self.returns.note)


@dataclass
class Module:
    "A file of the package."
    name: str                                    # workbench.lm.sites
    path: Path
    line: str                                    # first line of its docstring
    notebook: str                                # nbs/lm/01_sites.ipynb, or "" where it is written by hand
    names: dict = field(default_factory=dict)    # in the order of the file
    again: dict = field(default_factory=dict)    # names of other modules that can be imported from here: name -> module

    @property
    def page(self) -> str: return "api/" + ("/".join(self.name.split(".")[1:]) or "workbench") + ("/index" if self.path.name == "__init__.py" and self.name != "workbench" else "") + ".html"


def comments(source: str) -> dict[int, str]:
    "Line -> the comment that ends it."
    return {t.start[0]: t.string.lstrip("# ").strip() for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type == tokenize.COMMENT}


def written(node, lines: list[bytes] | None = None) -> str:
    "A piece of code as it stands in the file; on one line, where it spans several."
    if node is None: return ""
    if lines and node.lineno == node.end_lineno: return lines[node.lineno - 1][node.col_offset:node.end_col_offset].decode()
    return ast.unparse(node)


def parameters(node, notes: dict[int, str], lines: list[bytes]) -> tuple[list[Param], Param | None]:
    "Parameters and what is returned; a comment belongs to the only parameter on its line."
    a = node.args; plain = [*a.posonlyargs, *a.args]
    defaults = [None] * (len(plain) - len(a.defaults)) + a.defaults
    every = list(zip(plain, defaults)) + ([(a.vararg, None)] if a.vararg else []) + list(zip(a.kwonlyargs, a.kw_defaults)) + ([(a.kwarg, None)] if a.kwarg else [])
    first, last = node.lineno, node.body[0].lineno
    on_line = [(d or p).end_lineno for p, d in every]
    note = lambda line: notes.get(line, "") if last > first + 1 and on_line.count(line) == 1 else ""
    star = {id(a.vararg): "*", id(a.kwarg): "**"}
    found = [Param(star.get(id(p), "") + p.arg, written(p.annotation, lines), written(d, lines), note(line)) for (p, d), line in zip(every, on_line)]
    returns = Param("returns", written(node.returns, lines), "", notes.get(node.returns.end_lineno, "") if last > first + 1 and node.returns.end_lineno not in on_line else "") if node.returns is not None else None
    return [p for p in found if p.name not in ("self", "cls")], returns


def signature(name: str, params: list[Param], returns: Param | None, marks: str = "", wide: int = 92) -> str:
    "As it would be written, on one line where it fits."
    one = lambda p: p.name + (f": {p.kind}" if p.kind else "") + ((" = " if p.kind else "=") + p.default if p.default else "")
    texts = [one(p) for p in params]; end = f" -> {returns.kind}" if returns else ""
    line = f"{marks}{name}({', '.join(texts)}){end}"
    return line if len(line) <= wide else f"{marks}{name}(\n" + "".join(f"    {t},\n" for t in texts) + f"){end}"


def starred(node, params: list[Param]) -> list[Param]:
    "Parameters with the bare `*` before those that are given by name only."
    names = [p.arg for p in node.args.kwonlyargs]
    if not names or node.args.vararg: return params
    i = next((i for i, p in enumerate(params) if p.name == names[0]), None)
    return params if i is None else [*params[:i], Param("*"), *params[i:]]


class File:
    "A file while it is read."
    def __init__(self, source: str, module: str):
        self.module, self.lines, self.bytes = module, source.splitlines(), source.encode().splitlines()
        self.notes, self.tree = comments(source), ast.parse(source)
        self.functions = {n.name: n for n in self.tree.body if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef))}

    def text(self, node) -> tuple[str, int]:
        "The lines of a definition with its decorators, and the first of them."
        start = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        return "\n".join(self.lines[start - 1:node.end_lineno]), start

    def function(self, node, owner: str = "", called: str = "", wrapped: str = "") -> Name:
        "A function, or a method of `owner`, which may bear another name there."
        params, returns = parameters(node, self.notes, self.bytes); name = called or node.name
        marks = {ast.unparse(d).split("(")[0] for d in node.decorator_list} | {wrapped}
        kind = "property" if marks & {"property", "cached_property"} else "method" if owner else "function"
        if owner and params and called and not marks & {"classmethod", "staticmethod"} and node.args.args and node.args.args[0].arg == params[0].name: params = params[1:]
        prefix = ("async " if isinstance(node, ast.AsyncFunctionDef) else "") + ("classmethod " if "classmethod" in marks else "static " if "staticmethod" in marks else "")
        sign = f"{name}{f': {returns.kind}' if returns else ''}" if kind == "property" else signature(name, starred(node, params), returns, prefix)
        return Name(f"{owner}.{name}" if owner else name, kind, self.module, sign, ast.get_docstring(node) or "", *self.text(node), params, returns)

    def given(self, owner: str, target: str, value, statement) -> Name | None:
        "A member that is assigned: a function of the file, wrapped or not, or a property made on the spot."
        wrapped = ast.unparse(value.func).split("(")[0] if isinstance(value, ast.Call) else ""
        inner = value.args[-1] if isinstance(value, ast.Call) and value.args else value
        if isinstance(inner, ast.Name) and inner.id in self.functions: return self.function(self.functions[inner.id], owner, target, wrapped)
        if isinstance(inner, ast.Lambda):
            params = [Param(a.arg) for a in inner.args.args][1:]
            return Name(f"{owner}.{target}", "property" if wrapped == "property" else "method", self.module, target if wrapped == "property" else signature(target, params, None), "", *self.text(statement))
        return None

    def attached(self) -> dict[str, list[Name]]:
        "`Class.name = function` below a class -> its members."
        found = {}
        for node in (n for n in self.tree.body if isinstance(n, ast.Assign)):
            for target in node.targets:
                pairs = zip(target.elts, node.value.elts) if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple) else [(target, node.value)]
                for to, value in pairs:
                    if not (isinstance(to, ast.Attribute) and isinstance(to.value, ast.Name)): continue
                    if member := self.given(to.value.id, to.attr, value, node): found.setdefault(to.value.id, []).append(member)
        return found

    def members(self, node: ast.ClassDef) -> list[Name]:
        "All members in the body of a class."
        found = []
        for n in node.body:
            if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef)): found.append(self.function(n, node.name))
            elif isinstance(n, ast.Assign) and isinstance(n.targets[0], ast.Name) and (m := self.given(node.name, n.targets[0].id, n.value, n)): found.append(m)
        return found

    def class_(self, node: ast.ClassDef, attached: list[Name]) -> Name:
        "A class: how it is made, and its public members."
        members = [*self.members(node), *attached]
        made = next((m for m in members if m.short == "__init__"), None)
        bases = [ast.unparse(b) for b in node.bases]
        record = any(ast.unparse(d).startswith("dataclass") for d in node.decorator_list) or "NamedTuple" in bases
        params = made.params if made else fields(node, self.notes, self.bytes) if record else []
        sign = re.sub(r"^(?:async )?__init__|(?: -> None)$", lambda m: node.name if m[0].startswith("__") else "", made.signature) if made else signature(node.name, params, None) if record else node.name
        public = {}
        for m in members:                                # a setter does not take its property's place
            if (not m.short.startswith("_") or m.short in SPECIAL and m.doc) and m.name not in public: public[m.name] = m
        return Name(node.name, "class", self.module, "class " + sign, ast.get_docstring(node) or (made.doc if made else ""), *self.text(node), params, None, bases, list(public.values()))


def fields(node: ast.ClassDef, notes: dict, lines: list[bytes]) -> list[Param]:
    "The fields of a dataclass or a named tuple."
    hidden = lambda n: n.value is not None and "init=False" in written(n.value).replace(" ", "")
    found = [n for n in node.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name) and not n.target.id.startswith("_") and not hidden(n) and "ClassVar" not in written(n.annotation)]
    empty = {"dict": "{}", "list": "[]", "set": "set()"}
    default = lambda n: re.sub(r"^field\(default(?:_factory)?=(.*?)(?:, \w+=\w+)*\)$", lambda m: empty.get(m[1], m[1]), written(n.value, lines))
    return [Param(n.target.id, written(n.annotation, lines), default(n), notes.get(n.end_lineno, "")) for n in found]


def values(node, module: str, lines: list[str], notes: dict) -> list[Name]:
    "Names that are assigned."
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    flat = [t for target in targets for t in (target.elts if isinstance(target, ast.Tuple) else [target]) if isinstance(t, ast.Name)]
    source = "\n".join(lines[node.lineno - 1:node.end_lineno])
    return [Name(t.id, "value", module, source if len(source) < 700 else source[:640].rsplit("\n", 1)[0] + "\n...", notes.get(node.lineno, ""), source, node.lineno) for t in flat]


def defined(file: File) -> dict[str, Name]:
    "All that a file defines at its top level, by name."
    found, attached = {}, file.attached()
    for node in file.tree.body:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)): found[node.name] = file.function(node)
        elif isinstance(node, ast.ClassDef): found[node.name] = file.class_(node, attached.get(node.name, []))
        elif isinstance(node, (ast.Assign, ast.AnnAssign)): found |= {n.name: n for n in values(node, file.module, file.lines, file.notes)}
    return found


def listed(tree: ast.Module) -> list[str] | None:
    "`__all__`, where it is written out."
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets) and isinstance(node.value, ast.List):
            return [e.value for e in node.value.elts if isinstance(e, ast.Constant)]
    return None


def imported(tree: ast.Module, package: str) -> dict[str, str]:
    "Names that a module has from others of the package: name -> module. The top of the package names them in a table."
    found = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").startswith("workbench"): found |= {a.asname or a.name: node.module for a in node.names}
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) in ("_HOME", "_NAMES", "_WHERE") and isinstance(node.value, ast.Dict):
            found |= {k.value: v.value if "." in v.value else f"{package}.{v.value}" for k, v in zip(node.value.keys, node.value.values) if isinstance(k, ast.Constant) and isinstance(v, ast.Constant)}
    return found


def read(path: Path, root: Path = ROOT) -> Module:
    "One file of the package."
    source = path.read_text("utf-8")
    name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
    file = File(source, name); tree = file.tree
    edit = re.search(r"File to edit: (\S+)\.$", source[:3000], re.M)
    notebook = str((path.parent/edit[1]).resolve().relative_to(root)) if edit else ""
    every, public = defined(file), listed(tree)
    keep = [n for n in every if (n in public if public is not None else not n.startswith("_"))]
    doc = (ast.get_docstring(tree) or "").strip()
    again = {n: m for n, m in imported(tree, name).items() if path.name == "__init__.py" and not n.startswith("_")}
    return Module(name, path, doc.split("\n\n")[0].replace("\n", " "), notebook, {n: every[n] for n in keep}, again)


@lru_cache
def package(root: Path = ROOT) -> dict[str, Module]:
    "Every module with something public in it, by its dotted name."
    files = sorted(p for p in (root/"workbench").rglob("*.py") if p.name not in ("_modidx.py", "__main__.py"))
    found = {m.name: m for m in (read(p, root) for p in files)}
    return {n: m for n, m in found.items() if (m.names or m.again) and not n.startswith("workbench.tutorials")}      # judges: they say what the solutions are


def places(modules: dict[str, Module]) -> dict[str, list[str]]:
    "Public name -> the modules that define it."
    found = {}
    for m in modules.values():
        for n in m.names: found.setdefault(n, []).append(m.name)
    return found
