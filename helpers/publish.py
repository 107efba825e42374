"""`make outputs`: what `make run` made goes into the notebooks, so that a reader on the web sees it.

Only what a page can show is kept, and nothing that names this machine: small pictures, text and
tables, cells counted from 1. A hash of the code stands beside the outputs: a test sees by it
whether both are still in step.
"""

import base64
import hashlib
import io
import os
import platform
import re
import sys
import tempfile
from pathlib import Path
from unittest import mock

import nbformat
from PIL import Image

from . import places
from .concept import Concept
from .errors import UserError
from .grid import image_grid
from .images import FIRST_CONCEPT, load_images
from .run import notebooks, run_notebook, start_here

CODE_HASH = "outputs_are_of_code"
_LONGEST_SIDE = 1000  # pixels
_LIVE = "application/vnd.jupyter.widget-view+json"
_PICTURES = ("image/png", "image/jpeg")
_SHOWN = ("text/html", "text/markdown", "text/latex", "image/svg+xml", "text/plain")


def publish(concept: Concept) -> list[Path]:
    """Put the outputs of the concept's last `make run` into `notebooks/`, and run notebook 0 on it.

    Raises:
        UserError: a notebook did not run, stopped with an error, or was changed since. Nothing is written.
    """
    ran = {path: concept.folder / "notebooks" / path.name for path in notebooks()}
    ready = {path: with_outputs(path, output) for path, output in ran.items()}
    ready[start_here()] = with_outputs(start_here(), _run_start_here(concept))
    for path, notebook in ready.items():
        nbformat.write(notebook, path)
    return list(ready)


def _run_start_here(concept: Concept) -> Path:
    """Run notebook 0 where this concept is the only one, as in a clone that has seen nothing else."""
    output = concept.folder / "notebooks"
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "concepts"
        root.mkdir()
        (root / concept.name).symlink_to(concept.folder, target_is_directory=True)
        with mock.patch.dict(os.environ, {places.ROOT_VARIABLE: str(root)}):
            run_notebook(start_here(), output, {"CONCEPT": concept.name})
    return output / start_here().name


def readme_picture(concept: Concept) -> Image.Image:
    """What the word was learned from, above what is drawn for the initializer and for the word.

    Raises:
        UserError: notebook 5 did not run.
    """
    sheet = concept.grids_folder / "before_and_after.png"
    if not sheet.is_file():
        raise UserError(f"{sheet} is not there: `make run` first.")
    below = Image.open(sheet)
    images = load_images(concept)
    above = image_grid(images, columns=len(images), cell=below.width // len(images) - 4)
    picture = Image.new("RGB", (below.width, above.height + below.height + 16), "white")
    picture.paste(above, (0, 0))
    picture.paste(below, (0, above.height + 16))
    return picture


def with_outputs(notebook: Path, ran: Path) -> nbformat.NotebookNode:
    """The notebook as it is in the repository, with the cleaned outputs of its run."""
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
    """SHA-256 of all code cells, in hexadecimal: the same as long as no line of code changes."""
    code = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return hashlib.sha256("\0".join(code).encode()).hexdigest()


def _clean(output: nbformat.NotebookNode, count: int, notebook: Path) -> nbformat.NotebookNode | None:
    if output.output_type == "error":
        raise UserError(
            f"{notebook.name} stopped with {output.ename} in its last run: mend it, then `make run`."
        )
    if output.output_type == "stream":
        return _clean_stream(output)
    alt = _alt(output)
    data = _clean_data(output.data, alt)
    if not data:
        return None
    metadata = {mime: {"alt": alt} for mime in data if alt and mime in _PICTURES}
    counted = {"execution_count": count} if output.output_type == "execute_result" else {}
    return nbformat.v4.new_output(output.output_type, data=data, metadata=metadata, **counted)


def _alt(output: nbformat.NotebookNode) -> str:
    """The text of a picture, or of the still picture that stands for a widget; empty where it has none."""
    given = [output.metadata.get(mime, {}).get("alt") for mime in _PICTURES]
    if _LIVE in output.data:
        said = output.data.get("text/plain", "")
        given.append("What the form shows, as a still picture." if "children=(" in said else said)
    return next(filter(None, given), "")


def _clean_stream(output: nbformat.NotebookNode) -> nbformat.NotebookNode | None:
    """Standard output as a terminal would leave it; warnings and progress bars go."""
    if output.name != "stdout":
        return None
    text = re.sub(r"[^\n]*\r(?!\n)", "", output.text)
    return nbformat.v4.new_output("stream", name="stdout", text=without_machine(text))


def _clean_data(data: dict, alt: str = "") -> dict:
    """What a page shows of a display: pictures made small, text without paths, no widgets, no old bars."""
    pictures = [small_picture(base64.b64decode(data[mime])) for mime in _PICTURES if mime in data]
    if pictures:
        mime, content = min(pictures, key=lambda picture: len(picture[1]))
        return {mime: base64.b64encode(content).decode(), "text/plain": alt or "<a picture>"}
    shown = [mime for mime in _SHOWN if data.get(mime) and not (_LIVE in data and mime == "text/plain")]
    return {mime: without_machine(data[mime]) for mime in shown}


def small_picture(content: bytes) -> tuple[str, bytes]:
    """A picture of at most 1000 px a side, as PNG or JPEG, whichever is smaller: (mime type, bytes)."""
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    picture.thumbnail((_LONGEST_SIDE, _LONGEST_SIDE), Image.Resampling.LANCZOS)
    png, jpeg = io.BytesIO(), io.BytesIO()
    picture.save(png, "PNG", optimize=True)
    picture.save(jpeg, "JPEG", quality=85, optimize=True)
    if png.tell() < jpeg.tell():
        return "image/png", png.getvalue()
    return "image/jpeg", jpeg.getvalue()


def without_machine(text: str) -> str:
    """Paths relative to the repository, `~` for the home folder, and no host name."""
    text = text.replace(f"{places.repository_folder()}/", "").replace(str(places.repository_folder()), ".")
    text = text.replace(f"{Path.home()}/", "~/")
    return re.sub(rf"\b{re.escape(platform.node())}\b", "this-machine", text) if platform.node() else text


def main() -> int:
    """Publish the run of the first concept, the one that the notebooks' own parameters name."""
    concept = Concept.make(FIRST_CONCEPT)
    try:
        picture = readme_picture(concept)
        for path in publish(concept):
            print(f"{path.name}: {path.stat().st_size / 1024:.0f} KiB")
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    picture.save(places.data_folder() / "readme.jpg", quality=85)
    return 0


if __name__ == "__main__":
    sys.exit(main())
