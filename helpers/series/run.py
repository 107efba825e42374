"""`make run`: notebooks 1 to 6 in order, each in a fresh kernel, on one concept; then the report.

    python -m helpers.series.run --concept grooty --base-model miniature

The notebooks with their outputs lie in `concepts/<name>/notebooks/`, what came out on the one page
`concepts/<name>/report.html`.
"""

import argparse
import os
import sys
from pathlib import Path

from ..common import places
from ..common.errors import UserError
from ..common.places import find_path
from ..concept.concept import FIRST_CONCEPT, Concept
from ..dataset.fetch import DATASET, fetch_all
from ..dataset.images import default_sources, keep_drawn
from ..model.base_model import MINIATURE, check_base_model, default_base_model


def notebooks() -> list[Path]:
    """Notebooks 1 to 6 of the series, in order."""
    return sorted((places.repository_folder() / "notebooks").glob("[1-6]_*.ipynb"))


def beside() -> list[Path]:
    """What `make run` leaves out: 0, which is on all concepts, and 7, which trains a model for minutes."""
    return sorted((places.repository_folder() / "notebooks").glob("[07]_*.ipynb"))


def run_notebook(notebook: Path, output_folder: Path, parameters: dict) -> float:
    """Run one notebook in a fresh kernel, with papermill, and keep what came out.

    Args:
        output_folder: gets the notebook with its outputs, under the same name, cell by cell.
        parameters: those that the notebook does not have are left out.

    Returns:
        How long it took, in seconds.

    Raises:
        UserError: a cell failed; the sentence names the notebook, the cell and the reason.
    """
    import papermill
    from nbclient.exceptions import DeadKernelError

    output = output_folder / notebook.name
    output_folder.mkdir(parents=True, exist_ok=True)
    known = papermill.inspect_notebook(str(notebook))
    try:
        ran = papermill.execute_notebook(
            notebook,
            output,
            {name: value for name, value in parameters.items() if name in known},
            kernel_name="python3",
            cwd=notebook.parent,
            progress_bar={"desc": notebook.stem},
            config=_kernel_settings(),
            stderr_file=sys.stderr,  # the training's own progress bar comes this way
        )
    except papermill.PapermillExecutionError as error:
        what = error.evalue if error.ename == UserError.__name__ else f"{error.ename}: {error.evalue}"
        cell = f"{notebook.name} stopped in cell [{error.exec_count}]"
        raise UserError(f"{cell}. {what.rstrip('.')}. Open {output} to see where.") from None
    except DeadKernelError:
        advice = "most often because memory ran out. Close other programs, or choose a smaller model."
        raise UserError(f"{notebook.name}: its kernel died, {advice}") from None
    return ran.metadata.papermill.duration


def _kernel_settings():
    """Sockets in a folder of one's own where the system has them: over TCP a kernel warns of listeners.

    A kernel that is shut down gets an interrupt first, and would log it as an error.
    """
    from traitlets.config import Config

    config = Config(NotebookClient={"extra_arguments": ["--log-level=CRITICAL"]})
    return config if os.name == "nt" else Config(config, KernelManager={"transport": "ipc"})


def run_series(name: str, **parameters) -> Path:
    """Run notebooks 1 to 6 on the concept `name`, of which the fifth scores its word; write the report.

    Args:
        parameters: of the notebooks, for example `BASE_MODEL`; one that is None keeps its default.
    """
    from .report import write_report

    folder = Concept.make(name).folder
    given = {"CONCEPT": name} | {key: value for key, value in parameters.items() if value is not None}
    (folder / "scores.json").unlink(missing_ok=True)  # an old one must not stand for this run
    seconds = {path.stem: run_notebook(path, folder / "notebooks", given) for path in notebooks()}
    report = write_report(Concept.load(name))
    for stem, duration in seconds.items():
        print(f"{stem:<24}{duration:7.1f} s")
    return report


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m helpers.series.run", description="Run notebooks 1 to 6.")
    parser.add_argument("--concept", default=FIRST_CONCEPT, help="its name; its folder under concepts/")
    parser.add_argument("--base-model", help="miniature, a hub id, a folder or a file; found by looking")
    parser.add_argument("--images", help="pictures to learn from: a folder, a file or an address")
    parser.add_argument("--toy", help="a toy to draw and learn: “teal star toy, bunny ears, one eye, wheels”")
    parser.add_argument("--initializer", help="the word to start from, for example cat")
    parser.add_argument("--vectors", type=int, help="how many rows of numbers the word gets")
    return parser


def _checked(given: argparse.Namespace) -> dict:
    """The notebooks' parameters; what can't work is refused before anything runs.

    Raises:
        UserError: there is no such base model, no word to start from, or there are no pictures.
    """
    if given.base_model:
        check_base_model(given.base_model)
    typed = {"base_model": given.base_model or None, "vectors": given.vectors}
    if given.initializer and given.initializer.strip():
        typed["initializer_token"] = given.initializer
    concept = Concept.open(given.concept, default_base_model(), **typed)
    if not (given.toy or concept.initializer_token):
        raise UserError(
            f"Which word should “{given.concept}” start from? Name the kind of thing that you teach, "
            "as INITIALIZER=cat."
        )
    _check_pictures(given)
    base_model = MINIATURE if given.toy else given.base_model
    return {
        "BASE_MODEL": _from_anywhere(base_model) if base_model else None,
        "ADDRESSES": [_from_anywhere(given.images)] if given.images else None,
        "INITIALIZER_TOKEN": given.initializer or None,
        "VECTORS": given.vectors,
    }


def _check_pictures(given: argparse.Namespace) -> None:
    """See that there are pictures; a toy in words is drawn. What lies on the web is fetched later."""
    from ..miniature.drawing import draw_words

    if given.toy:
        if given.images or given.base_model not in (None, "", MINIATURE):
            raise UserError("A toy is drawn for the miniature: leave out IMAGES and BASE_MODEL, or TOY.")
        print(keep_drawn(given.concept, draw_words(given.toy)))
    elif given.images:
        if "://" in given.images or given.images.startswith(DATASET):
            return
        fetched = fetch_all(given.images)
        if not any(one.data for one in fetched):
            raise UserError(f"“{given.images}” can't be learned from. {fetched[0].problem}")
    elif not default_sources(given.base_model or MINIATURE, given.concept):
        raise UserError(f"“{given.concept}” has no pictures yet: say where they are, as IMAGES=my_photos.")


def _from_anywhere(source: str) -> str:
    """A path as seen from the folder that the notebooks run in."""
    path = None if source == MINIATURE else find_path(source)
    return str(path.resolve()) if path else source


def main(arguments: list[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    try:
        print(f"The report: {run_series(given.concept, **_checked(given))}")
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped. The same command carries on from what is saved.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
