"""A base model as a folder in diffusers' layout: its settings, its family, its parts."""

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import transformers
from safetensors import SafetensorError, safe_open

from .errors import UserError
from .lean_diffusers import diffusers
from .progress import LARGE, progress
from .quiet import quiet_loading

INDEX = "model_index.json"

_PIPELINES = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
MODELS = ("text_encoder", "text_encoder_2", "vae", "unet")
_TOKENIZERS = ("tokenizer", "tokenizer_2")


class ModelFolder:
    """Reads one folder.

    Raises:
        UserError: the folder has no `model_index.json`, or one of a pipeline that is not Stable
            Diffusion 1.x, 2.x or XL. Later: a part that is missing or damaged.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._index = self._json(INDEX)
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
        activation = self._config("text_encoder").get("hidden_act", "quick_gelu")
        return "sd1" if activation == "quick_gelu" else "sd2"

    @property
    def resolution(self) -> int:
        """Side, in pixels, of the pictures that the UNet was made for: its latents times the VAE's factor."""
        halvings = len(self._config("vae")["block_out_channels"]) - 1
        return self._config("unet")["sample_size"] * 2**halvings

    @property
    def model_names(self) -> list[str]:
        return self._present(MODELS)

    def tokenizers(self) -> list[Any]:
        return [self._load(transformers.CLIPTokenizer, name) for name in self._present(_TOKENIZERS)]

    def scheduler(self) -> Any:
        """The training noise schedule; the folder's own scheduler may be one for drawing pictures."""
        return self._load(diffusers().DDPMScheduler, "scheduler")

    def models(self, dtype: torch.dtype) -> dict[str, Any]:
        """Text encoder(s), VAE and UNet by the folder's names for them."""
        names = progress(self.model_names, f"loading {self.path.name}", at_once=self._is_large())
        models = {name: self._model(name, dtype) for name in names}
        self.pool_at_end(models)
        return models

    def _is_large(self) -> bool:
        weights = [path for name in self.model_names for path in (self.path / name).glob("*model*")]
        return sum(path.stat().st_size for path in weights) > LARGE

    def shapes(self, dtype: torch.dtype) -> dict[str, Any]:
        """The parts on the `meta` device, made from their settings alone."""
        return {name: self._shape(name, dtype) for name in self.model_names}

    def word_table(self) -> torch.Tensor | None:
        """The text encoder's token embeddings, (tokens, width), where they are on disk as safetensors."""
        for file in sorted((self.path / "text_encoder").glob("*.safetensors")):
            with self._readable("text_encoder"), safe_open(file, framework="pt") as weights:
                for name in weights.keys():  # noqa: SIM118, it is no dictionary
                    if name.endswith("token_embedding.weight"):
                        return weights.get_tensor(name).float()
        return None

    def vae(self, dtype: torch.dtype) -> Any:
        return self._model("vae", dtype)

    def pool_at_end(self, models: dict[str, Any]) -> None:
        """Let text encoders pool where the sentence ends, also when it holds new tokens.

        The shipped settings give a wrong `eos_token_id`, 2, for which transformers' CLIP takes the
        largest id of a sentence as its end. A new token has a larger id than the end, so that XL's
        pooled output would be read at the new word.
        """
        encoders = [model for name, model in models.items() if name.startswith("text_encoder")]
        for encoder, tokenizer in zip(encoders, self.tokenizers(), strict=True):
            getattr(encoder, "text_model", encoder).eos_token_id = tokenizer.eos_token_id

    def pipeline(self, dtype: torch.dtype) -> Any:
        """The folder's pipeline with all that belongs to it, such as a safety checker."""
        models = self.models(dtype)
        with self._readable(INDEX), quiet_loading():
            pipeline_class = getattr(diffusers(), self.pipeline_name)
            variant = self._variant("safety_checker", dtype)  # the one model that is not handed over
            return pipeline_class.from_pretrained(self.path, variant=variant, **models).to(dtype=dtype)

    def _present(self, names: tuple[str, ...]) -> list[str]:
        return [name for name in names if self._index.get(name, [None])[0]]

    def _shape(self, name: str, dtype: torch.dtype) -> Any:
        library, class_name = self._index[name]
        with self._readable(name), quiet_loading(), torch.device("meta"):
            if library == "transformers":
                kind = getattr(transformers, class_name)
                return kind(kind.config_class.from_pretrained(self.path, subfolder=name)).to(dtype)
            kind = getattr(diffusers(), class_name)
            return kind.from_config(kind.load_config(self.path, subfolder=name)).to(dtype)

    def _model(self, name: str, dtype: torch.dtype) -> Any:
        library, class_name = self._index[name]
        if library == "transformers":
            kind, format_argument = getattr(transformers, class_name), {"dtype": dtype}
        else:
            kind, format_argument = getattr(diffusers(), class_name), {"torch_dtype": dtype}
        return self._load(kind, name, variant=self._variant(name, dtype), **format_argument)

    def _variant(self, name: str, dtype: torch.dtype) -> str | None:
        """`fp16` where a short format is asked for and there, or where there is nothing else."""
        files = [path.name for path in (self.path / name).glob("*model*.*") if path.suffix != ".json"]
        half = [file for file in files if ".fp16" in file]
        return "fp16" if half and (dtype != torch.float32 or len(half) == len(files)) else None

    def _config(self, name: str) -> dict[str, Any]:
        return self._json(f"{name}/config.json")

    def _json(self, file: str) -> dict[str, Any]:
        with self._readable(file):
            return json.loads((self.path / file).read_text(encoding="utf-8"))

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
