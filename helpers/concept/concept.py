"""A concept: what to teach, with which word, on which model, and how. One folder each."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from ..common import places
from ..common.errors import UserError
from .templates import templates_for

Positive = Annotated[int, Field(gt=0)]


class _Settings(BaseModel):
    model_config = ConfigDict(extra="forbid", validate_assignment=True)


# By pydantic's name of the error.
_WHAT_TO_DO = {
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float"), "give a whole number"),
    **dict.fromkeys(("float_parsing", "float_type", "finite_number"), "give a number"),
    **dict.fromkeys(("bool_parsing", "bool_type"), "give True or False"),
    "string_type": "give words in quotes",
    "greater_than_equal": "give {ge} or more",
    "greater_than": "give more than {gt}",
    "less_than_equal": "give {le} or less",
    "less_than": "give less than {lt}",
    "multiple_of": "give a multiple of {multiple_of}",
    "literal_error": "choose {expected}",
    "extra_forbidden": "there is no such setting",
}


class TrainingSettings(_Settings):
    """The hyperparameters. Names are those of diffusers' `textual_inversion.py` where it has them."""

    # pictures
    resolution: Annotated[int, Field(ge=32, le=2048, multiple_of=8)] | None = None  # None: the model's own
    interpolation: Literal["linear", "bilinear", "bicubic", "lanczos"] = "bicubic"
    center_crop: bool = True
    random_crop: bool = False
    flip_probability: Annotated[float, Field(ge=0, le=1)] = 0.5
    # the length of a run
    max_train_steps: Positive = 600
    stop_when_learned: bool = True
    evaluate_every: Positive = 20
    sample_every: Annotated[int, Field(ge=0)] = 100  # 0: never
    checkpoint_every: Positive = 50
    seed: int = 42
    # the optimizer
    train_batch_size: Positive = 4
    gradient_accumulation_steps: Positive = 1
    learning_rate: Annotated[float, Field(gt=0, lt=1)] | None = None  # None: by the initializer's numbers
    scale_lr: bool = False
    lr_scheduler: Literal[
        "constant",
        "constant_with_warmup",
        "linear",
        "cosine",
        "cosine_with_restarts",
        "polynomial",
        "piecewise_constant",
        "inverse_time",
    ] = "inverse_time"
    lr_warmup_steps: Annotated[int, Field(ge=0)] = 10
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Annotated[float, Field(gt=0)] | None = 1.0
    use_8bit_adam: bool = False
    # the loss
    snr_gamma: Annotated[float, Field(gt=0)] | None = None
    norm: Literal["free", "hold", "decay"] = "free"
    first_timestep: Annotated[int, Field(ge=0, le=999)] = 0
    last_timestep: Annotated[int, Field(ge=0, le=999)] = 999
    timesteps_per_picture: Positive = 1
    # the machine
    num_processes: Positive = 1
    mixed_precision: Literal["auto", "no", "fp16", "bf16"] = "auto"
    gradient_checkpointing: bool = False
    compile: bool = False
    quantize: Literal["no", "8bit", "4bit"] = "no"
    save_pipeline: bool = False

    @model_validator(mode="after")
    def _timesteps_in_order(self):
        if self.first_timestep > self.last_timestep:
            raise ValueError("first_timestep must not be larger than last_timestep")
        return self


class Concept(_Settings):
    """The settings of one concept, checked when made, kept in `<root>/<name>/concept.json`.

    Everything else about the concept lies beside that file: see the properties that end in
    `_folder`. Change a setting by assignment, then `save()`.
    """

    name: str
    what_to_teach: Literal["object", "style"] = "object"
    placeholder_token: str
    initializer_token: str = "toy"
    vectors: Annotated[int, Field(ge=1, le=32)] = 2
    base_model: str = "miniature"
    own_templates: list[str] = []
    training: TrainingSettings = TrainingSettings()

    @field_validator("name")
    @classmethod
    def _name_is_a_folder(cls, name: str) -> str:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", name):
            raise ValueError("use letters, digits, - and _ only, without accents, for example grooty")
        return name

    @field_validator("placeholder_token")
    @classmethod
    def _placeholder_is_one_word(cls, word: str) -> str:
        if not word or word != "".join(word.split()):
            raise ValueError("use one word without spaces, for example <grooty>")
        return word

    @field_validator("initializer_token")
    @classmethod
    def _initializer_is_given(cls, words: str) -> str:
        if not words.strip():
            raise ValueError("name a word that is near to what you teach, for example toy")
        return words.strip()

    @field_validator("own_templates")
    @classmethod
    def _templates_hold_the_word(cls, sentences: list[str]) -> list[str]:
        templates_for("object", sentences)
        return sentences

    @classmethod
    def make(cls, name: str, **settings) -> "Concept":
        """Make a concept; the placeholder is `<name>` unless given.

        Raises:
            UserError: a setting can't be used; the sentence names it and says what would do.
        """
        settings.setdefault("placeholder_token", f"<{name}>")
        return _checked(cls, {"name": name, **settings})

    @classmethod
    def load(cls, name: str) -> "Concept":
        """Read `<root>/<name>/concept.json`.

        Raises:
            UserError: there is no such concept, or its file was damaged.
        """
        path = places.concepts_root() / name / "concept.json"
        if not path.is_file():
            raise UserError(
                f"There is no concept “{name}” in {path.parent.parent.name}/ yet: run notebook 2 first, "
                f"or choose one of these: {', '.join(saved_concepts()) or '(none yet)'}."
            )
        concept = _checked(cls, path.read_bytes())
        return concept if concept.name == name else concept.changed(name=name)  # its folder was copied

    @classmethod
    def open(cls, name: str, default_base_model: str = "miniature", **settings) -> "Concept":
        """The saved concept of that name, or a new one, with some settings replaced.

        Args:
            default_base_model: for a new concept, where `settings` has none.
            settings: as for `changed`; those that are None stay as they are.

        Raises:
            UserError: a setting can't be used.
        """
        is_saved = name in saved_concepts()
        concept = cls.load(name) if is_saved else cls.make(name, base_model=default_base_model)
        return concept.changed(**{key: value for key, value in settings.items() if value is not None})

    def changed(self, training: dict | None = None, **settings) -> "Concept":
        """A checked copy with some settings replaced, and some of `training`'s; this one stays as it is.

        Raises:
            UserError: a setting can't be used; the sentence names it and says what would do.
        """
        old = self.model_dump()
        return _checked(Concept, {**old, **settings, "training": {**old["training"], **(training or {})}})

    def save(self) -> Path:
        """Write `concept.json` in one go (a temporary file, then a rename) and return its path."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / "concept.json"
        partial = path.with_suffix(".partial")
        partial.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")
        return partial.replace(path)

    @property
    def folder(self) -> Path:
        return places.concepts_root() / self.name

    @property
    def images_folder(self) -> Path:
        return self.folder / "images"

    @property
    def training_folder(self) -> Path:
        return self.folder / "training"

    @property
    def grids_folder(self) -> Path:
        return self.folder / "grids"

    @property
    def export_folder(self) -> Path:
        return self.folder / "export"

    @property
    def embeds_path(self) -> Path:
        """The result of training, in the form that diffusers reads."""
        return self.folder / "learned_embeds.safetensors"

    @property
    def templates(self) -> tuple[str, ...]:
        return templates_for(self.what_to_teach, self.own_templates)

    @property
    def placeholder_tokens(self) -> list[str]:
        """One token a vector, named as diffusers' `load_textual_inversion` names them: `<g>`, `<g>_1`, ..."""
        more = [f"{self.placeholder_token}_{number}" for number in range(1, self.vectors)]
        return [self.placeholder_token, *more]


def saved_concepts() -> list[str]:
    """Names of the concepts under the root, in alphabetical order."""
    return sorted(path.parent.name for path in places.concepts_root().glob("*/concept.json"))


def _checked(cls, settings):
    try:
        return (
            cls.model_validate_json(settings) if isinstance(settings, bytes) else cls.model_validate(settings)
        )
    except ValidationError as error:
        raise UserError(_sentence(error)) from None


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    if first["type"] == "json_invalid":
        return "concept.json is damaged: mend it, or delete it and run notebook 2 again."
    places_in = [str(part) for part in first["loc"] if part != "training"]
    where = ".".join(places_in) or "The settings"
    given = "" if isinstance(first["input"], dict) else f" (you gave {first['input']!r})"
    return f"{where}: {_what_to_do(first)}{given}."


def _what_to_do(error: ErrorDetails) -> str:
    if error["type"] in _WHAT_TO_DO:
        return _WHAT_TO_DO[error["type"]].format(**error.get("ctx", {}))
    what = error["msg"].removeprefix("Value error, ").removesuffix(".")
    return f"{what[:1].lower()}{what[1:]}"


# A sentence for each setting: what it is, in which unit, and when to touch it.
HELP = {
    "what_to_teach": "a thing, or a manner of drawing: it decides on the sentences",
    "placeholder_token": "your new word; brackets keep it apart from words that exist",
    "initializer_token": "the word that it starts from: the kind of thing that you teach",
    "vectors": "rows of numbers for the word; more hold more detail, and listen less to the prompt",
    "base_model": "miniature, a hub id, a folder, or a .safetensors or .ckpt file",
    "own_templates": "sentences of your own beside the usual ones",
    "resolution": "side of the pictures in pixels; empty: what the model draws",
    "interpolation": "how pictures are brought to that size",
    "center_crop": "cut the largest square from the middle; off: squeeze",
    "random_crop": "another square each time; encodes at every step, so it is slow",
    "flip_probability": "share of pictures that are mirrored, 0 to 1; 0 for writing",
    "max_train_steps": "steps at most; it may end sooner",
    "stop_when_learned": "end when the fixed loss has come to rest",
    "evaluate_every": "steps between two looks at the fixed loss",
    "sample_every": "steps between two strips of samples; 0: none",
    "checkpoint_every": "steps between two saved states, of which the best becomes the result",
    "seed": "of all random numbers: the same seed, the same run",
    "train_batch_size": "pictures a step; less takes less memory",
    "gradient_accumulation_steps": "batches before the word is moved",
    "learning_rate": "length of a step; empty: eight tenths of the initializer's numbers",
    "scale_lr": "multiply it by batch, accumulation and processes",
    "lr_scheduler": "how it changes during the run; inverse_time falls, and needs no known end",
    "lr_warmup_steps": "steps until it is at its full length",
    "weight_decay": "pull of the rows towards 0 at each step",
    "max_grad_norm": "longest gradient; empty: any",
    "use_8bit_adam": "bitsandbytes' optimizer; rows are so small that it saves nothing",
    "snr_gamma": "min-SNR weight of the timesteps, 5 is usual; empty: all the same",
    "norm": "length of the rows: free, held, or drawn back to where it began",
    "first_timestep": "least noise that is trained on, 0 to 999",
    "last_timestep": "most noise that is trained on, 0 to 999",
    "timesteps_per_picture": "noise levels of one picture in a batch",
    "num_processes": "one for each GPU",
    "mixed_precision": "number format of the frozen model; auto looks at the machine",
    "gradient_checkpointing": "less memory, more time",
    "compile": "quicker steps, once it has compiled",
    "quantize": "hold the frozen UNet in 8 or 4 bit: less memory",
    "save_pipeline": "also save the whole pipeline with the word in it",
}
