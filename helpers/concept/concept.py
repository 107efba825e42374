"""A concept: what to teach, with which word, on which model, and how. One folder each.

A setting, a name or a file that can't be used raises a `UserError` that names it and says what can.
"""

import contextlib
import json
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from ..common import places
from ..common.errors import UserError, valid_unicode
from ..common.files import write_whole
from .templates import SHIPPED_TEMPLATES

SETTINGS_FILE, LOCK_FILE = "concept.json", ".training.lock"
FIRST_CONCEPT = "grooty"  # with which the series begins; its pictures are shipped
_MINIATURE, _TOY = "miniature", "toy"
_NAME = re.compile("[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)", re.IGNORECASE)  # by Windows: no file can have it
# What to give in place of a wrong setting, by pydantic's name of the error.
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


@contextlib.contextmanager
def settings_in_words() -> Iterator[None]:
    """Turn pydantic's error about a setting into a `UserError`."""
    try:
        yield
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part != "training") or "The settings"
        said = first["msg"].removeprefix("Value error, ").removesuffix(".")
        todo = _WHAT_TO_DO.get(first["type"], f"{said[:1].lower()}{said[1:]}")
        if first["type"] in _WHAT_TO_DO:
            todo = todo.format(**first.get("ctx", {}))
        given = "" if isinstance(first["input"], dict) else f" (you gave {first['input']!r})"
        raise UserError(f"{where}: {todo}{given}.") from None


class Settings(BaseModel):
    """Settings that a person types, also checked on assignment.

    The text under a setting is its help: what it is, in which unit, and when to change it.
    """

    model_config = ConfigDict(
        extra="forbid", validate_assignment=True, allow_inf_nan=False, use_attribute_docstrings=True
    )

    def __setattr__(self, name: str, value: Any) -> None:
        with settings_in_words():
            super().__setattr__(name, value)


# Groups of the training settings in the form of notebook 2.
PICTURES, LENGTH, OPTIMIZER = "Pictures", "Length of the run", "Optimizer"
LOSS, MACHINE = "Loss", "Machine"


def _setting(group: str, default: Any, roles: str = "", **limits: Any) -> Any:
    """A training setting.

    Args:
        roles: some of `shared` (the same for words that are taught in one run), `may_change` (a stopped
            run can go on with another value), `speed` and `memory` (it affects a step's time and memory).
        limits: as pydantic's `Field` takes them, for example `gt=0`.
    """
    return Field(default, json_schema_extra={"group": group, **dict.fromkeys(roles.split(), True)}, **limits)


class TrainingSettings(Settings):
    """The hyperparameters. Names are those of diffusers' `textual_inversion.py` where it has them."""

    resolution: int | None = _setting(PICTURES, None, "shared speed memory", ge=32, le=2048, multiple_of=8)
    """side of the pictures in pixels; empty: what the model draws"""
    interpolation: Literal["linear", "bilinear", "bicubic", "lanczos"] = _setting(PICTURES, "bicubic")
    """how pictures are brought to that size"""
    center_crop: bool = _setting(PICTURES, True)
    """cut the largest square from the middle; off: squeeze"""
    random_crop: bool = _setting(PICTURES, False, "speed memory")
    """a different square each time; slow, because it encodes at every step"""
    flip_probability: float = _setting(PICTURES, 0.5, ge=0, le=1)
    """share of pictures that are mirrored, 0 to 1; 0 for writing"""

    max_train_steps: int = _setting(LENGTH, 600, "may_change", gt=0)
    """upper limit of steps; a run may end sooner"""
    stop_when_learned: bool = _setting(LENGTH, True, "may_change")
    """end when the fixed loss no longer falls"""
    evaluate_every: int = _setting(LENGTH, 20, gt=0)
    """steps between two looks at the fixed loss"""
    sample_every: int = _setting(LENGTH, 100, "may_change", ge=0)
    """steps between two strips of samples, at first a quarter of that; 0: none"""
    checkpoint_every: int = _setting(LENGTH, 50, "may_change", gt=0)
    """steps between two saved states, of which the best becomes the result"""
    # A run uses this seed and the next three.
    seed: int = _setting(LENGTH, 42, ge=-(2**63), lt=2**63)
    """of all random numbers: the same seed, the same run; -1 is a seed like any other, not a random one"""

    train_batch_size: int = _setting(OPTIMIZER, 4, "shared speed memory", gt=0, le=10_000)
    """pictures a step; less takes less memory"""
    gradient_accumulation_steps: int = _setting(OPTIMIZER, 1, "shared speed", gt=0)
    """batches before the word is moved"""
    learning_rate: float | None = _setting(OPTIMIZER, None, gt=0, lt=1)
    """length of a step; empty: eight tenths of the initializer's numbers"""
    scale_lr: bool = _setting(OPTIMIZER, False)
    """multiply it by batch, accumulation and processes"""
    lr_scheduler: Literal[
        "constant",
        "constant_with_warmup",
        "linear",
        "cosine",
        "cosine_with_restarts",
        "polynomial",
        "piecewise_constant",
        "inverse_time",
    ] = _setting(OPTIMIZER, "inverse_time")
    """how it changes during the run; inverse_time falls, and needs no known end"""
    lr_warmup_steps: int = _setting(OPTIMIZER, 10, ge=0)
    """steps until it is at its full length"""
    weight_decay: float = _setting(OPTIMIZER, 0.0, ge=0)
    """pull of the rows towards 0 at each step"""
    max_grad_norm: float | None = _setting(OPTIMIZER, 1.0, gt=0)
    """longest gradient; empty: any"""
    use_8bit_adam: bool = _setting(OPTIMIZER, False)
    """bitsandbytes' optimizer; rows are so small that it saves nothing"""

    snr_gamma: float | None = _setting(LOSS, None, gt=0)
    """min-SNR weight of the timesteps, 5 is usual; empty: all the same"""
    norm: Literal["free", "hold", "decay"] = _setting(LOSS, "hold")
    """length of the rows: held, so that other words keep their say; free; or drawn back to its start"""
    first_timestep: int = _setting(LOSS, 0, ge=0, le=999)
    """least noise that is trained on, 0 to 999"""
    last_timestep: int = _setting(LOSS, 999, ge=0, le=999)
    """most noise that is trained on, 0 to 999"""
    timesteps_per_picture: int = _setting(LOSS, 1, "shared speed memory", gt=0, le=10_000)
    """noise levels of one picture in a batch"""

    num_processes: int = _setting(MACHINE, 1, "may_change", gt=0)
    """one for each GPU"""
    mixed_precision: Literal["auto", "no", "fp16", "bf16"] = _setting(MACHINE, "auto", "shared speed")
    """number format of the frozen model; auto looks at the machine"""
    gradient_checkpointing: bool = _setting(MACHINE, False, "shared may_change speed memory")
    """less memory, more time"""
    compile: bool = _setting(MACHINE, False, "shared may_change speed")
    """quicker steps, once it has compiled"""
    quantize: Literal["no", "8bit", "4bit"] = _setting(MACHINE, "no", "shared speed memory")
    """hold the frozen UNet in 8 or 4 bit: less memory"""
    save_pipeline: bool = _setting(MACHINE, False, "may_change")
    """also save the whole pipeline with the word in it"""

    @model_validator(mode="after")
    def _timesteps_in_order(self):
        if self.first_timestep > self.last_timestep:
            raise ValueError("first_timestep must not be larger than last_timestep")
        return self


def settings_where(**wanted: Any) -> tuple[str, ...]:
    """Names of the training settings with a role of `_setting` (`shared=True`), or in a `group`."""
    about = {name: field.json_schema_extra for name, field in TrainingSettings.model_fields.items()}
    return tuple(name for name in about if all(about[name].get(key) == wanted[key] for key in wanted))


def setting_groups() -> dict[str, tuple[str, ...]]:
    """Names of the training settings by their group, as the form shows them."""
    return {group: settings_where(group=group) for group in (PICTURES, LENGTH, OPTIMIZER, LOSS, MACHINE)}


def setting_help(name: str) -> str:
    """The help of a setting, the concept's own or the training's."""
    return (Concept.model_fields | TrainingSettings.model_fields)[name].description


def can_be_a_name(name: str) -> bool:
    """Whether a concept can have that name: its folder has it, on any operating system."""
    return bool(_NAME.fullmatch(name)) and not _RESERVED.fullmatch(name)


def _checked_name(name: str) -> str:
    if _RESERVED.fullmatch(name):
        raise ValueError("choose another, Windows keeps this name for itself")
    if not can_be_a_name(name):
        raise ValueError("use letters, digits, - and _ only, without accents, for example grooty")
    return name


def _checked_word(word: str) -> str:
    if not word or word != "".join(word.split()):
        raise ValueError("use one word without spaces, for example <grooty>")
    return word


def _checked_sentences(sentences: list[str]) -> list[str]:
    for sentence in map(valid_unicode, sentences):
        if sentence.count("{}") != 1:
            raise ValueError(f"put exactly one {{}} into the sentence “{sentence}”: it stands for your word")
    return sentences


def _inside(name: str) -> Any:
    """The path of that name in a concept's folder, as a property."""
    return property(lambda concept: concept.folder / name)


Text = Annotated[str, AfterValidator(valid_unicode)]


class Concept(Settings):
    """The settings of one concept, stored in `<root>/<name>/concept.json`.

    Everything else about the concept is beside that file: see `images_folder` and the properties after it.
    Change a setting by assignment, then `save()`. No file repeats the name: it is the folder's.

    Attributes:
        initializer_token: empty until somebody chooses it; training needs it.
        earlier_words: placeholders from before a rename, which prompts of saved pictures may contain.
    """

    name: Annotated[str, AfterValidator(_checked_name)]
    what_to_teach: Literal["object", "style"] = "object"
    """a thing, or a style; decides which sentences are used"""
    placeholder_token: Annotated[Text, AfterValidator(_checked_word)]
    """your new word; brackets keep it apart from words that exist"""
    initializer_token: Annotated[Text, AfterValidator(lambda text: text.strip())] = ""
    """the word that it starts from: the kind of thing that you teach"""
    vectors: int = Field(2, ge=1, le=32)
    """rows of numbers for the word; more hold more detail, and listen less to the prompt"""
    base_model: Text = _MINIATURE
    """miniature, a hub id, a folder, or a .safetensors or .ckpt file"""
    own_templates: Annotated[list[str], AfterValidator(_checked_sentences)] = []
    """your own sentences, added to the usual ones"""
    earlier_words: list[Text] = []
    learned_elsewhere: Text = ""
    """what its file says, of a word that was not taught here"""
    training: TrainingSettings = TrainingSettings()

    @classmethod
    def make(cls, name: str, **settings) -> "Concept":
        """A new concept; by default the placeholder is `<name>`, the initializer `toy` or empty."""
        settings.setdefault("placeholder_token", f"<{name}>")
        initializer = _default_initializer(name, settings.get("base_model", _MINIATURE))
        with settings_in_words():
            return cls.model_validate({"name": name, "initializer_token": initializer, **settings})

    @classmethod
    def load(cls, name: str) -> "Concept":
        """Read `<root>/<name>/concept.json`."""
        if name not in saved_concepts():
            raise UserError(
                f"There is no concept “{name}” in {places.concepts_root().name}/ yet: run notebook 2 first, "
                f"or choose one of these: {', '.join(saved_concepts()) or '(none yet)'}."
            )
        return cls.read(places.concepts_root() / name / SETTINGS_FILE)

    @classmethod
    def read(cls, path: Path) -> "Concept":
        """Read a `concept.json` anywhere; its folder's name is the concept's."""
        name = path.parent.name
        if not can_be_a_name(name):
            raise UserError(
                f"No concept can be called “{name}”: rename its folder, with letters, digits, - and _ only, "
                "without accents."
            )
        _check_is_no_folder(path)
        try:
            settings = json.loads(path.read_bytes().decode("utf-8-sig"))
            with settings_in_words():
                return cls.model_validate({**settings, "name": name})
        except UserError as error:
            problem = f"can't be used; another version may have written it. {error} Correct it"
        except OSError as error:
            problem = f"can't be read ({error.strerror}): check its permissions"
        except (ValueError, TypeError, RecursionError):  # no JSON, or no settings
            problem = "is damaged: repair it"
        raise UserError(f"concept.json {problem}, or delete it and run notebook 2 again.")

    @classmethod
    def open(cls, name: str, default_base_model: str = _MINIATURE, **settings) -> "Concept":
        """The saved concept of that name, or a new one, with some settings replaced.

        The miniature's default initializer, `toy`, is not kept for another model.

        Args:
            default_base_model: for a new concept, unless `settings` has one.
            settings: as for `changed`; those that are None stay as they are.
        """
        is_saved = name in saved_concepts()
        concept = cls.load(name) if is_saved else cls.make(name, base_model=default_base_model)
        given = {key: value for key, value in settings.items() if value is not None}
        leaves_miniature = concept.base_model == _MINIATURE != given.get("base_model", _MINIATURE)
        if leaves_miniature and concept.initializer_token == _TOY:
            given.setdefault("initializer_token", _default_initializer(name, given["base_model"]))
        return concept.changed(**given)

    def changed(self, training: dict | TrainingSettings | None = None, **settings) -> "Concept":
        """A checked copy with some settings replaced; of `training`, those in a dict, or all."""
        old = self.model_dump()
        if isinstance(training, dict | None):
            training = {**old["training"], **(training or {})}
        with settings_in_words():
            return Concept.model_validate({**old, **settings, "training": training})

    def save(self) -> Path:
        """Write `concept.json`, whole or not at all, and return its path."""
        path = places.make_folder(self.folder) / SETTINGS_FILE
        _check_is_no_folder(path)
        return write_whole(path, self.model_dump_json(indent=2, exclude={"name"}) + "\n")

    def with_present_word(self, prompt: str) -> str:
        """A prompt with the word in place of those that the concept had before a rename."""
        for word in self.earlier_words:
            alone = rf"(?<!\w){re.escape(word)}(?!\w)"
            prompt = re.sub(alone, lambda _: self.placeholder_token, prompt, flags=re.IGNORECASE)
        return prompt

    def is_in(self, prompt: str) -> bool:
        """Whether a prompt has the word, in capitals or not."""
        return normalized(self.placeholder_token) in normalized(prompt)

    @property
    def file_name(self) -> str:
        """The name of its files for other programs, most of which use it as the word."""
        return usable_name(self.name)

    @property
    def folder(self) -> Path:
        return places.concepts_root() / self.name

    images_folder = _inside("images")
    training_folder = _inside("training")
    grids_folder = _inside("grids")
    export_folder = _inside("export")
    report_path = _inside("report.html")
    lock_path = _inside(LOCK_FILE)  # held while the word is being learned; see `files.locked`
    embeds_path = _inside("learned_embeds.safetensors")  # the result of training, as diffusers reads it

    @property
    def templates(self) -> tuple[str, ...]:
        """The shipped sentences, then the person's own."""
        return (*SHIPPED_TEMPLATES[self.what_to_teach], *self.own_templates)

    @property
    def placeholder_tokens(self) -> list[str]:
        """One token per vector; see `row_names`."""
        return row_names(self.placeholder_token, self.vectors)


def composed(text: str) -> str:
    """Accented letters as one character each, as a tokenizer normalizes all text."""
    return unicodedata.normalize("NFC", text)


def normalized(text: str) -> str:
    """A word, or a text with it, as a tokenizer compares it: with composed accents, in lower case."""
    return composed(text).lower()


def row_names(word: str, vectors: int) -> list[str]:
    """One token per vector, as diffusers' `load_textual_inversion` names them: `<g>`, `<g>_1`, `<g>_2`."""
    return [word, *(f"{word}_{number}" for number in range(1, vectors))]


def saved_concepts() -> list[str]:
    """Names of the concepts under the root, in alphabetical order."""
    return sorted(path.parent.name for path in places.concepts_root().glob(f"*/{SETTINGS_FILE}"))


def usable_name(name: str) -> str:
    """The name itself, or another one if some program can't use it as a word.

    AUTOMATIC1111 splits prompts at `AND` and `BREAK`, and finds `42` within `142`; ComfyUI reads a number
    (`1e5`, `nan`) as a weight, and ends a word at a space or a dot; InvokeAI allows Latin letters only.
    """
    plain = re.sub(r"[^A-Za-z0-9_-]+", "_", name)
    is_taken = re.search(r"\b(AND|BREAK)\b", plain)
    with contextlib.suppress(ValueError):
        float(plain)
        is_taken = True
    return f"{plain.lower()}_word" if is_taken else plain


def _default_initializer(name: str, base_model: str) -> str:
    """`toy` where it must fit: the miniature draws nothing else, and the series' own pictures show one."""
    return _TOY if base_model == _MINIATURE or name == FIRST_CONCEPT else ""


def _check_is_no_folder(path: Path) -> None:
    if path.is_dir():
        raise UserError(f"{path.name} is a folder: give it another name, then run notebook 2 again.")
