"""`concepts/<name>/report.html`: everything that came out for a concept, on one page.

The page holds its pictures in itself, so that it may be sent as one file. A part of which there is
nothing yet is left out. How it looks stands in `report.html.jinja`.
"""

from pathlib import Path

import jinja2
import nbformat
from PIL import Image

from ..common.files import picture_files, read_json, write_whole
from ..common.sheets import data_uri, image_grid, packed
from ..concept.concept import Concept
from ..miniature.scores import score_rows
from ..training.figures import plot_run, sample_sheet, saved_samples
from ..training.records import RunSummary

_WIDEST = 1200  # pixels
_IMAGES = "What the word was learned from."
_GRIDS = {
    "before_and_after": "The initializer, the word, a description; a column has one prompt and one seed.",
    "guidance_by_seeds": "A row for each guidance: how much the prompt counts.",
    "prompt": "One prompt, another seed for each picture.",
    "steps_by_prompts": "A row for each training step that was kept, the last one for the result.",
    "styles": "The word in other styles.",
    "weights": "A column for each weight of the word: how much it counts beside the rest of the prompt.",
}


def write_report(concept: Concept) -> Path:
    """Write `report.html` into the concept's folder and return its path."""
    template = Path(__file__).with_name("report.html.jinja").read_text(encoding="utf-8")
    images = [Image.open(path) for path in picture_files(concept.images_folder)]
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    page = environment.from_string(template).render(
        title=f"{concept.placeholder_token}, on {concept.base_model}",
        findings=_findings(concept),
        images=_figure(image_grid(images, columns=len(images)), _IMAGES) if images else None,
        grids=[
            _figure(Image.open(path), _GRIDS.get(path.stem, path.stem.replace("_", " ")))
            for path in picture_files(concept.grids_folder)
        ],
        scores=_scores(concept),
        training=_training(concept),
        settings=_shown(concept.model_dump(exclude={"training"})),
        hyperparameters=_shown(concept.training.model_dump()),
        exports=_exports(concept),
        times=_times(concept),
    )
    return write_whole(concept.report_path, page)


def _findings(concept: Concept) -> list[tuple[str, str]]:
    """What was learned, from what, and how well: in sentences, each with its title."""
    pictures = len(picture_files(concept.images_folder))
    vectors = "1 vector" if concept.vectors == 1 else f"{concept.vectors} vectors"
    found = [
        ("Learned", f"{concept.placeholder_token}, {vectors} on {concept.base_model}"),
        ("From", f"{pictures} pictures, beginning with the word “{concept.initializer_token}”"),
    ]
    if scores := _read_scores(concept):
        word, before = scores["word"], scores["initializer"]
        found.append(
            ("Likeness", f"{word['identity']:.0%} of the traits are right, {before['identity']:.0%} before")
        )
        found.append(
            ("Obedience", f"{word['prompt']:.0%} of the places and styles that were asked for came out")
        )
    if concept.embeds_path.is_file():
        found.append(("Training", str(RunSummary.load(concept)).partition(": ")[2]))
    return found


def _read_scores(concept: Concept) -> dict | None:
    path = concept.folder / "scores.json"
    return read_json(path)


def _scores(concept: Concept) -> dict | None:
    """The table's rows, the first with what was said; a column for each that was said."""
    scores = _read_scores(concept)
    if scores is None:
        return None
    return {
        "pictures": scores.get("pictures", "some"),
        "rows": score_rows(scores, concept.placeholder_token),
    }


def _training(concept: Concept) -> list[dict[str, str]]:
    if not concept.embeds_path.is_file():
        return []
    curves = "The fixed loss is on the same pictures, noise and timesteps each time."
    figures = [_figure(plot_run(concept), curves)]
    if saved_samples(concept):
        samples = (
            "Drawn on the way, always with the same prompts and noise. The step that was kept has a frame."
        )
        figures.append(_figure(sample_sheet(concept), samples))
    return figures


def _exports(concept: Concept) -> list[tuple[str, str]]:
    files = sorted(path for path in concept.export_folder.rglob("*") if path.is_file())
    return [(path.relative_to(concept.folder).as_posix(), f"{path.stat().st_size:,} bytes") for path in files]


def _times(concept: Concept) -> list[tuple[str, str]]:
    ran = sorted((concept.folder / "notebooks").glob("*.ipynb"))
    notebooks = {path.stem: nbformat.read(path, as_version=4) for path in ran}
    return [(name, f"{one.metadata.papermill.duration:.1f} s") for name, one in notebooks.items()]


def _figure(image: Image.Image, caption: str) -> dict[str, str]:
    image = image.copy()
    image.thumbnail((_WIDEST, 4 * _WIDEST), Image.Resampling.LANCZOS)
    return {"caption": caption, "uri": data_uri(packed(image, "WEBP", quality=85), "image/webp")}


def _shown(settings: dict) -> list[tuple[str, str]]:
    return [(name, "–" if value in (None, [], "") else str(value)) for name, value in settings.items()]
