"""`concepts/<name>/report.html`: all results of a concept on one page.

The page embeds its pictures, so that it can be sent as one file. Parts without results are left out. Its
layout is in `report.html.jinja`.
"""

from pathlib import Path

import jinja2
import nbformat
from PIL import Image

from ..common.files import picture_files, read_json, write_whole
from ..common.sheets import counted, data_uri, image_grid, packed
from ..concept.concept import Concept
from ..miniature.judge import score_rows
from ..training.figures import plot_run, sample_sheet, saved_samples
from ..training.records import RunSummary

_WIDEST = 1200  # pixels
_IMAGES = "What the word was learned from."
_CURVES = "The fixed loss is on the same pictures, noise and timesteps each time."
_SAMPLES = "Drawn on the way, always with the same prompts and noise. The step that was kept has a frame."
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
        settings=_as_rows(concept.model_dump(exclude={"training"})),
        hyperparameters=_as_rows(concept.training.model_dump()),
        exports=_exports(concept),
        times=_times(concept),
    )
    return write_whole(concept.report_path, page)


def _findings(concept: Concept) -> list[tuple[str, str]]:
    """What was learned, from what, and how well: titles and sentences."""
    vectors = counted(concept.vectors, "vector")
    pictures = counted(len(picture_files(concept.images_folder)), "picture")
    found = [
        ("Learned", f"{concept.placeholder_token}, {vectors} on {concept.base_model}"),
        ("From", f"{pictures}, beginning with the word “{concept.initializer_token}”"),
    ]
    if scores := read_json(concept.folder / "scores.json"):
        word, before = scores["word"], scores["initializer"]
        found += [
            ("Likeness", f"{word['identity']:.0%} of the traits are right, {before['identity']:.0%} before"),
            ("Obedience", f"{word['prompt']:.0%} of the places and styles that were asked for came out"),
        ]
    if concept.embeds_path.is_file():
        found.append(("Training", str(RunSummary.load(concept)).partition(": ")[2]))
    return found


def _scores(concept: Concept) -> dict | None:
    """The number of pictures, and the table's rows; the first names the subjects."""
    scores = read_json(concept.folder / "scores.json")
    rows = scores and score_rows(scores, concept.placeholder_token)
    return scores and {"pictures": scores.get("pictures", "some"), "rows": rows}


def _training(concept: Concept) -> list[dict[str, str]]:
    if not concept.embeds_path.is_file():
        return []
    samples = [_figure(sample_sheet(concept), _SAMPLES)] if saved_samples(concept) else []
    return [_figure(plot_run(concept), _CURVES), *samples]


def _exports(concept: Concept) -> list[tuple[str, str]]:
    there = sorted(path for path in concept.export_folder.rglob("*") if path.is_file())
    files = [path for path in there if path.suffix != ".partial"]  # which a killed export left
    return [(path.relative_to(concept.folder).as_posix(), f"{path.stat().st_size:,} bytes") for path in files]


def _times(concept: Concept) -> list[tuple[str, str]]:
    ran = sorted((concept.folder / "notebooks").glob("*.ipynb"))
    notebooks = {path.stem: nbformat.read(path, as_version=4) for path in ran}
    return [(name, f"{one.metadata.papermill.duration:.1f} s") for name, one in notebooks.items()]


def _figure(image: Image.Image, caption: str) -> dict[str, str]:
    image = image.copy()
    image.thumbnail((_WIDEST, 4 * _WIDEST), Image.Resampling.LANCZOS)
    return {"caption": caption, "uri": data_uri(packed(image, "WEBP", quality=85), "image/webp")}


def _as_rows(settings: dict) -> list[tuple[str, str]]:
    return [(name, "–" if value in (None, [], "") else str(value)) for name, value in settings.items()]
