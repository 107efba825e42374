"""What is generated from the notebooks: their outputs, the README's pictures, one joined notebook for clouds.

`make outputs` puts the outputs of `make run` into the notebooks, for readers on the web. Only what a page can
show is kept, and nothing that identifies this machine. The notebook's metadata has a hash of its code, by
which a test checks that the outputs are up to date.
"""

import argparse
import ast
import hashlib
import os
import platform
import re
import sys
import tempfile
from pathlib import Path
from unittest import mock

import nbformat
from PIL import Image

from ..common import places
from ..common.errors import UserError
from ..common.sheets import image_grid
from ..concept.concept import FIRST_CONCEPT, Concept
from ..dataset.images import load_images
from ..inference.grid import reopen, with_labels
from ..inference.png import read_settings
from ..training.figures import sample_animation
from .run import notebooks, other_notebooks, run_notebook

CODE_HASH = "outputs_are_of_code"
_README_SIDE = 256  # pixels of a picture
_README_POINTS = 15  # a page shows the picture at two thirds of its size
_LIVE = "application/vnd.jupyter.widget-view+json"
_SHOWN = ("text/html", "text/markdown", "text/latex", "image/svg+xml", "text/plain")


def publish(concept: Concept) -> list[Path]:
    """Put the outputs of the concept's last `make run` into `notebooks/`, and run notebooks 0 and 7 on it.

    Raises:
        UserError: a notebook did not run, stopped with an error, or was changed since. Nothing is written.
    """
    ran = concept.folder / "notebooks"
    ready = {path: with_outputs(path, ran / path.name) for path in notebooks()}
    for path in other_notebooks():
        _run_alone(path, concept)
        ready[path] = with_outputs(path, ran / path.name)
    for path, notebook in ready.items():
        nbformat.write(notebook, path)
    return list(ready)


def _run_alone(notebook: Path, concept: Concept) -> None:
    """Run a notebook where this concept is the only one, as in a fresh clone."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "concepts"
        root.mkdir()
        (root / concept.name).symlink_to(concept.folder, target_is_directory=True)
        with mock.patch.dict(os.environ, {places.ROOT_VARIABLE: str(root)}):
            run_notebook(notebook, concept.folder / "notebooks", {"CONCEPT": concept.name})


def readme_picture(concept: Concept) -> Image.Image:
    """The training pictures above those drawn for the initializer, the word and a description.

    Raises:
        UserError: notebook 5 did not run.
    """
    sheet = concept.grids_folder / "before_and_after.png"
    if not sheet.is_file():
        raise UserError(f"{sheet} is not there: `make run` first.")
    plan, drawn = reopen(sheet), {}
    for path in sorted(sheet.with_suffix("").glob("*.png"), key=lambda path: path.stat().st_mtime_ns):
        own = read_settings(path)
        drawn[own.prompt, own.seed] = Image.open(path)  # the newest where there are several
    pictures = [drawn[cell.prompt, cell.seed] for cell in plan.cells()]
    columns = len(plan.x.values)
    body = image_grid(pictures, columns, cell=_README_SIDE)
    below = with_labels(body, plan.y.labels, plan.x.labels, _README_POINTS)
    learned_from = image_grid(load_images(concept), columns, cell=_README_SIDE)
    above = with_labels(learned_from, ["learned from"], [""] * columns, _README_POINTS)
    picture = Image.new("RGBA", (below.width, above.height + below.height + 16))
    picture.paste(above, (below.width - above.width, 0))
    picture.paste(below, (0, above.height + 16))
    return picture


def with_outputs(notebook: Path, ran: Path) -> nbformat.NotebookNode:
    """The notebook of the repository with the cleaned outputs of its run."""
    if not ran.is_file():
        raise UserError(f"{notebook.name} did not run yet: `make run` first.")
    source, executed = nbformat.read(notebook, as_version=4), nbformat.read(ran, as_version=4)
    cells = [cell for cell in executed.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    if [cell.source for cell in cells] != [cell.source for cell in source.cells]:
        raise UserError(f"{notebook.name} was changed since it ran: `make run` again.")
    code = [pair for pair in zip(source.cells, cells, strict=True) if pair[0].cell_type == "code"]
    for count, (cell, ran_cell) in enumerate(code, start=1):
        cell.execution_count = count
        cell.outputs = [clean for output in ran_cell.outputs if (clean := _clean(output, count, notebook))]
    source.metadata = {"kernelspec": source.metadata.kernelspec, CODE_HASH: code_hash(source)}
    return source


def code_hash(notebook: nbformat.NotebookNode) -> str:
    """SHA-256 of all code cells, in hexadecimal."""
    code = [cell.source for cell in _code_cells(notebook)]
    return hashlib.sha256("\0".join(code).encode()).hexdigest()


def _code_cells(notebook: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _clean(output: nbformat.NotebookNode, count: int, notebook: Path) -> nbformat.NotebookNode | None:
    """An output as a page can show it: HTML and text without paths; None for widgets, bars and warnings."""
    if output.output_type == "error":
        name, error = notebook.name, output.ename
        raise UserError(f"{name} stopped with {error} in its last run: fix it, then `make run`.")
    if output.output_type == "stream" and output.name != "stdout":
        return None  # warnings and progress bars
    if output.output_type == "stream":
        text = re.sub(r"[^\n]*\r(?!\n)", "", output.text)  # as a terminal would show it
        return nbformat.v4.new_output("stream", name="stdout", text=without_machine(text))
    given = output.data
    shown = [mime for mime in _SHOWN if given.get(mime) and not (_LIVE in given and mime == "text/plain")]
    if not shown:
        return None
    data = {mime: without_machine(given[mime]) for mime in shown}
    counted = {"execution_count": count} if output.output_type == "execute_result" else {}
    return nbformat.v4.new_output(output.output_type, data=data, **counted)


def without_machine(text: str) -> str:
    """Text with paths relative to the repository or `~`, without the host name; pictures stay unchanged."""
    repository = str(places.repository_folder())
    names = {f"{repository}/": "", repository: ".", f"{Path.home()}/": "~/"}
    parts = re.split(r'(src="data:[^"]*")', text)
    for number in range(0, len(parts), 2):
        for name, instead in names.items():
            parts[number] = parts[number].replace(name, instead)
        if platform.node():
            parts[number] = re.sub(rf"\b{re.escape(platform.node())}\b", "this-machine", parts[number])
    return "".join(parts)


# `make all-in-one`: notebooks 1 to 6 as one, for clouds where each notebook gets its own machine.
_TITLE = "# @title What you can change"  # Colab shows the lines below it, with their `@param`, as a form


def joined() -> nbformat.NotebookNode:
    """Notebooks 1 to 6 as one, without outputs."""
    parts = [nbformat.read(path, as_version=4) for path in notebooks()]
    common = set.intersection(*({cell.source for cell in _code_cells(part)} for part in parts))
    # The head installs `helpers` on a cloud: from a zip, a Kaggle data set or the repository's address.
    cells = nbformat.read(Path(__file__).with_name("all_in_one_head.ipynb"), as_version=4).cells
    address = f"address = {places.REPOSITORY_ADDRESS!r}"
    cells[-1].source = cells[-1].source.replace("address = None", address)
    parameters = _parameters(parts)
    seen = set()
    for number, part in enumerate(parts, start=1):
        for cell in part.cells:
            is_new = _is_new(cell, common, seen)
            source = cell.source
            if is_parameters(cell):
                source, parameters = "\n".join([_TITLE, *parameters.values()] if parameters else []), {}
            if is_new and source:
                cells.append(_copy(cell, source, f"{number}-{cell.id}"))
            elif not is_new and cells[-1].cell_type == "markdown" and not cells[-1].source.startswith("# "):
                cells.pop()  # the text that introduced a cell that is not repeated
    return nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": parts[0].metadata.kernelspec})


def is_parameters(cell: nbformat.NotebookNode) -> bool:
    """Whether papermill puts its values after this cell."""
    return "parameters" in cell.metadata.get("tags", [])


def _parameters(parts: list[nbformat.NotebookNode]) -> dict[str, str]:
    """The source of every parameter, by its name, from the first notebook that has it."""
    cells = [cell for part in parts for cell in part.cells if is_parameters(cell)]
    found = {}
    for name, lines in (pair for cell in cells for pair in _assignments(cell.source)):
        found.setdefault(name, lines)
    return found


def _is_new(cell: nbformat.NotebookNode, common: set[str], seen: set[str]) -> bool:
    """Whether the cell is no repetition of earlier ones; adds its contents to `seen`."""
    if not is_parameters(cell) and cell.source not in common:
        return True
    says = {name for name, _ in _assignments(cell.source)} if is_parameters(cell) else {cell.source}
    is_new = not says <= seen
    seen |= says
    return is_new


def _assignments(source: str) -> list[tuple[str, str]]:
    """Each assignment as (name, its lines with trailing comments)."""
    lines = source.splitlines()
    return [
        (ast.unparse(node.targets[0]), "\n".join(lines[node.lineno - 1 : node.end_lineno]))
        for node in ast.parse(source).body
        if isinstance(node, ast.Assign)
    ]


def _copy(cell: nbformat.NotebookNode, source: str, cell_id: str) -> nbformat.NotebookNode:
    make = nbformat.v4.new_code_cell if cell.cell_type == "code" else nbformat.v4.new_markdown_cell
    form = {"cellView": "form"} if is_parameters(cell) else {}
    return make(source, id=cell_id, metadata=cell.metadata | form)


def _write_outputs() -> None:
    """Publish the run of the first concept, which the notebooks use by default."""
    concept = Concept.make(FIRST_CONCEPT)
    picture, animation = readme_picture(concept), sample_animation(concept)
    for path in publish(concept):
        print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB")
    picture.save(places.data_folder() / "readme.webp", quality=80)
    (places.data_folder() / "the_word_comes.webp").write_bytes(animation.content)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m helpers.series.publish", description=__doc__)
    parser.add_argument("what", choices=["outputs", "all-in-one"])
    try:
        if parser.parse_args(arguments).what == "outputs":
            _write_outputs()
        else:
            nbformat.write(joined(), places.repository_folder() / "notebooks" / "all_in_one.ipynb")
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
