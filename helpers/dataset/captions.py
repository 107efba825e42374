"""A picture's own sentences, kept beside it as other trainers do: `images/001.txt` for `images/001.png`."""

from pathlib import Path

from ..common.errors import UserError
from ..common.files import write_whole
from ..concept.concept import Concept
from .images import image_path, image_paths


def captions_of(concept: Concept) -> dict[str, list[str]]:
    """The own captions of each picture that has some, by the picture's name.

    Each line of `images/<name>.txt` is one; `{}` stands for the word. In a file that was brought from
    elsewhere the concept's placeholder does as well.

    Raises:
        UserError: the concept has no pictures, or a file can't be used; the sentence names it.
    """
    read = {path.name: read_captions(concept, path.name) for path in image_paths(concept)}
    return {name: captions for name, captions in read.items() if captions}


def read_captions(concept: Concept, name: str) -> list[str]:
    """The own captions of the picture `name`, with `{}` for the word; none where it has none.

    Raises:
        UserError: there is no such picture, or its file can't be used.
    """
    path = caption_path(image_path(concept, name))
    if not path.is_file():
        return []
    try:
        return parsed(concept, path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        raise UserError(f"images/{path.name} is no text: delete it, or save it as UTF-8.") from None
    except UserError as error:
        raise UserError(f"images/{path.name}: {error}") from None


def write_captions(concept: Concept, name: str, text: str) -> list[str]:
    """Keep the captions of the picture `name`; it is then shown with these, and with no other sentence.

    Args:
        name: for example `002.png`.
        text: a sentence a line, each with `{}` or the placeholder once; nothing takes them away.

    Returns:
        What was kept, with `{}` for the word.

    Raises:
        UserError: there is no such picture, or a sentence lacks the word; the file stays as it was.
    """
    path = caption_path(image_path(concept, name))
    captions = parsed(concept, text)
    if not captions:
        path.unlink(missing_ok=True)
        return []
    write_whole(path, "\n".join(captions) + "\n")
    return captions


def parsed(concept: Concept, text: str) -> list[str]:
    """The lines of a text as captions, with `{}` for the word.

    Raises:
        UserError: a line has the word not once.
    """
    lines = [" ".join(line.split()) for line in text.splitlines()]
    return [_checked(concept, line) for line in lines if line]


def caption_path(picture: Path) -> Path:
    """Where the captions of a picture are; those of one name in two formats share them."""
    return picture.with_suffix(".txt")


def _checked(concept: Concept, line: str) -> str:
    caption = line.replace(concept.placeholder_token, "{}")
    if caption.count("{}") != 1:
        raise UserError(
            f"Put {{}} into “{line}”, once: it stands for your word, as in “a photo of {{}} on a red table”."
        )
    return caption
