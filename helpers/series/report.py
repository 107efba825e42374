"""`concepts/<name>/report.html`: everything that came out for a concept, on one page.

The page holds its pictures in itself, so that it may be sent as one file. A part of which there is
nothing yet is left out.
"""

import base64
import io
import json
from collections.abc import Iterable, Sequence
from html import escape
from pathlib import Path

import nbformat
from PIL import Image

from ..common.sheets import image_grid
from ..concept.concept import Concept

_WIDEST = 1200  # pixels
_PICTURES = {".png", ".jpg", ".jpeg", ".webp"}
_GRIDS = {
    "before_and_after": "Above the initializer, below the word; a column has one prompt and one seed.",
    "guidance_by_seeds": "A row for each guidance: how much the prompt counts.",
    "prompt": "One prompt, another seed for each picture.",
    "steps_by_prompts": "A row for each training step that was kept, the last one for the result.",
    "styles": "The word in other styles.",
    "weights": "A column for each weight of the word: how much it counts beside the rest of the prompt.",
}
_SCORES = """\
<p>A judge, a small network that reads toys, looked at {pictures} pictures in scenes and styles that
the word was never taught with. Identity is the mean share of traits that are the toy's own, prompt
the share of scenes and styles that came out. The last column is the fullest description that the
model's captions know: one would have to know each of its words, and none of them names the feet.</p>
"""
_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem }}
h2 {{ margin-top: 2.5rem; border-top: 1px solid #8886; padding-top: 1rem }}
table {{ display: block; overflow-x: auto }}
th, td {{ padding-right: 1rem; text-align: left; vertical-align: top }}
img {{ max-width: 100% }}
figure {{ margin: 1rem 0 }}
figcaption {{ opacity: 0.75 }}
</style>
<h1>{title}</h1>
{sections}
</html>
"""


def write_report(concept: Concept) -> Path:
    """Write `report.html` into the concept's folder and return its path."""
    sections = {
        "The pictures": _images(concept),
        "The grids": _grids(concept),
        "The scores": _scores(concept),
        "The training": _training(concept),
        "The settings": _settings(concept),
        "The files for other programs": _exports(concept),
        "The notebooks": _times(concept),
    }
    page = _PAGE.format(
        title=escape(f"{concept.placeholder_token}, on {concept.base_model}"),
        sections="\n".join(f"<h2>{title}</h2>\n{body}" for title, body in sections.items() if body),
    )
    path = concept.folder / "report.html"
    partial = path.with_suffix(".partial")
    partial.write_text(page, encoding="utf-8")
    return partial.replace(path)


def _images(concept: Concept) -> str:
    paths = _pictures_in(concept.images_folder)
    if not paths:
        return ""
    images = [Image.open(path) for path in paths]
    return _figure(image_grid(images, columns=len(images), cell=200), "What the word was learned from.")


def _settings(concept: Concept) -> str:
    tables = [
        _table((name, _shown(value)) for name, value in settings.items())
        for settings in (concept.model_dump(exclude={"training"}), concept.training.model_dump())
    ]
    return "{}\n<details><summary>The hyperparameters</summary>\n{}\n</details>".format(*tables)


def _training(concept: Concept) -> str:
    from ..training.figures import plot_run, sample_sheet, saved_samples
    from ..training.records import RunSummary

    if not concept.embeds_path.is_file():
        return ""
    parts = [
        f"<p>{escape(str(RunSummary.load(concept)))}</p>",
        _figure(plot_run(concept), "The fixed loss is on the same pictures, noise and timesteps each time."),
    ]
    if saved_samples(concept):
        parts.append(
            _figure(sample_sheet(concept), "Drawn on the way, always with the same prompts and noise.")
        )
    return "\n".join(parts)


def _grids(concept: Concept) -> str:
    return "\n".join(
        _figure(Image.open(path), _GRIDS.get(path.stem, path.stem.replace("_", " ")))
        for path in _pictures_in(concept.grids_folder)
    )


def _scores(concept: Concept) -> str:
    path = concept.folder / "scores.json"
    if not path.is_file():
        return "<p>There are none: the judge reads only objects that were learned on the miniature.</p>"
    scores = json.loads(path.read_text(encoding="utf-8"))
    columns = {name: _shares(scores[name]) for name in ("word", "initializer", "description")}
    rows = [(name, *(f"{shares[name]:.2f}" for shares in columns.values())) for name in columns["word"]]
    said = [f"{name}: {words}" for name, words in scores["said"].items()]
    return _SCORES.format(pictures=scores.get("pictures", "some")) + _table([("", *said), *rows])


def _shares(score: dict) -> dict[str, float]:
    """One subject's shares in the order of the report: identity and its traits, prompt and its parts."""
    return {
        "identity": score["identity"],
        **score["traits"],
        "prompt": score["prompt"],
        **score["asked"],
    }


def _exports(concept: Concept) -> str:
    files = sorted(path for path in concept.export_folder.rglob("*") if path.is_file())
    return _table(
        (path.relative_to(concept.folder).as_posix(), f"{path.stat().st_size:,} bytes") for path in files
    )


def _times(concept: Concept) -> str:
    ran = sorted((concept.folder / "notebooks").glob("*.ipynb"))
    return _table((path.stem, f"{_seconds(path):.1f} s") for path in ran)


def _seconds(ran: Path) -> float:
    return nbformat.read(ran, as_version=4).metadata.papermill.duration


def _pictures_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in _PICTURES)


def _figure(image: Image.Image, caption: str) -> str:
    image = image.convert("RGB")
    image.thumbnail((_WIDEST, 4 * _WIDEST), Image.Resampling.LANCZOS)
    packed = io.BytesIO()
    image.save(packed, "JPEG", quality=88)
    data = base64.b64encode(packed.getvalue()).decode()
    shown = f'<img alt="{escape(caption)}" src="data:image/jpeg;base64,{data}">'
    return f"<figure>{shown}<figcaption>{escape(caption)}</figcaption></figure>"


def _table(rows: Iterable[Sequence[str]]) -> str:
    """A table whose first column names the rows."""
    lines = [
        f"<tr><th>{escape(name)}" + "".join(f"<td>{escape(value)}" for value in values)
        for name, *values in rows
    ]
    return "<table>\n" + "\n".join(lines) + "\n</table>" if lines else ""


def _shown(value) -> str:
    return "–" if value in (None, [], "") else str(value)
