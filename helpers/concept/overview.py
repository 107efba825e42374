"""An overview of all concepts: what each folder holds, and which notebook comes next for it."""

import contextlib
import html
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from IPython.display import HTML
from PIL import Image, ImageOps

from ..common import places
from ..common.errors import UserError
from ..common.files import picture_files, read_json
from ..common.sheets import Described, Table, counted, described, html_picture, image_grid, packed
from .concept import FIRST_CONCEPT, SETTINGS_FILE, Concept, can_be_a_name

_TITLES = ("concept", "picture", "state", "word", "model", "scores", "size", "changed")
_SIDE = 192  # pixels at most; the miniature's smaller pictures keep their size
_STYLE = "width:96px;height:96px;object-fit:contain"  # of a picture in the table
_OPENED = ".opened"  # a file in a concept's folder, whose time says when it was last opened
_UNREADABLE = (OSError, ValueError, SyntaxError, Image.DecompressionBombError)  # what Pillow raises


class Overview:
    """One concept, read from its folder; UserError if there is none of that name."""

    def __init__(self, name: str):
        folder = concept_folder(name)
        self.name = name
        self.concept: Concept | None = None  # its settings, if it has some that can be read
        self.problem = ""  # why they can't be read
        if (folder / SETTINGS_FILE).exists():
            try:
                self.concept = Concept.load(name)
            except UserError as error:
                self.problem = str(error)
        self.pictures = len(picture_files(folder / "images"))  # to learn from
        self.cover = next(_covers(folder, self.concept if self.state == "learned" else None), None)
        self.scores = _scores(folder / "scores.json")  # `identity` and `prompt`, if its word was scored
        files = [path.stat() for path in folder.rglob("*") if path.is_file() and path.name != _OPENED]
        self.size = sum(file.st_size for file in files)  # in bytes
        self.changed = datetime.fromtimestamp(max((file.st_mtime for file in files), default=0))

    @property
    def state(self) -> Literal["only pictures", "settings", "learned", "damaged"]:
        """Its progress; `damaged`: its settings can't be read."""
        if self.concept is None:
            return "damaged" if self.problem else "only pictures"
        return "learned" if self.concept.embeds_path.is_file() else "settings"

    @property
    def next_notebook(self) -> str:
        """The notebook to go on with; after the last one, the one that draws."""
        if self.state == "learned":
            folder = self.concept.folder
            has_grids, has_exports = any((folder / "grids").glob("*")), any((folder / "export").glob("*"))
            return "6_web_ui_export" if has_grids and not has_exports else "5_inference_grids"
        if not self.pictures:
            return "1_download_images"
        return "3_dataset_preview" if self.state == "settings" else "2_concept_settings"


def all_concepts() -> list[Overview]:
    """All concepts under the root, in alphabetical order, also damaged ones."""
    return [Overview(name) for name in concept_names()]


def concept_table() -> Table:
    """All concepts with picture, state, word, scores, size and date."""
    return Table(list(map(_row, all_concepts())), _TITLES, nothing_yet())


def concept_sheet() -> Described | Table:
    """A picture of each concept, with its name; if there is none, what to do."""
    shown = [one for one in all_concepts() if one.cover]
    if not shown:
        return Table([], _TITLES, nothing_yet())
    alts = "; ".join(f"{one.name}: {one.cover.alt}" for one in shown)
    columns, names = min(5, len(shown)), [one.name for one in shown]
    return image_grid([one.cover for one in shown], columns, names, alt=alts)


def chosen_concept(name: str | None = None) -> str:
    """The name of the concept to work on, which is remembered as the last opened one.

    Args:
        name: None: the one that was last opened, or last got pictures or settings; `grooty` if there is
            none. The name of a new concept is remembered once it has pictures.
    """
    names = concept_names()
    if name is None:
        name = max(filter(can_be_a_name, names), key=_last_used, default=FIRST_CONCEPT)
    folder = Concept.make(name).folder
    if name in names:
        with contextlib.suppress(OSError):  # in a read-only folder nothing is remembered
            (folder / _OPENED).touch()
            # Finer than the clock of `touch`, and later than all others even if the clock was put back.
            now = max(time.time_ns(), int(1e9 * max(map(_last_used, names))) + 1_000_000)
            os.utime(folder / _OPENED, ns=(now, now))
    return name


def _last_used(name: str) -> float:
    """When a concept was opened, or its pictures or settings changed, in seconds since 1970."""
    paths = (places.concepts_root() / name / part for part in (_OPENED, "images", SETTINGS_FILE))
    return max(path.stat().st_mtime for path in paths if path.exists())


@dataclass(frozen=True)
class Opened:
    """Where to go on with a concept, shown as a link."""

    name: str
    notebook: str

    def __str__(self) -> str:
        return f"Open {self.notebook}.ipynb: while it says CONCEPT = None, it goes on with {self.name}."

    def _repr_html_(self) -> str:
        link = f'<a href="{self.notebook}.ipynb">{self.notebook}.ipynb</a>'
        rest = f"while it says <code>CONCEPT = None</code>, it goes on with {html.escape(self.name)}."
        return f"<p>Open {link}: {rest}</p>"


def open_concept(name: str | None = None) -> Opened:
    """The next notebook for a concept (`chosen_concept`), as a link; a new concept begins with notebook 1."""
    name = chosen_concept(name)
    return Opened(name, Overview(name).next_notebook if name in concept_names() else "1_download_images")


def concept_names() -> list[str]:
    """Names of the folders under the root with settings or pictures, in alphabetical order."""
    root = places.concepts_root()
    names = {path.parent.name for path in (*root.glob(f"*/{SETTINGS_FILE}"), *root.glob("*/images/"))}
    return sorted(name for name in names if not name.startswith("."))


def concept_folder(name: str) -> Path:
    """The folder of a concept; UserError if there is none of that name."""
    names = concept_names()
    if name not in names:
        known = ", ".join(names) or "(none yet: run notebook 1 first)"
        raise UserError(f"There is no concept “{name}”: choose one of these: {known}.")
    return places.concepts_root() / name


def nothing_yet() -> str:
    return f"There is nothing in {places.concepts_root().name}/ yet: run notebook 1 first."


def in_bytes(size: int) -> str:
    """A number of bytes for people, in MB or kB."""
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size / 1e3:.1f} kB"


def scores_in_words(scores: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in scores.items())


def _scores(path: Path) -> dict[str, float]:
    """Empty if the file is missing or damaged: scores can be computed again."""
    scores = read_json(path)
    with contextlib.suppress(ValueError, TypeError, KeyError):
        return {name: float(scores[name]) for name in ("identity", "prompt")}
    return {}


def _row(one: Overview) -> list[str | HTML]:
    word, model, elsewhere, picture = "", "", "", " "
    if one.concept:
        word, model = one.concept.placeholder_token, Path(one.concept.base_model).name
        elsewhere = " elsewhere" if one.concept.learned_elsewhere else ""
    if one.cover:
        picture = html_picture(packed(one.cover), "image/png", one.cover.alt, _STYLE)
    state = one.problem or f"{one.state}{elsewhere}, {counted(one.pictures, 'picture')}"
    facts = [state, word, model, scores_in_words(one.scores), in_bytes(one.size)]
    return [one.name, HTML(picture), *facts, f"{one.changed:%Y-%m-%d %H:%M}"]


def _covers(folder: Path, learned: Concept | None) -> Iterator[Described]:
    """Pictures drawn with the word, newest first; samples of its training; then its training pictures."""
    if learned:
        grids = (folder / "grids").rglob("*.png")
        for path in sorted(grids, key=lambda path: path.stat().st_mtime, reverse=True):
            prompt = learned.with_present_word(_prompt(path))
            if learned.is_in(prompt):
                yield from _opened(path, f"drawn with the word: {prompt}")
        for path in sorted((folder / "training" / "samples").glob("*.png"), reverse=True):
            alt = f"drawn with {learned.placeholder_token} at step {path.stem}"
            yield from _opened(path, alt, first_square=True)
    for path in picture_files(folder / "images"):
        yield from _opened(path, f"{path.name}, which the word is to be learned from")


def _prompt(path: Path) -> str:
    """A picture's prompt, stored as AUTOMATIC1111 does; empty for a contact sheet."""
    with contextlib.suppress(*_UNREADABLE), Image.open(path) as image:
        return image.info.get("parameters", "").partition("\n")[0]
    return ""


def _opened(path: Path, alt: str, first_square: bool = False) -> Iterator[Described]:
    """The picture, or nothing if the file is damaged: another part of the series says so."""
    with contextlib.suppress(*_UNREADABLE), Image.open(path) as file:
        image = ImageOps.exif_transpose(file).convert("RGB")
        if first_square:  # of a strip of samples
            image = image.crop((0, 0, image.height, image.height))
        image.thumbnail((_SIDE, _SIDE))
        yield described(image, alt)
