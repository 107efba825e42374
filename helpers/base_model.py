"""From the name of a base model to its parts.

A base model is the word `miniature`, a hub's id (`owner/name`), a folder in diffusers' layout, or a
single `.safetensors` or `.ckpt` file. Nothing here moves a model to a device or starts CUDA.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate.utils import is_cuda_available

from . import hub, places
from .errors import UserError
from .model_folder import MODELS, ModelFolder
from .precision import pick_dtype
from .single_file import SingleFile

__all__ = [
    "MINIATURE",
    "STABLE_DIFFUSION",
    "Components",
    "Source",
    "check_base_model",
    "default_base_model",
    "hub_login",
    "load_components",
    "load_pipeline",
    "load_resolution",
    "load_scheduler",
    "load_shapes",
    "load_tokenizers",
    "load_vae",
    "load_word_table",
    "pick_dtype",
    "resolve",
]

MINIATURE = "miniature"
STABLE_DIFFUSION = "stable-diffusion-v1-5/stable-diffusion-v1-5"

_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_FILE_TYPES = (".safetensors", ".ckpt")


@dataclass(frozen=True)
class Source:
    """Where a base model lies: a folder, a hub's repository or one file."""

    kind: Literal["folder", "hub", "file"]
    location: str


@dataclass(frozen=True)
class Components:
    """The frozen parts of a base model, in eval mode, on the CPU.

    `tokenizers` and `text_encoders` have one entry each, two for XL. `resolution` is the side, in
    pixels, of the pictures that the UNet was made for.
    """

    tokenizers: list[Any]
    text_encoders: list[Any]
    vae: Any
    unet: Any
    scheduler: Any
    family: Literal["sd1", "sd2", "sdxl"]
    resolution: int


def default_base_model() -> str:
    """Stable Diffusion 1.5 where there is a GPU, the miniature where there is none.

    Looks through NVML, so that CUDA stays untouched in the notebook's process.
    """
    return STABLE_DIFFUSION if is_cuda_available() else MINIATURE


def resolve(base_model: str) -> Source:
    """Find out what a name stands for. Reads no weights and asks no hub.

    A relative path counts from the working folder, then from `notebooks/`.

    Raises:
        UserError: it is a file of another kind, or nothing that is there or looks like a hub's id.
    """
    if base_model == MINIATURE:
        return Source("folder", str(places.miniature_folder()))
    for start in (Path.cwd(), places.repository_folder() / "notebooks"):
        path = (start / Path(base_model).expanduser()).resolve()
        if path.is_dir():
            return Source("folder", str(path))
        if path.is_file():
            return Source("file", _checkpoint(path))
    if _HUB_ID.fullmatch(base_model) and not base_model.endswith(_FILE_TYPES):
        return Source("hub", base_model)
    raise UserError(
        f"There is no base model at “{base_model}”: give “{MINIATURE}”, a hub's id such as "
        f"{STABLE_DIFFUSION}, a folder, or a .safetensors or .ckpt file that is there."
    )


def load_tokenizers(base_model: str) -> list[Any]:
    """The tokenizers of a base model: one, for XL two. Reads no weights.

    Raises:
        UserError: the model can't be found, fetched or read.
    """
    return _open(base_model).tokenizers()


def load_scheduler(base_model: str) -> Any:
    """The noise schedule that the model was trained with, as diffusers' `DDPMScheduler`.

    Model folders name a scheduler for drawing pictures (PNDM, Euler); its betas and its
    `prediction_type` are kept, as in diffusers' training scripts.

    Raises:
        UserError: the model can't be found, fetched or read.
    """
    return _open(base_model).scheduler()


def load_resolution(base_model: str) -> int:
    """Side, in pixels, of the pictures that the model was made for. Reads no weights.

    Raises:
        UserError: the model can't be found, fetched or read.
    """
    return _open(base_model).resolution


def load_vae(base_model: str) -> Any:
    """The autoencoder alone, in float32, frozen and in eval mode, on the CPU.

    Raises:
        UserError: the model can't be found, fetched or read.
    """
    return _open(base_model, ["vae"]).vae(torch.float32).requires_grad_(False).eval()


def load_components(base_model: str, dtype: torch.dtype = torch.float32) -> Components:
    """Everything that training needs, frozen and in eval mode, on the CPU.

    Args:
        base_model: see `resolve`.
        dtype: format of the weights; in a short one a hub's own half-precision files are fetched.

    Raises:
        UserError: the model can't be found, fetched or read, or is of another family.
    """
    model = _open(base_model, MODELS, dtype)
    return _components(model, model.models(dtype))


def load_shapes(base_model: str, dtype: torch.dtype = torch.float32) -> Components:
    """The same parts on torch's `meta` device: shapes without numbers, to count with. Reads no weights.

    Raises:
        UserError: the model can't be found, fetched or read, or is of another family.
    """
    model = _open(base_model)
    return _components(model, model.shapes(dtype))


def load_word_table(base_model: str) -> torch.Tensor | None:
    """The (first) text encoder's row for each token, (tokens, width), if that is on disk; nothing is fetched.

    None for a single file, whose text encoder would have to be converted first.

    Raises:
        UserError: the model can't be found, or its settings can't be fetched or read.
    """
    return _open(base_model).word_table()


def _components(model: ModelFolder, models: dict[str, Any]) -> Components:
    for part in models.values():
        part.requires_grad_(False).eval()
    return Components(
        tokenizers=model.tokenizers(),
        text_encoders=[part for name, part in models.items() if name.startswith("text_encoder")],
        vae=models["vae"],
        unet=models["unet"],
        scheduler=model.scheduler(),
        family=model.family,
        resolution=model.resolution,
    )


def load_pipeline(
    base_model: str, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> Any:
    """The diffusers pipeline of a base model: `StableDiffusionPipeline` or `StableDiffusionXLPipeline`.

    Raises:
        UserError: the model can't be found, fetched or read, or is of another family.
    """
    return _open(base_model, (*MODELS, "safety_checker"), dtype).pipeline(dtype).to(device)


def hub_login(base_model: str) -> str:
    """Log in to the hub where the base model asks for it; elsewhere, do nothing.

    Returns:
        One sentence on what was done and why.

    Raises:
        UserError: there is no such base model, or the token that is here does not open it.
    """
    source = resolve(base_model)
    if source.kind != "hub":
        return "This base model is on disk: no login needed."
    return hub.login(source.location)


def check_base_model(base_model: str) -> None:
    """Find out early, before anything is fetched, that a base model can't be had.

    Raises:
        UserError: there is no such base model, it is of another family, or the hub does not let it be read.
    """
    source = resolve(base_model)
    if source.kind == "hub":
        hub.check_access(source.location)
    if source.kind == "folder":
        ModelFolder(source.location)


def _checkpoint(path: Path) -> str:
    if path.suffix not in _FILE_TYPES:
        raise UserError(
            f"{path.name} is no base model: give a .safetensors or .ckpt file, or a folder in diffusers' "
            "layout."
        )
    return str(path)


def _open(base_model: str, parts: Collection[str] = (), dtype: torch.dtype = torch.float32) -> ModelFolder:
    """The model as a folder; of a hub's repository only the settings and the weights of `parts`."""
    source = resolve(base_model)
    if source.kind == "file":
        return SingleFile(source.location)
    if source.kind == "hub":
        return ModelFolder(hub.fetch(source.location, parts, half=dtype != torch.float32))
    return ModelFolder(source.location)
