"""A concept: what to teach, with which word, on which model, and how. One folder each."""

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from ..common import places
from ..common.errors import UserError
from ..common.files import write_whole
from .templates import templates_for

LOCK_FILE = ".training.lock"
FIRST_CONCEPT = "grooty"  # what the series begins with; its pictures ship
_MINIATURE, _TOY = "miniature", "toy"
# The groups of the training settings.
PICTURES, LENGTH, OPTIMIZER = "Pictures", "Length of the run", "Optimizer"
LOSS, MACHINE = "Loss", "Machine"


class Settings(BaseModel):
    """Settings that a person types: a wrong one is a sentence, also where it is set by assignment."""

    model_config = ConfigDict(extra="forbid", validate_assignment=True, allow_inf_nan=False)

    def __setattr__(self, name: str, value: Any) -> None:
        with settings_in_words():
            super().__setattr__(name, value)


_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_OF_WINDOWS = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)", re.IGNORECASE)  # no file can be called so there


def can_be_a_name(name: str) -> bool:
    """Whether a concept may have that name, which is its folder's on any system."""
    return bool(_NAME.fullmatch(name)) and not _OF_WINDOWS.fullmatch(name)


# By pydantic's name of the error.
_WHAT_TO_DO = {
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float"), "give a whole number"),
    **dict.fromkeys(("float_parsing", "float_type", "finite_number"), "give a number"),
    **dict.fromkeys(("bool_parsing", "bool_type"), "give True or False"),
    "string_type": "give words in quotes",
    "list_type": "give a list, in [ ]",
    "model_type": "give settings by their names",
    "missing": "it is missing",
    "greater_than_equal": "give {ge} or more",
    "greater_than": "give more than {gt}",
    "less_than_equal": "give {le} or less",
    "less_than": "give less than {lt}",
    "multiple_of": "give a multiple of {multiple_of}",
    "literal_error": "choose {expected}",
    "extra_forbidden": "there is no such setting",
}


def _setting(default: Any, group: str, description: str, roles: str = "", **limits: Any) -> Any:
    """One setting, with all that is known of it.

    Args:
        group: of the form in notebook 2.
        description: what it is, in which unit, and when to touch it.
        roles: some of `shared` (several words that are taught together have it in common), `may_change` (a
            run that was stopped goes on under another value), `speed` and `memory` (a step's time and
            memory depend on it).
        limits: as pydantic's `Field` takes them, for example `gt=0`.
    """
    about = {"group": group, **dict.fromkeys(roles.split(), True)}
    return Field(default, description=description, json_schema_extra=about, **limits)


class TrainingSettings(Settings):
    """The hyperparameters. Names are those of diffusers' `textual_inversion.py` where it has them.

    `settings_where` looks them up by group and role.
    """

    resolution: int | None = _setting(
        None,
        PICTURES,
        "side of the pictures in pixels; empty: what the model draws",
        "shared speed memory",
        ge=32,
        le=2048,
        multiple_of=8,
    )
    interpolation: Literal["linear", "bilinear", "bicubic", "lanczos"] = _setting(
        "bicubic", PICTURES, "how pictures are brought to that size"
    )
    center_crop: bool = _setting(True, PICTURES, "cut the largest square from the middle; off: squeeze")
    random_crop: bool = _setting(
        False,
        PICTURES,
        "a different square each time; slow, because it encodes at every step",
        "speed memory",
    )
    flip_probability: float = _setting(
        0.5, PICTURES, "share of pictures that are mirrored, 0 to 1; 0 for writing", ge=0, le=1
    )

    max_train_steps: int = _setting(
        600, LENGTH, "upper limit of steps; a run may end sooner", "may_change", gt=0
    )
    stop_when_learned: bool = _setting(True, LENGTH, "end when the fixed loss no longer falls", "may_change")
    evaluate_every: int = _setting(20, LENGTH, "steps between two looks at the fixed loss", gt=0)
    sample_every: int = _setting(
        100,
        LENGTH,
        "steps between two strips of samples, at first a quarter of that; 0: none",
        "may_change",
        ge=0,
    )
    checkpoint_every: int = _setting(
        50, LENGTH, "steps between two saved states, of which the best becomes the result", "may_change", gt=0
    )
    # A run draws with the seed, and with the next three.
    seed: int = _setting(
        42,
        LENGTH,
        "of all random numbers: the same seed, the same run; -1 is a seed like any other, not a random one",
        ge=-(2**63),
        lt=2**63,
    )

    train_batch_size: int = _setting(
        4, OPTIMIZER, "pictures a step; less takes less memory", "shared speed memory", gt=0
    )
    gradient_accumulation_steps: int = _setting(
        1, OPTIMIZER, "batches before the word is moved", "shared speed", gt=0
    )
    learning_rate: float | None = _setting(
        None, OPTIMIZER, "length of a step; empty: eight tenths of the initializer's numbers", gt=0, lt=1
    )
    scale_lr: bool = _setting(False, OPTIMIZER, "multiply it by batch, accumulation and processes")
    lr_scheduler: Literal[
        "constant",
        "constant_with_warmup",
        "linear",
        "cosine",
        "cosine_with_restarts",
        "polynomial",
        "piecewise_constant",
        "inverse_time",
    ] = _setting(
        "inverse_time", OPTIMIZER, "how it changes during the run; inverse_time falls, and needs no known end"
    )
    lr_warmup_steps: int = _setting(10, OPTIMIZER, "steps until it is at its full length", ge=0)
    weight_decay: float = _setting(0.0, OPTIMIZER, "pull of the rows towards 0 at each step", ge=0)
    max_grad_norm: float | None = _setting(1.0, OPTIMIZER, "longest gradient; empty: any", gt=0)
    use_8bit_adam: bool = _setting(
        False, OPTIMIZER, "bitsandbytes' optimizer; rows are so small that it saves nothing"
    )

    snr_gamma: float | None = _setting(
        None, LOSS, "min-SNR weight of the timesteps, 5 is usual; empty: all the same", gt=0
    )
    norm: Literal["free", "hold", "decay"] = _setting(
        "hold",
        LOSS,
        "length of the rows: held, so that other words keep their say; free; or drawn back to its start",
    )
    first_timestep: int = _setting(0, LOSS, "least noise that is trained on, 0 to 999", ge=0, le=999)
    last_timestep: int = _setting(999, LOSS, "most noise that is trained on, 0 to 999", ge=0, le=999)
    timesteps_per_picture: int = _setting(
        1, LOSS, "noise levels of one picture in a batch", "shared speed memory", gt=0
    )

    num_processes: int = _setting(1, MACHINE, "one for each GPU", "may_change", gt=0)
    mixed_precision: Literal["auto", "no", "fp16", "bf16"] = _setting(
        "auto", MACHINE, "number format of the frozen model; auto looks at the machine", "shared speed"
    )
    gradient_checkpointing: bool = _setting(
        False, MACHINE, "less memory, more time", "shared may_change speed memory"
    )
    compile: bool = _setting(False, MACHINE, "quicker steps, once it has compiled", "shared may_change speed")
    quantize: Literal["no", "8bit", "4bit"] = _setting(
        "no", MACHINE, "hold the frozen UNet in 8 or 4 bit: less memory", "shared speed memory"
    )
    save_pipeline: bool = _setting(
        False, MACHINE, "also save the whole pipeline with the word in it", "may_change"
    )

    @model_validator(mode="after")
    def _timesteps_in_order(self):
        if self.first_timestep > self.last_timestep:
            raise ValueError("first_timestep must not be larger than last_timestep")
        return self


class Concept(Settings):
    """The settings of one concept, checked when made, kept in `<root>/<name>/concept.json`.

    Everything else about the concept lies beside that file: see the properties that end in
    `_folder`. Change a setting by assignment, then `save()`. No file repeats the name: it is the folder's.

    Attributes:
        initializer_token: empty as long as nobody chose it; then nothing is trained.
        earlier_words: placeholders that a rename took away; prompts of saved pictures may have them.
    """

    name: str
    what_to_teach: Literal["object", "style"] = Field(
        "object", description="a thing, or a style; decides which sentences are used"
    )
    placeholder_token: str = Field(description="your new word; brackets keep it apart from words that exist")
    initializer_token: str = Field(
        "", description="the word that it starts from: the kind of thing that you teach"
    )
    vectors: int = Field(
        2,
        description="rows of numbers for the word; more hold more detail, and listen less to the prompt",
        ge=1,
        le=32,
    )
    base_model: str = Field(
        _MINIATURE, description="miniature, a hub id, a folder, or a .safetensors or .ckpt file"
    )
    own_templates: list[str] = Field([], description="your own sentences, added to the usual ones")
    earlier_words: list[str] = []
    learned_elsewhere: str = Field("", description="what its file says, of a word that was not taught here")
    training: TrainingSettings = TrainingSettings()

    @field_validator("name")
    @classmethod
    def _name_is_a_folder(cls, name: str) -> str:
        if not can_be_a_name(name):
            raise ValueError(
                "choose another, Windows keeps this name for itself"
                if _OF_WINDOWS.fullmatch(name)
                else "use letters, digits, - and _ only, without accents, for example grooty"
            )
        return name

    @field_validator("placeholder_token")
    @classmethod
    def _placeholder_is_one_word(cls, word: str) -> str:
        if not word or word != "".join(word.split()):
            raise ValueError("use one word without spaces, for example <grooty>")
        return word

    @field_validator("initializer_token")
    @classmethod
    def _initializer_has_no_space_around(cls, words: str) -> str:
        return words.strip()

    @field_validator("own_templates")
    @classmethod
    def _templates_hold_the_word(cls, sentences: list[str]) -> list[str]:
        templates_for("object", sentences)
        return sentences

    @classmethod
    def make(cls, name: str, **settings) -> "Concept":
        """Make a concept; unless given, the placeholder is `<name>`, the initializer `toy` or not chosen.

        Raises:
            UserError: a setting can't be used; the sentence names it and says what would do.
        """
        settings.setdefault("placeholder_token", f"<{name}>")
        base_model = settings.get("base_model", _MINIATURE)
        settings.setdefault("initializer_token", _usual_initializer(name, base_model))
        return _checked(cls, {"name": name, **settings})

    @classmethod
    def load(cls, name: str) -> "Concept":
        """Read `<root>/<name>/concept.json`.

        Raises:
            UserError: there is no such concept, or its file was damaged.
        """
        root = places.concepts_root()
        if name not in saved_concepts():
            raise UserError(
                f"There is no concept “{name}” in {root.name}/ yet: run notebook 2 first, "
                f"or choose one of these: {', '.join(saved_concepts()) or '(none yet)'}."
            )
        return cls.read(root / name / "concept.json")

    @classmethod
    def read(cls, path: Path) -> "Concept":
        """Read a `concept.json`, wherever it lies; its folder's name is the concept's.

        Raises:
            UserError: it was damaged, a setting in it can't be used, or its folder was renamed by hand.
        """
        if not can_be_a_name(path.parent.name):
            raise UserError(
                f"No concept can be called “{path.parent.name}”: rename its folder, with letters, digits, - "
                "and _ only, without accents."
            )
        try:
            settings = json.loads(path.read_bytes().decode("utf-8-sig"))
        except OSError as error:
            raise UserError(
                f"concept.json can't be read ({error.strerror}): check its permissions."
            ) from None
        except (ValueError, RecursionError):
            settings = None
        if not isinstance(settings, dict):
            raise UserError("concept.json is damaged: repair it, or delete it and run notebook 2 again.")
        try:
            return _checked(cls, {**settings, "name": path.parent.name})
        except UserError as error:
            raise UserError(
                f"concept.json can't be used; another version may have written it. {error} Correct it, "
                "or delete the file and run notebook 2 again."
            ) from None

    @classmethod
    def open(cls, name: str, default_base_model: str = _MINIATURE, **settings) -> "Concept":
        """The saved concept of that name, or a new one, with some settings replaced.

        The miniature's usual initializer, `toy`, is not taken along to another model.

        Args:
            default_base_model: for a new concept, where `settings` has none.
            settings: as for `changed`; those that are None stay as they are.

        Raises:
            UserError: a setting can't be used.
        """
        is_saved = name in saved_concepts()
        concept = cls.load(name) if is_saved else cls.make(name, base_model=default_base_model)
        given = {key: value for key, value in settings.items() if value is not None}
        leaves = concept.base_model == _MINIATURE != given.get("base_model", _MINIATURE)
        if leaves and concept.initializer_token == _TOY:
            given.setdefault("initializer_token", _usual_initializer(name, given["base_model"]))
        return concept.changed(**given)

    def changed(self, training: dict | None = None, **settings) -> "Concept":
        """A checked copy with some settings replaced, and some of `training`'s; this one stays as it is.

        Raises:
            UserError: a setting can't be used; the sentence names it and says what would do.
        """
        old = self.model_dump()
        return _checked(Concept, {**old, **settings, "training": {**old["training"], **(training or {})}})

    def save(self) -> Path:
        """Write `concept.json`, whole or not at all, and return its path."""
        path = places.make_folder(self.folder) / "concept.json"
        return write_whole(path, self.model_dump_json(indent=2, exclude={"name"}) + "\n")

    def with_present_word(self, prompt: str) -> str:
        """A prompt with the word in place of those that the concept had before it was renamed."""
        for word in self.earlier_words:
            alone = rf"(?<!\w){re.escape(word)}(?!\w)"
            prompt = re.sub(alone, lambda _: self.placeholder_token, prompt, flags=re.IGNORECASE)
        return prompt

    @property
    def file_name(self) -> str:
        """The name of its files for other programs, most of which take it for the word."""
        return usable_name(self.name)

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
    def report_path(self) -> Path:
        return self.folder / "report.html"

    @property
    def lock_path(self) -> Path:
        """Held while the word is being learned; see `files.locked`."""
        return self.folder / LOCK_FILE

    @property
    def embeds_path(self) -> Path:
        """The result of training, in the form that diffusers reads."""
        return self.folder / "learned_embeds.safetensors"

    @property
    def templates(self) -> tuple[str, ...]:
        return templates_for(self.what_to_teach, self.own_templates)

    @property
    def placeholder_tokens(self) -> list[str]:
        """One token a vector; see `row_names`."""
        return row_names(self.placeholder_token, self.vectors)


def row_names(word: str, vectors: int) -> list[str]:
    """One token a vector, as diffusers' `load_textual_inversion` names them: `<g>`, `<g>_1`, `<g>_2`."""
    return [word, *(f"{word}_{number}" for number in range(1, vectors))]


def _usual_initializer(name: str, base_model: str) -> str:
    """`toy` where that is sure: the miniature draws nothing else, and the series' own pictures show one."""
    return _TOY if base_model == _MINIATURE or name == FIRST_CONCEPT else ""


def usable_name(name: str) -> str:
    """A name as it is, or one in its place where a program can't use it for a word.

    AUTOMATIC1111 splits prompts at `AND` and `BREAK`, and finds `42` within `142`; ComfyUI takes what reads
    as a number (`1e5`, `nan`) for a weight, and ends a word at a blank or a dot; in InvokeAI its letters
    are Latin.
    """
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", name)
    is_taken = re.search(r"\b(AND|BREAK)\b", plain) or _is_number(plain)
    return f"{plain.lower()}_word" if is_taken else plain


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True


def saved_concepts() -> list[str]:
    """Names of the concepts under the root, in alphabetical order."""
    return sorted(path.parent.name for path in places.concepts_root().glob("*/concept.json"))


def _checked(cls, settings):
    with settings_in_words():
        return cls.model_validate(settings)


@contextlib.contextmanager
def settings_in_words() -> Iterator[None]:
    """Turn what pydantic says of a wrong setting into a sentence that names it and says what would do.

    Raises:
        UserError: a setting can't be used.
    """
    try:
        yield
    except ValidationError as error:
        raise UserError(_sentence(error)) from None


def _sentence(error: ValidationError) -> str:
    first = error.errors()[0]
    places_in = [str(part) for part in first["loc"] if part != "training"]
    where = ".".join(places_in) or "The settings"
    given = "" if isinstance(first["input"], dict) else f" (you gave {first['input']!r})"
    return f"{where}: {_what_to_do(first)}{given}."


def _what_to_do(error: ErrorDetails) -> str:
    if error["type"] in _WHAT_TO_DO:
        return _WHAT_TO_DO[error["type"]].format(**error.get("ctx", {}))
    what = error["msg"].removeprefix("Value error, ").removesuffix(".")
    return f"{what[:1].lower()}{what[1:]}"


def settings_where(**wanted: Any) -> tuple[str, ...]:
    """Names of the training settings that have a role (`shared=True`) or are of a group, in their order.

    The roles are those of `_setting`.
    """
    about = {name: field.json_schema_extra for name, field in TrainingSettings.model_fields.items()}
    return tuple(name for name in about if all(about[name].get(key) == wanted[key] for key in wanted))


def setting_groups() -> dict[str, tuple[str, ...]]:
    """Names of the training settings by their group, as the form shows them."""
    groups = [field.json_schema_extra["group"] for field in TrainingSettings.model_fields.values()]
    return {group: settings_where(group=group) for group in groups}


def setting_help(name: str) -> str:
    """A sentence on a setting, the concept's own or the training's: what it is, in which unit."""
    return (Concept.model_fields | TrainingSettings.model_fields)[name].description
