"""A picture and what it was made with, kept together in one PNG file.

Two text chunks hold the settings: `parameters`, in AUTOMATIC1111's convention, which Web UIs read
when the picture is dropped into them; and `settings`, JSON with all that it takes to make the
picture again.
"""

import hashlib
import io
import re
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, PngImagePlugin, UnidentifiedImageError
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from ..common.errors import UserError
from ..common.files import atomic_file

_CHUNK = "settings"


class PictureSettings(BaseModel):
    """What a picture was made with.

    `training_step` and `rows_hash` say which rows the word had: by them its concept is found, whatever it
    is named by now. `rows_hash` is None for a picture without a learned word. `batch_size` and `position`
    matter for the last bit only: on some processors sums are rounded differently for batches of another
    size.
    """

    model_config = ConfigDict(frozen=True)

    prompt: str
    negative_prompt: str
    seed: int
    steps: int
    guidance: float
    scheduler: str
    size: int
    base_model: str
    training_step: int | None
    rows_hash: str | None = Field(validation_alias=AliasChoices("rows_hash", "rows"))  # `rows` in older files
    batch_size: int
    position: int

    def as_parameters(self) -> str:
        """The text that AUTOMATIC1111 writes into the chunk `parameters`."""
        negative = f"Negative prompt: {self.negative_prompt}\n" if self.negative_prompt else ""
        return (
            f"{self.prompt}\n{negative}Steps: {self.steps}, Sampler: {self.scheduler}, "
            f"CFG scale: {self.guidance:g}, Seed: {self.seed}, Size: {self.size}x{self.size}, "
            f"Model: {self.base_model}"
        )


@dataclass(frozen=True)
class Picture:
    """An RGB picture and its settings; `refused`: a safety checker made it black."""

    image: Image.Image
    settings: PictureSettings
    refused: bool = False


def save_picture(picture: Picture, folder: Path) -> Path:
    """Save as PNG under a name made of prompt, seed and a hash of the settings.

    The same picture made again gets the same name, another one never does.
    """
    chunks = {"parameters": picture.settings.as_parameters(), _CHUNK: picture.settings.model_dump_json()}
    return write_png(picture.image, folder / _file_name(picture.settings), chunks)


def write_png(image: Image.Image, path: Path, chunks: dict[str, str]) -> Path:
    """Save a picture with texts in its file, whole or not at all."""
    texts = PngImagePlugin.PngInfo()
    for name, text in chunks.items():
        texts.add_text(name, text)
    with atomic_file(path) as partial:
        image.save(partial, format="PNG", pnginfo=texts)
    return path


def read_png(path: Path | str, content: bytes | None = None) -> dict[str, str]:
    """The texts in a picture's file, by name; none where it is another kind of picture.

    Args:
        content: the file itself, where it is not on this machine's disk.

    Raises:
        UserError: there is no such file, or it is no picture.
    """
    try:
        with Image.open(path if content is None else io.BytesIO(content)) as image:
            return {name: text for name, text in image.info.items() if isinstance(text, str)}
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"There is no picture at {path}: choose one from the concept's grids/.") from None
    except (UnidentifiedImageError, OSError):
        raise no_settings(path) from None


def no_settings(path: Path | str) -> UserError:
    """What to say of a file that does not know how it was made."""
    return UserError(
        f"{Path(path).name} holds no settings: choose a PNG that notebook 5 saved (programs that "
        "resize or send pictures often drop them)."
    )


def read_settings(path: Path | str) -> PictureSettings:
    """Read back what `save_picture` wrote.

    Raises:
        UserError: there is no such file, it is no PNG, or it holds no settings of this series.
    """
    try:
        return PictureSettings.model_validate_json(read_png(path).get(_CHUNK, ""))
    except ValidationError:
        raise no_settings(path) from None


def _file_name(settings: PictureSettings) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", settings.prompt.lower()).strip("-")[:60].strip("-")
    digest = hashlib.sha256(settings.model_dump_json().encode()).hexdigest()[:8]
    return f"{words or 'picture'}-{settings.seed}-{digest}.png"
