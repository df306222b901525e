"""Read classes, settings and names from source text, without running it.

`--help` and lists of names must answer at once, and importing torch takes seconds. So this module parses the
source files of tasks, probes and commands with `ast`, and reads what a dataclass says of itself: its fields, their
types, defaults and docstrings.
"""

from __future__ import annotations

import ast
import functools
import importlib.util
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

REQUIRED = object()
"""The default of a setting that must be given."""
SWITCH = ""
"""The `values` of a setting that is on or off."""
PLACEHOLDERS = {"int": "N", "float": "X", "Path": "PATH", "bool": SWITCH}
SPECS = frozenset({"data", "pretrain_data", "encoder", "architecture"})
"""Settings whose text is a spec, KIND[:PATH][?key=value&…]."""


@dataclass(frozen=True)
class Setting:
    """One field of a dataclass, as a command's help shows it."""

    name: str
    values: str
    """Placeholder for its value, such as N or {l1,l2}."""
    default: Any
    help: str
    """Docstring of the field, on one line; that of the base class where the field has none of its own."""
    positional: bool = False
    aliases: tuple[str, ...] = ()
    many: bool = False
    """Takes any number of values."""


@dataclass(frozen=True)
class Declared:
    """A class that was found in a source file."""

    module: Module
    node: ast.ClassDef

    @property
    def about(self) -> str:
        """Its docstring."""
        return ast.get_docstring(self.node) or ""

    def derives_from(self, name: str) -> bool:
        """Whether it has a base class of this name, directly or not."""
        written = {ast.unparse(base).rpartition(".")[2] for base in self.node.bases}
        return name in written or any(base.derives_from(name) for base in self.bases())

    def inner(self, name: str) -> Declared | None:
        """Return the class `name` that is defined inside this one or inherited by it."""
        for node in self.node.body:
            if isinstance(node, ast.ClassDef) and node.name == name:
                return Declared(self.module, node)
        return next((found for base in self.bases() if (found := base.inner(name))), None)

    def bases(self) -> Iterator[Declared]:
        """Yield the base classes whose source can be read."""
        for base in self.node.bases:
            if isinstance(base, ast.Name) and (found := self.module.find(base.id)):
                yield found
            elif isinstance(base, ast.Attribute) and isinstance(base.value, ast.Name):
                outer = self.module.find(base.value.id)
                if outer and (inner := outer.inner(base.attr)):
                    yield inner

    def value(self, name: str, default: Any = None) -> Any:
        """Return the literal that a class attribute is set to; `default` where it is not set."""
        value = _assigned(self.node.body, name)
        return default if value is None else self.module.evaluate(value)

    def settings(self) -> list[Setting]:
        """Return the fields of a dataclass in their order, those of its base classes first."""
        found: dict[str, Setting] = {}
        for base in reversed([*self.bases()]):
            found |= {setting.name: setting for setting in base.settings()}
        for at, node in enumerate(self.node.body):
            if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
                continue
            if "ClassVar" in ast.unparse(node.annotation):
                continue
            nested = self.module.find(node.annotation.id) if isinstance(node.annotation, ast.Name) else None
            if nested is not None:  # a dataclass whose fields are flags of the command itself
                found |= {setting.name: setting for setting in nested.settings()}
                continue
            own = self._setting(node, _text_behind(self.node.body, at))
            inherited = found.get(own.name)
            found[own.name] = own if own.help or inherited is None else replace(own, help=inherited.help)
        return [*found.values()]

    def _setting(self, node: ast.AnnAssign, about: str) -> Setting:
        assert isinstance(node.target, ast.Name)
        default = REQUIRED if node.value is None else self.module.evaluate(node.value)
        plain = Setting(node.target.id, "VALUE", default, about)
        return _typed(plain, node.annotation, self.module)


@dataclass(frozen=True)
class Module:
    """A parsed source file."""

    tree: ast.Module

    @property
    def about(self) -> str:
        """Its docstring."""
        return ast.get_docstring(self.tree) or ""

    def classes(self) -> Iterator[Declared]:
        """Yield the classes at its top level."""
        yield from (Declared(self, node) for node in self.tree.body if isinstance(node, ast.ClassDef))

    def defines(self, function: str) -> bool:
        """Whether it has a function of this name."""
        return any(isinstance(node, ast.FunctionDef) and node.name == function for node in self.tree.body)

    def about_function(self, name: str) -> str:
        """Return the first line of a function's docstring."""
        for node in self.tree.body:
            if isinstance(node, ast.FunctionDef) and node.name == name:
                return (ast.get_docstring(node) or "").split("\n")[0]
        raise LookupError(name)

    def find(self, name: str) -> Declared | None:
        """Return a class that the file defines or imports; None where its source cannot be read."""
        for found in self.classes():
            if found.node.name == name:
                return found
        home = self._imported(name)
        return home[0].find(home[1]) if home else None

    def assigned(self, name: str) -> tuple[Module, ast.expr] | None:
        """Return the expression that a name of the file, or one that it imports, is set to."""
        if (value := _assigned(self.tree.body, name)) is not None:
            return self, value
        home = self._imported(name)
        return home[0].assigned(home[1]) if home else None

    def evaluate(self, node: ast.expr) -> Any:
        """Return the value of a literal, a constant's name, or a call's keywords; else the expression as text."""
        if isinstance(node, ast.Name) and (found := self.assigned(node.id)):
            return found[0].evaluate(found[1])
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and (of := self.find(node.value.id)):
            return {setting.name: setting.default for setting in of.settings()}.get(node.attr, ast.unparse(node))
        if isinstance(node, ast.Dict) and all(node.keys):
            return {self.evaluate(k): self.evaluate(v) for k, v in zip(node.keys, node.values, strict=True) if k}
        if isinstance(node, ast.Tuple | ast.List):
            return tuple(self.evaluate(each) for each in node.elts)
        if isinstance(node, ast.Call):
            keywords = {word.arg: self.evaluate(word.value) for word in node.keywords if word.arg}
            if ast.unparse(node.func).endswith("field"):
                return keywords.get("default")
            return self.evaluate(node.args[0]) if len(node.args) == 1 and not keywords else keywords
        try:
            return ast.literal_eval(node)
        except ValueError:
            return ast.unparse(node)

    @functools.cached_property
    def _imports(self) -> dict[str, tuple[str, str]]:
        """Module of ours, and name there, of each name that the file imports from one; its first import counts."""
        found: dict[str, tuple[str, str]] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level and _file_of(node.module):
                for alias in node.names:
                    found.setdefault(alias.asname or alias.name, (node.module, alias.name))
        return found

    def _imported(self, name: str) -> tuple[Module, str] | None:
        if name not in self._imports:
            return None
        home, there = self._imports[name]
        return read_module(home), there


@functools.cache
def read_file(path: Path) -> Module:
    """Parse a source file.

    Raises:
        OSError: If it cannot be read.
        SyntaxError: If it is not Python.
    """
    return Module(ast.parse(path.read_text(encoding="utf-8-sig"), filename=str(path)))


def read_module(name: str) -> Module:
    """Parse the source of a module, `pretext.training.config`, without importing it."""
    path = _file_of(name)
    if path is None:
        raise ModuleNotFoundError(name)
    return read_file(path)


def read_class(reference: str) -> Declared:
    """Return the class that `module:Class` names."""
    module, _, name = reference.partition(":")
    found = read_module(module).find(name)
    if found is None:
        raise LookupError(reference)
    return found


def modules_in(package: str) -> dict[str, Module]:
    """Return the parsed modules of a package by name, in alphabetical order; its sub-packages are left out."""
    folder = _file_of(package)
    assert folder is not None
    files = sorted(folder.parent.glob("*.py"))
    return {path.stem: read_file(path) for path in files if path.stem != "__init__"}


def _file_of(module: str) -> Path | None:
    """Return the source file of a module of ours; only the top-level package may be imported for it."""
    top, *parts = module.split(".")
    if top not in ("pretext", "downstream", "retrieval", "benchmarks"):
        return None
    spec = importlib.util.find_spec(top)
    assert spec is not None and spec.submodule_search_locations
    path = Path(spec.submodule_search_locations[0], *parts)
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return file if file.is_file() else None


def _assigned(body: list[ast.stmt], name: str) -> ast.expr | None:
    """Return the expression that a statement of `body` sets `name` to."""
    for node in body:
        target: ast.expr | None = None
        if isinstance(node, ast.AnnAssign):
            target = node.target
        elif isinstance(node, ast.Assign):
            target = node.targets[0]
        if isinstance(node, ast.AnnAssign | ast.Assign) and isinstance(target, ast.Name) and target.id == name:
            return node.value
    return None


def _text_behind(body: list[ast.stmt], at: int) -> str:
    """Return the string that follows a statement, on one line: a field's docstring."""
    behind = body[at + 1] if at + 1 < len(body) else None
    if isinstance(behind, ast.Expr) and isinstance(behind.value, ast.Constant) and isinstance(behind.value.value, str):
        return " ".join(behind.value.value.split())
    return ""


def _typed(setting: Setting, annotation: ast.expr, module: Module) -> Setting:
    """Return a setting with what its type says of the values that it takes."""
    if isinstance(annotation, ast.BinOp):  # X | None
        return _typed(setting, annotation.left, module)
    if isinstance(annotation, ast.Name):
        if annotation.id == "str":
            return replace(setting, values="SPEC" if setting.name in SPECS else setting.name.upper())
        if annotation.id in PLACEHOLDERS:
            return replace(setting, values=PLACEHOLDERS[annotation.id])
        found = module.assigned(annotation.id)
        return _typed(setting, found[1], found[0]) if found else setting
    if not isinstance(annotation, ast.Subscript):
        return setting
    kind, inside = ast.unparse(annotation.value).rpartition(".")[2], annotation.slice
    parts = inside.elts if isinstance(inside, ast.Tuple) else [inside]
    if kind == "Literal":
        return replace(setting, values="{" + ",".join(str(module.evaluate(part)) for part in parts) + "}")
    if kind == "Positional":
        return replace(_typed(setting, inside, module), positional=True)
    if kind == "UseAppendAction":  # one value each time the flag is given
        return replace(_typed(setting, inside, module), many=False)
    if kind == "Annotated":
        extra = module.evaluate(parts[1])
        typed = _typed(setting, parts[0], module)
        if isinstance(extra, dict):
            typed = replace(typed, values=extra.get("metavar", typed.values), aliases=extra.get("aliases", ()))
        return typed
    if kind == "tuple":
        each = _typed(setting, parts[0], module).values
        if isinstance(parts[-1], ast.Constant) and parts[-1].value is Ellipsis:
            return replace(setting, values=each, many=True)
        return replace(setting, values=" ".join(_typed(setting, part, module).values for part in parts))
    return setting
