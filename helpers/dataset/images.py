"""The pictures of a concept, checked, converted, and stored in `images/` with their captions.

A concept is given as such, by its name, or as its folder's path; a picture by its name, such as `002.png`.
One that is missing, damaged or can't be used raises a `UserError`, and nothing has changed then.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from PIL import Image

from ..common import places
from ..common.errors import UserError, valid_unicode
from ..common.files import locked, picture_files, write_whole
from ..common.sheets import Table, counted, packed
from ..concept.concept import FIRST_CONCEPT, Concept, composed, saved_concepts
from ..model.base_model import MINIATURE, default_base_model, load_resolution, resolve
from .check import Fingerprint, alike, fingerprint, open_picture
from .fetch import DATASET, Fetched, fetch_all

FEWEST, MOST = 3, 10
_LOCK_FILE = ".images.lock"
_LOCK_REFUSAL = "Pictures are being added by {}: add these when it is done."
_CAT_TOY = f"{DATASET}diffusers/cat_toy_example"
_DEFAULT_RESOLUTION = 512
ConceptLike = Concept | str | Path


@dataclass(frozen=True)
class Verdict:
    """The result for one source."""

    source: str
    outcome: Literal["kept", "already kept", "refused", "left alone"]
    why: str = ""
    path: Path | None = None  # the picture in `images/` that it is, or looks like


def default_sources(base_model: str, concept: ConceptLike | None = None) -> list[str]:
    """The pictures to begin with: the five of grooty for the miniature, else the well-known cat toy.

    They are for the first concept of the series only. Another one, or the first one once it has enough
    pictures, gets its own folder, or nothing if that is empty.
    """
    if concept is not None:
        folder = _images_folder(concept)
        own, is_first = len(picture_files(folder)), folder.parent.name == FIRST_CONCEPT
        if own >= FEWEST or not is_first:
            return [str(folder)] if own else []
    if base_model != MINIATURE:
        return [_CAT_TOY]
    shipped = sorted((places.data_folder() / FIRST_CONCEPT).glob("*.png"))
    if not shipped:
        raise UserError("The pictures in data/grooty are missing: get the repository again.")
    return [str(path) for path in shipped]


def add_images(
    concept: ConceptLike,
    sources: Sequence[str | Path | Fetched] | str | Path,
    base_model: str | None = None,
    keep_alike: bool = False,
) -> list[Verdict]:
    """Fetch pictures, check them, and keep the good ones as `images/001.png`, `002.png`, ...

    A picture that is there already is not written again, so the same call twice changes nothing. There is a
    verdict on each picture, in the order of the sources.

    Args:
        concept: need not be saved.
        sources: as for `fetch_all`.
        base_model: decides how large a picture has to be: at least half the side that the model draws.
            None: the concept's, or the default one.
        keep_alike: also keep what looks like a picture that is there, unless all pixels are the same.
    """
    folder, resolution = _images_folder(concept), _resolution(concept, base_model)
    fetched = fetch_all(sources)
    places.make_folder(folder)
    with locked(folder.parent / _LOCK_FILE, _LOCK_REFUSAL):  # two would give one name to two pictures
        known = {path: fingerprint(_open(path)) for path in picture_files(folder)}
        return [_judge(one, folder, resolution, known, keep_alike) for one in fetched]


def _resolution(concept: ConceptLike, base_model: str | None) -> int:
    """The side of the pictures that a model draws; 512 if its settings are not on disk."""
    if base_model is None:
        base_model = concept.base_model if isinstance(concept, Concept) else default_base_model()
    return load_resolution(base_model) if resolve(base_model).kind == "folder" else _DEFAULT_RESOLUTION


def _judge(
    one: Fetched, folder: Path, resolution: int, known: dict[Path, Fingerprint], keep_alike: bool
) -> Verdict:
    """Keep one picture or say why not; a picture that is kept joins `known`."""
    if one.data is None:
        return Verdict(one.source, "refused" if one.problem else "left alone", one.problem or one.note or "")
    try:
        image = open_picture(one.data, smallest=resolution // 2)
    except UserError as error:
        return Verdict(one.source, "refused", str(error))
    own = fingerprint(image)
    twins = [path for path, other in known.items() if alike(own, other)]
    for path in twins:
        kept = _open(path)
        if kept.size == image.size and kept.tobytes() == image.tobytes():
            return Verdict(one.source, "already kept", path=path)
    if twins and not keep_alike:
        why = f"It is the same picture as {twins[0].name}, in another form."
        return Verdict(one.source, "refused", why, twins[0])
    # Not only of pictures: a new one must not get the caption of one that was deleted by hand.
    numbers = [int(path.stem) for path in folder.iterdir() if re.fullmatch(r"\d{1,9}", path.stem)]
    path = write_whole(folder / f"{max(numbers, default=0) + 1:03d}.png", packed(image))
    known[path] = own
    is_small = min(image.size) < resolution
    why = f"Smaller than {resolution} pixels: it will be enlarged." if is_small else ""
    return Verdict(one.source, "kept", why, path)


def verdict_table(verdicts: Sequence[Verdict]) -> Table:
    """What was kept, what was refused, and why."""
    rows = [
        (short_source(one.source), one.outcome, one.path.name if one.path else "", one.why)
        for one in verdicts
    ]
    empty = "No address was given: fill ADDRESSES, or add pictures below."
    return Table(rows, ("picture", "outcome", "in images/", "why"), empty)


def short_source(source: str) -> str:
    """A source without the path that only this machine has."""
    path = Path(source)
    if not path.is_absolute():
        return source if len(source) < 70 else f"{source[:30]}…{source[-35:]}"
    root = places.repository_folder()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else f"…/{path.name}"


def advice(concept: ConceptLike) -> str:
    """One sentence about the number of the concept's pictures."""
    count = len(picture_files(_images_folder(concept)))
    if not count:
        return "No pictures yet: add some above, then run on from here."
    if count < FEWEST:
        few = counted(count, "picture")
        return f"{few}: add more, {FEWEST} to 5 of the same thing on different backgrounds."
    if count > MOST:
        return f"{count} pictures: 3 to 5 good ones usually teach just as well; remove the weak ones."
    if count > 5:
        return f"{count} pictures: enough; three to five usually do as well."
    return f"{count} pictures: a good number."


def keep_drawn(concept: ConceptLike, images: Sequence[Image.Image]) -> str:
    """Write pictures that were drawn here to `images/` as `drawn-1.png`, ..., and return a sentence.

    They replace others that were drawn before, with their captions; all other pictures stay.
    """
    folder = places.make_folder(_images_folder(concept))
    drawn = {folder / f"drawn-{number}.png": packed(image) for number, image in enumerate(images, start=1)}
    if {path: path.read_bytes() for path in folder.glob("drawn-*.png")} != drawn:
        for path in folder.glob("drawn-*"):
            path.unlink()
        for path, data in drawn.items():
            write_whole(path, data)
    has = f"{folder.parent.name} has {len(images)} drawn pictures now."
    others = len(picture_files(folder)) - len(images)
    return f"{has} It also has {others} others: remove those that show another thing." if others else has


# Pictures that are stored.


def image_paths(concept: ConceptLike) -> list[Path]:
    """The picture files of a concept, in the order of their names; UserError if it has none."""
    folder = _images_folder(concept)
    if paths := picture_files(folder):
        return paths
    name, known = folder.parent.name, saved_concepts()
    mistyped = known and name not in known
    raise UserError(
        f"The concept “{name}” has no pictures yet: add some in notebook 1, whose table says why one is "
        f"refused{', or choose one of these: ' + ', '.join(known) if mistyped else ''}."
    )


def image_path(concept: ConceptLike, name: str) -> Path:
    """The file of the picture `name`."""
    paths = {path.name: path for path in picture_files(_images_folder(concept))}
    if name not in paths:
        raise UserError(f"There is no picture “{name}”: choose one of {', '.join(paths) or '(none)'}.")
    return paths[name]


def load_image(concept: ConceptLike, name: str) -> Image.Image:
    """The picture `name`, upright, RGB, in its own size."""
    return _open(image_path(concept, name))


def load_images(concept: ConceptLike) -> list[Image.Image]:
    """The pictures of a concept, as `load_image` gives them, in the order of their names."""
    return [_open(path) for path in image_paths(concept)]


def images_or_examples(concept: ConceptLike) -> list[Image.Image]:
    """The pictures of a concept (`load_images`); if it has none yet, those of the first concept."""
    own = picture_files(_images_folder(concept))
    return [_open(Path(path)) for path in own or default_sources(MINIATURE)]


def remove_image(concept: ConceptLike, name: str) -> None:
    """Delete the picture `name` and its captions; the others keep their names."""
    path = image_path(concept, name)
    path.unlink()
    caption_path(path).unlink(missing_ok=True)


def rotate_image(concept: ConceptLike, name: str) -> None:
    """Turn the picture `name` by 90 degrees clockwise.

    Here and in `crop_image` it is written as PNG, whatever its suffix, so that nothing is lost.
    """
    # Pillow's angles are counter-clockwise.
    turned = load_image(concept, name).transpose(Image.Transpose.ROTATE_270)
    write_whole(image_path(concept, name), packed(turned))


def crop_image(concept: ConceptLike, name: str, place: float = 0.5) -> None:
    """Keep the largest square of the picture `name`; one that is square already stays as it is.

    Args:
        place: the square's place along the longer side: from 0, left or top, to 1, right or bottom.
    """
    image = load_image(concept, name)
    box = square_box(image.size, place)
    if box != (0, 0, *image.size):
        write_whole(image_path(concept, name), packed(image.crop(box)))


def square_box(size: tuple[int, int], place: float) -> tuple[int, int, int, int]:
    """Pillow's box of the largest square in a picture of `size`, at a `place` as for `crop_image`."""
    if not 0 <= place <= 1:
        raise UserError(f"The place of a crop lies between 0 and 1, not at {place}.")
    side = min(size)
    left, top = (round((length - side) * place) for length in size)
    return left, top, left + side, top + side


def _images_folder(concept: ConceptLike) -> Path:
    if isinstance(concept, Path):
        return concept / "images"
    return (Concept.make(concept) if isinstance(concept, str) else concept).images_folder


def _open(path: Path) -> Image.Image:
    try:
        return open_picture(path.read_bytes())
    except UserError as error:
        raise UserError(f"images/{path.name}: {error}") from error


# Captions: a picture's own sentences, as other trainers store them: `images/001.txt` for `images/001.png`.


def captions_of(concept: Concept) -> dict[str, list[str]]:
    """The captions (`read_captions`) of each picture that has some, by the picture's name."""
    read = {path.name: read_captions(concept, path.name) for path in image_paths(concept)}
    return {name: captions for name, captions in read.items() if captions}


def read_captions(concept: Concept, name: str) -> list[str]:
    """The captions of the picture `name`, one per line of its file, with `{}` for the word."""
    path = caption_path(image_path(concept, name))
    if not path.is_file():
        return []
    try:
        return parse_captions(concept, path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        raise UserError(f"images/{path.name} is not text: delete it, or save it as UTF-8.") from None
    except UserError as error:
        raise UserError(f"images/{path.name}: {error}") from None


def write_captions(concept: Concept, name: str, text: str) -> list[str]:
    """Store a text as the captions (`parse_captions`) of the picture `name`; an empty one removes them.

    Training then takes no other sentence for that picture.
    """
    path = caption_path(image_path(concept, name))
    captions = parse_captions(concept, text)
    if captions:
        write_whole(path, "\n".join(captions) + "\n")
    else:
        path.unlink(missing_ok=True)
    return captions


def parse_captions(concept: Concept, text: str) -> list[str]:
    """The lines of a text as captions. Each must have the word once, as `{}` or as the placeholder."""
    captions, word = [], re.compile(re.escape(composed(concept.placeholder_token)), re.IGNORECASE)
    for line in filter(str.strip, composed(valid_unicode(text)).splitlines()):
        captions.append(word.sub("{}", " ".join(line.split())))
        if captions[-1].count("{}") != 1:
            raise UserError(
                f"Put {{}} into “{line.strip()}”, once: it stands for your word, as in “a photo of {{}} on a "
                "red table”."
            )
    return captions


def caption_path(picture: Path) -> Path:
    """The file with a picture's captions; `a.png` and `a.jpg` share one."""
    return picture.with_suffix(".txt")
