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
from typing import Literal, TypeVar

from PIL import Image, PngImagePlugin
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, field_validator

from ..common.errors import UserError
from ..common.files import atomic_file

_CHUNK = "settings"
Settings = TypeVar("Settings", bound=BaseModel)
DEFAULT_SCHEDULER = "DPM++ 2M"
# The names are AUTOMATIC1111's, so that settings can be carried over; the values make each of diffusers'
# classes take the steps that Stable Diffusion's own configuration takes.
SCHEDULERS = {
    DEFAULT_SCHEDULER: ("DPMSolverMultistepScheduler", {}),
    "DDIM": ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False}),
    "PLMS": ("PNDMScheduler", {"skip_prk_steps": True, "set_alpha_to_one": False}),
    "Euler a": ("EulerAncestralDiscreteScheduler", {}),
}


class DrawingSettings(BaseModel):
    """What pictures and grids are drawn with. A number may be given as text; `size` is in pixels."""

    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    prompt: str = "a photo of a {}"
    negative_prompt: str = ""
    seed: int = Field(0, ge=-(2**63), lt=2**63)
    steps: int = Field(25, ge=1)
    guidance: float = 7.5
    scheduler: Literal[*SCHEDULERS] = DEFAULT_SCHEDULER
    size: int = Field(512, ge=8, multiple_of=8)
    base_model: str = "unknown"
    training_step: int | None = None

    @field_validator("seed")
    @classmethod
    def _is_not_random(cls, seed: int) -> int:
        if seed == -1:
            raise ValueError("unlike in AUTOMATIC1111, -1 does not mean “random”: give 0 or more")
        return seed


class PictureSettings(DrawingSettings):
    """What one picture is to be drawn with, or was drawn with.

    `training_step` and `rows_hash` say which rows the word had: they find its concept, even after it was
    renamed. `rows_hash` is None for a picture without a learned word. `batch_size` and `position` matter
    for bit-exact copies only: some processors round sums differently in batches of another size.
    """

    rows_hash: str | None = Field(None, validation_alias=AliasChoices("rows_hash", "rows"))  # as in old files
    batch_size: int = Field(1, ge=1)
    position: int = 0

    def as_parameters(self) -> str:
        """The text that AUTOMATIC1111 writes into the `parameters` chunk."""
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
    settings = picture.settings
    words = re.sub(r"[^a-z0-9]+", "-", settings.prompt.lower()).strip("-")[:60].strip("-")
    digest = hashlib.sha256(settings.model_dump_json().encode()).hexdigest()[:8]
    path = folder / f"{words or 'picture'}-{settings.seed}-{digest}.png"
    chunks = {"parameters": settings.as_parameters(), _CHUNK: settings.model_dump_json()}
    return write_png(picture.image, path, chunks)


def write_png(image: Image.Image, path: Path, chunks: dict[str, str]) -> Path:
    """Save a picture with text chunks, whole or not at all."""
    texts = PngImagePlugin.PngInfo()
    for name, text in chunks.items():
        texts.add_text(name, text)
    with atomic_file(path) as partial:
        image.save(partial, format="PNG", pnginfo=texts)
    return path


def read_png(path: Path | str, chunk: str, kind: type[Settings], content: bytes | None = None) -> Settings:
    """The settings in one of the texts of a picture's file.

    Args:
        content: the file's bytes, where it is not on this machine's disk.

    Raises:
        UserError: there is no such file, or it holds no such settings.
    """
    try:
        with Image.open(path if content is None else io.BytesIO(content)) as image:
            return kind.model_validate_json(image.info.get(chunk, ""))
    except (FileNotFoundError, IsADirectoryError):
        raise UserError(f"There is no picture at {path}: choose one from the concept's grids/.") from None
    except (OSError, ValueError, Image.DecompressionBombError):  # among them pydantic's ValidationError
        raise UserError(
            f"{Path(path).name} holds no settings: choose a PNG that notebook 5 saved (programs that "
            "resize or send pictures often drop them)."
        ) from None


def read_settings(path: Path | str) -> PictureSettings:
    """Read back what `save_picture` wrote; errors as for `read_png`."""
    return read_png(path, _CHUNK, PictureSettings)
