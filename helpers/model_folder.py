"""A base model as a folder in diffusers' layout: its settings, its family, its parts."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError

from .errors import UserError
from .lean_diffusers import diffusers
from .quiet import quiet_loading

INDEX = "model_index.json"

_PIPELINES = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
_MODELS = ("text_encoder", "text_encoder_2", "vae", "unet")
_TOKENIZERS = ("tokenizer", "tokenizer_2")


class ModelFolder:
    """Reads one folder.

    Raises:
        UserError: the folder has no `model_index.json`, or one of a pipeline that is not Stable
            Diffusion 1.x, 2.x or XL. Later: a part that is missing or damaged.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        with self._readable(INDEX):
            self._index = json.loads((self.path / INDEX).read_text(encoding="utf-8"))
        if self.pipeline_name not in _PIPELINES:
            raise UserError(
                f"{self.path.name} is made for {self.pipeline_name}: choose a model of Stable Diffusion "
                "1.x, 2.x or XL that draws from text."
            )

    @property
    def pipeline_name(self) -> str:
        return self._index.get("_class_name", "an unknown pipeline")

    @property
    def family(self) -> str:
        """`sdxl`, `sd2` or `sd1`.

        Stable Diffusion 1.x reads text with OpenAI's CLIP, whose activation is `quick_gelu`; 2.x with
        OpenCLIP, whose activation is `gelu`.
        """
        if "XL" in self.pipeline_name:
            return "sdxl"
        with self._readable("text_encoder"):
            config = json.loads((self.path / "text_encoder" / "config.json").read_text(encoding="utf-8"))
        return "sd1" if config.get("hidden_act", "quick_gelu") == "quick_gelu" else "sd2"

    def tokenizers(self) -> list[Any]:
        return [self._load(transformers.CLIPTokenizer, name) for name in self._present(_TOKENIZERS)]

    def scheduler(self) -> Any:
        """The training noise schedule; the folder's own scheduler may be one for drawing pictures."""
        return self._load(diffusers().DDPMScheduler, "scheduler")

    def models(self, dtype: torch.dtype) -> dict[str, Any]:
        """Text encoder(s), VAE and UNet by the folder's names for them."""
        return {name: self._model(name, dtype) for name in self._present(_MODELS)}

    def pipeline(self, dtype: torch.dtype) -> Any:
        """The folder's pipeline with all that belongs to it, such as a safety checker."""
        models = self.models(dtype)
        with self._readable(INDEX), quiet_loading():
            pipeline_class = getattr(diffusers(), self.pipeline_name)
            return pipeline_class.from_pretrained(self.path, **models).to(dtype=dtype)

    def _present(self, names: tuple[str, ...]) -> list[str]:
        return [name for name in names if self._index.get(name, [None])[0]]

    def _model(self, name: str, dtype: torch.dtype) -> Any:
        library, class_name = self._index[name]
        if library == "transformers":
            kind, format_argument = getattr(transformers, class_name), {"dtype": dtype}
        else:
            kind, format_argument = getattr(diffusers(), class_name), {"torch_dtype": dtype}
        return self._load(kind, name, variant=self._variant(name, dtype), **format_argument)

    def _variant(self, name: str, dtype: torch.dtype) -> str | None:
        """`fp16` where float16 is asked for and there, or where there is nothing else."""
        files = [path.name for path in (self.path / name).glob("*model*.*") if path.suffix != ".json"]
        half = [file for file in files if ".fp16." in file]
        return "fp16" if half and (dtype == torch.float16 or len(half) == len(files)) else None

    def _load(self, kind: type, name: str, **settings) -> Any:
        with self._readable(name), quiet_loading():
            return kind.from_pretrained(self.path, subfolder=name, **settings)

    @contextlib.contextmanager
    def _readable(self, name: str) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, KeyError, SafetensorError) as error:
            raise UserError(
                f"{self.path / name} is missing or damaged: fetch the model again, or give the folder that "
                f"holds {INDEX}, unet/, vae/ and text_encoder/."
            ) from error
