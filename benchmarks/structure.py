"""Measures the structure of a checkout: `python benchmarks/structure.py [FOLDER]`; two checkouts can be compared.

Prints, for each top-level package: modules, lines, the largest module and the longest function; then the enums with
their members, and the lines of the documentation. Reads files as text and runs none of them.
"""

import ast
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LEFT_OUT = {"tests", "benchmarks", "build", "dist"}
ENUMS = {"Enum", "IntEnum", "StrEnum"}


@dataclass(frozen=True)
class Module:
    """One module. `functions` maps a function's name to its length in lines, `enums` an enum's to its members."""

    path: Path
    lines: int
    functions: dict[str, int]
    enums: dict[str, int]


def read_module(path: Path) -> Module:
    text = path.read_text("utf-8")
    functions: dict[str, int] = {}
    enums: dict[str, int] = {}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            functions[node.name] = (node.end_lineno or node.lineno) - node.lineno + 1
        elif isinstance(node, ast.ClassDef) and ENUMS & {ast.unparse(base).split(".")[-1] for base in node.bases}:
            enums[node.name] = sum(isinstance(each, ast.Assign) for each in node.body)
    return Module(path, len(text.splitlines()), functions, enums)


def packages(root: Path) -> Iterator[tuple[str, list[Module]]]:
    """Each top-level package with its modules, by name."""
    for folder in sorted(root.iterdir()):
        if folder.is_dir() and folder.name not in LEFT_OUT and (folder / "__init__.py").exists():
            yield folder.name, [read_module(path) for path in sorted(folder.rglob("*.py"))]


def report(root: Path) -> Iterator[str]:
    yield f"{'package':<16}{'modules':>8}{'lines':>8}  largest module, longest function"
    everything: list[Module] = []
    for name, modules in packages(root):
        everything += modules
        largest = max(modules, key=lambda module: module.lines)
        length, function = max(((n, f) for module in modules for f, n in module.functions.items()), default=(0, "-"))
        shown = f"{largest.path.relative_to(root)} ({largest.lines}), {function} ({length})"
        yield f"{name:<16}{len(modules):>8}{sum(module.lines for module in modules):>8}  {shown}"
    lengths = [length for module in everything for length in module.functions.values()]
    yield f"{len(everything)} modules, {len(lengths)} functions of {sum(lengths) / max(1, len(lengths)):.1f} lines"
    enums = {f"{module.path.relative_to(root)}:{name}": n for module in everything for name, n in module.enums.items()}
    yield f"{len(enums)} enums, {sum(enums.values())} members: " + ", ".join(f"{key} {n}" for key, n in enums.items())
    pages = [path for path in (*root.glob("*.md"), *(root / "docs").rglob("*")) if path.suffix in {".md", ".yaml"}]
    yield f"{sum(len(path.read_text('utf-8').splitlines()) for path in pages)} lines in {len(pages)} pages of docs"


if __name__ == "__main__":
    print("\n".join(report(Path(sys.argv[1] if len(sys.argv) > 1 else "."))))
