"""`make run`: notebooks 1 to 6 on one concept, in order, each in a fresh kernel; then the report.

    python -m helpers.series.run --concept grooty --base-model miniature

The notebooks with their outputs are in `concepts/<name>/notebooks/`, the results on one page,
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


def other_notebooks() -> list[Path]:
    """Those that `make run` leaves out: 0, about all concepts, and 7, which trains a model for minutes."""
    return sorted((places.repository_folder() / "notebooks").glob("[07]_*.ipynb"))


def run_notebook(notebook: Path, output_folder: Path, parameters: dict) -> float:
    """Run one notebook in a fresh kernel, with papermill; returns how long it took, in seconds.

    Args:
        output_folder: gets the notebook with its outputs, saved after each cell.
        parameters: those that the notebook does not have are ignored.

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
    """Unix sockets where the system has them: over TCP, a kernel warns that others may listen.

    Only critical errors are logged: a kernel that is shut down is interrupted first, and logs that.
    """
    from traitlets.config import Config

    config = Config(NotebookClient={"extra_arguments": ["--log-level=CRITICAL"]})
    return config if os.name == "nt" else Config(config, KernelManager={"transport": "ipc"})


def run_series(name: str, **parameters) -> Path:
    """Run notebooks 1 to 6 on the concept `name`, and write the report.

    Args:
        parameters: of the notebooks, for example `BASE_MODEL`; one that is None keeps its default.
    """
    from .report import write_report

    folder = Concept.make(name).folder
    given = {"CONCEPT": name} | {key: value for key, value in parameters.items() if value is not None}
    (folder / "scores.json").unlink(
        missing_ok=True
    )  # notebook 5 writes it; an old one would pass for this run's
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


def _notebook_parameters(given: argparse.Namespace) -> dict:
    """Check what was given, before anything runs; returns the notebooks' parameters.

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
        "BASE_MODEL": _absolute(base_model) if base_model else None,
        "ADDRESSES": [_absolute(given.images)] if given.images else None,
        "INITIALIZER_TOKEN": given.initializer or None,
        "VECTORS": given.vectors,
    }


def _check_pictures(given: argparse.Namespace) -> None:
    """Check that there are pictures; draw a toy given in words. An address is fetched later."""
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


def _absolute(source: str) -> str:
    """An absolute path, since the notebooks run in another folder; other sources as they are."""
    path = None if source == MINIATURE else find_path(source)
    return str(path.resolve()) if path else source


def main(arguments: list[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    try:
        print(f"The report: {run_series(given.concept, **_notebook_parameters(given))}")
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Stopped. The same command carries on from what is saved.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
