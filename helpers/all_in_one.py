"""`make all-in-one`: one notebook out of the six, for a cloud where each would open on a machine of its own.

The six are joined as they are, without outputs. What each of them repeats is there once: the cells
that find `helpers` and the folder of concepts. All parameters stand in the first one's cell, since
papermill puts its values after that cell and no other.
`notebooks/all_in_one.ipynb` is never edited by hand: a test holds it in step with the six.
"""

import ast
from pathlib import Path

import nbformat

from . import places
from .run import notebooks

_INTRODUCTION = """\
# All in one

This notebook is the six notebooks of the series, one after the other. Use it on a cloud where every notebook
opens on a machine of its own. All values that you can change stand in one cell near the top; the chapters say
what they mean. It is generated: change the six, then `make all-in-one`."""

_BEFORE_THE_CLONE = """\
This brings the code here and installs what it needs. Then restart the kernel and run this cell again. Until
then, a library that was loaded before the install stays the old one. On Kaggle, first switch Internet on,
under Session options."""


def all_in_one_path() -> Path:
    return places.repository_folder() / "notebooks" / "all_in_one.ipynb"


def joined() -> nbformat.NotebookNode:
    """The six notebooks as one, without outputs."""
    parts = [nbformat.read(path, as_version=4) for path in notebooks()]
    common = set.intersection(*map(_code, parts))
    cells = [
        nbformat.v4.new_markdown_cell(_INTRODUCTION, id="introduction"),
        *_clone_cells(places.REPOSITORY_ADDRESS),
    ]
    parameters = _parameters(parts)
    seen = set()
    for number, part in enumerate(parts, start=1):
        for cell in part.cells:
            is_new = _is_new(cell, common, seen)
            source = cell.source
            if is_parameters(cell):
                source, parameters = "\n".join(parameters.values()), {}
            if is_new and source:
                cells.append(_plain(cell, source, f"{number}-{cell.id}"))
            elif not is_new and cells[-1].cell_type == "markdown" and not cells[-1].source.startswith("# "):
                cells.pop()  # the prose that led to what is not repeated
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": parts[0].metadata.kernelspec})


def is_parameters(cell: nbformat.NotebookNode) -> bool:
    """Whether papermill puts its values after this cell."""
    return "parameters" in cell.metadata.get("tags", [])


def write_all_in_one() -> Path:
    """Write `notebooks/all_in_one.ipynb` and return its path."""
    nbformat.write(joined(), all_in_one_path())
    return all_in_one_path()


def _clone_cells(address: str | None) -> list[nbformat.NotebookNode]:
    """What brings `helpers` to a cloud, once the repository has a public address; it may run again."""
    if address is None:
        return []
    folder = address.rstrip("/").rsplit("/", 1)[-1].removesuffix(".git")
    lines = [
        "import os",
        "",
        'if not (os.path.isdir("helpers") or os.path.isdir("../helpers")):',
        f'    if not os.path.isdir("{folder}"):',
        f"        !git clone --depth 1 {address}",
        f"        %pip install -q -r {folder}/requirements.txt",
        '        print("Now restart the kernel, then run this cell again.")',
        f"    %cd {folder}",
    ]
    return [
        nbformat.v4.new_markdown_cell(_BEFORE_THE_CLONE, id="before-the-clone"),
        nbformat.v4.new_code_cell("\n".join(lines), id="clone"),
    ]


def _code(notebook: nbformat.NotebookNode) -> set[str]:
    return {cell.source for cell in notebook.cells if cell.cell_type == "code"}


def _parameters(parts: list[nbformat.NotebookNode]) -> dict[str, str]:
    """The lines of every parameter, by its name, as the first notebook that has it gives them."""
    cells = [cell for part in parts for cell in part.cells if is_parameters(cell)]
    found = {}
    for name, lines in (pair for cell in cells for pair in _assignments(cell.source)):
        found.setdefault(name, lines)
    return found


def _is_new(cell: nbformat.NotebookNode, common: set[str], seen: set[str]) -> bool:
    """Whether the cell says what no cell before it did; adds to `seen` what it says."""
    if not is_parameters(cell) and cell.source not in common:
        return True
    says = {name for name, _ in _assignments(cell.source)} if is_parameters(cell) else {cell.source}
    is_new = not says <= seen
    seen |= says
    return is_new


def _assignments(source: str) -> list[tuple[str, str]]:
    """Each assignment as (name, its lines, with the comment at their end)."""
    lines = source.splitlines()
    return [
        (ast.unparse(node.targets[0]), "\n".join(lines[node.lineno - 1 : node.end_lineno]))
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign)
    ]


def _plain(cell: nbformat.NotebookNode, source: str, cell_id: str) -> nbformat.NotebookNode:
    make = nbformat.v4.new_code_cell if cell.cell_type == "code" else nbformat.v4.new_markdown_cell
    return make(source, id=cell_id, metadata=cell.metadata)


if __name__ == "__main__":
    print(write_all_in_one())
