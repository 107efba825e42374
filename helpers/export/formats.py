"""How the files of a word are read: whatever is in them, and what each program makes of them.

`read_word` takes any trainer's file apart. The rules below it are the programs' own, written from their
loaders (AUTOMATIC1111, Forge and SD.Next `create_embedding_from_data`, ComfyUI `load_embed`, InvokeAI
`TextualInversionModelRaw`, diffusers `load_textual_inversion`), so that a file can be read back here as
it will be there.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ..common.errors import UserError
from ..concept.embedding import checked_rows, read_tensors
from .picture import word_in_picture

_XL_KEYS = {"clip_l", "clip_g"}
# By the width of its rows: which text encoder they are for, where the file does not say.
_ENCODERS = {768: "clip_l", 1024: "clip_h", 1280: "clip_g", 4096: "t5xxl"}
_FAMILIES = {
    ("clip_l",): "Stable Diffusion 1.x",
    ("clip_h",): "Stable Diffusion 2.x",
    ("clip_g", "clip_l"): "Stable Diffusion XL",
}
_MINIATURE = 128  # the width of the miniature's rows
_NAMES = {"t5": "t5xxl"}  # OneTrainer's name, and that which ComfyUI looks for
_ANY_ENCODER = {"emb_params", "emp_params", "string_to_param", "*"}
_BUNDLED = re.compile(r"bundle_emb\.(?P<word>.+?)\.(?P<key>string_to_param\.\*|[^.]+)")
_LISTED = re.compile(r"\d+\..+")


@dataclass(frozen=True)
class FoundWord:
    """What a trainer's file holds.

    Attributes:
        rows: tensors (vectors, width) by text encoder: `clip_l`, `clip_g`, `clip_h`, `t5xxl` or as it is
            named there.
        word: what it is called in the file, if it is.
        base_model: the model that it was taught to, if the file says so.
        step: how long it was taught, if the file says so.
        left_out: names of rows that no other program reads: OneTrainer's output rows.
    """

    rows: dict[str, torch.Tensor]
    word: str | None = None
    base_model: str | None = None
    step: int | None = None
    left_out: tuple[str, ...] = ()

    @property
    def family(self) -> str | None:
        """Which Stable Diffusion it fits; None where it is none that the series draws with."""
        widths = [rows.shape[1] for rows in self.rows.values()]
        if widths == [_MINIATURE]:
            return "the miniature"
        if any(_ENCODERS.get(width) != name for name, width in zip(self.rows, widths, strict=True)):
            return None
        return _FAMILIES.get(tuple(sorted(self.rows)))

    def __str__(self) -> str:
        tables = ", ".join(
            f"{name} {len(rows)} x {rows.shape[1]}, norm {rows.float().norm(dim=1).mean():.2f}"
            for name, rows in self.rows.items()
        )
        said = [f"taught to {self.base_model}"] if self.base_model else []
        said += [f"for {self.step} steps"] if self.step else []
        said += [f"left out: {', '.join(self.left_out)}, of OneTrainer alone"] if self.left_out else []
        return "; ".join([f"{self.family or 'a family of its own'}: {tables}", *said])


def read_word(path: Path | str) -> FoundWord:
    """Read any trainer's file: `.safetensors`, a pickle (`.pt`, `.bin`, without its code), or a PNG.

    Raises:
        UserError: it is damaged, holds no rows, or the rows of several words.
    """
    path = Path(path).expanduser()
    content = _content(path)
    try:
        word, tables = _tables(content, path)
    except (AttributeError, TypeError, StopIteration) as error:
        raise _no_rows(path) from error
    left_out = tuple(sorted(name for name in tables if name.endswith("_out")))
    names = [name for name in tables if name not in left_out]
    rows: dict[str, list[torch.Tensor]] = {}
    for name, own in zip(names, checked_rows(path, (tables[name] for name in names)), strict=True):
        rows.setdefault(_encoder(name, own), []).append(own)
    _check_one_word(path, rows, tables)
    about = {**_notes(path), **content}
    return FoundWord(
        {encoder: torch.cat(parts) for encoder, parts in rows.items()},
        word or _text(about, "name"),
        _text(about, "sd_checkpoint_name") or _text(about, "base_model"),
        about["step"] if isinstance(about.get("step"), int) else None,
        left_out,
    )


def _content(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            is_picture = file.read(4) == b"\x89PNG"
    except OSError as error:
        raise UserError(f"{path.name} can't be read ({error.strerror}): give the path of a file.") from error
    return word_in_picture(path) if is_picture else read_tensors(path)


def _tables(content: dict[str, Any], path: Path) -> tuple[str | None, dict[str, Any]]:
    """The word's name, if the keys have it, and what may be rows, by the keys."""
    if "string_to_param" in content:
        return None, {"string_to_param": _only_one(content["string_to_param"], path)}
    bundled = {key: found for key in content if (found := _BUNDLED.fullmatch(key))}
    if bundled:
        words = {found["word"] for found in bundled.values()}
        if len(words) > 1:
            raise UserError(f"{path.name} holds {len(words)} words ({', '.join(sorted(words))}): split it.")
        return words.pop(), {found["key"].split(".")[0]: content[key] for key, found in bundled.items()}
    tensors = {key: value for key, value in content.items() if isinstance(value, torch.Tensor)}
    if len(tensors) == 1 and not _is_encoder(key := next(iter(tensors))):
        return key, tensors
    return None, tensors


def _is_encoder(key: str) -> bool:
    known = {*_ENCODERS.values(), *_NAMES, *_ANY_ENCODER}
    return key.removesuffix("_out") in known or bool(_LISTED.fullmatch(key))


def _encoder(key: str, rows: torch.Tensor) -> str:
    """The text encoder that rows are for: by the key, or by the width where that says nothing."""
    key = _NAMES.get(key, key)
    named = {*_ENCODERS.values()}
    return key if key in named else _ENCODERS.get(rows.shape[1], "clip_l")


def _check_one_word(path: Path, rows: dict[str, list], tables: Iterable[str]) -> None:
    """Lists have the rows of one word in parts; other files that have two tables a width have two words."""
    if any(len(parts) > 1 for parts in rows.values()) and not all(map(_LISTED.fullmatch, tables)):
        raise UserError(f"{path.name} holds several words ({', '.join(tables)}): split it, one word a file.")


def _notes(path: Path) -> dict[str, str]:
    """The texts in a safetensors file's header."""
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError):
        return {}


def _text(about: dict[str, Any], key: str) -> str | None:
    value = about.get(key)
    return value if isinstance(value, str) and value else None


def _no_rows(path: Path) -> UserError:
    return UserError(f"{path.name} holds no rows of a word: choose an embedding's file.")


@dataclass(frozen=True)
class ReadBack:
    """What a program finds in a file.

    `word` is what a person types into that program's prompt, None where they choose it on loading;
    `rows` has a tensor of shape (vectors, width) for each text encoder, for XL CLIP-L's, then CLIP-G's.
    """

    word: str | None
    rows: list[torch.Tensor]


def read_back(path: Path, program: str, widths: Sequence[int]) -> ReadBack:
    """Read an embedding file by a program's rule.

    Args:
        path: a `.safetensors` file, a pickle (`.pt`, `.bin`), which is read with `weights_only`, or a PNG.
        program: one of `RULES`.
        widths: those of the model's text encoders: 768 for 1.x, 1024 for 2.x, 768 and 1280 for XL.

    Raises:
        UserError: that program would not take the file for one embedding of such a model.
    """
    if path.suffix not in SUFFIXES[program]:
        raise UserError(f"{program} does not read {path.name}: it reads {', '.join(SUFFIXES[program])}.")
    tensors = _content(path)
    try:
        word, rows = RULES[program](tensors, path, len(widths))
    except (AttributeError, KeyError, StopIteration, TypeError) as error:
        raise _no_rows(path) from error
    rows = checked_rows(path, rows)
    found = [row.shape[-1] for row in rows]
    if found != list(widths):
        raise UserError(f"{path.name} has rows {found} wide where the model's are {list(widths)}.")
    return ReadBack(word, rows)


def _automatic1111(tensors: dict, path: Path, encoders: int) -> tuple:
    if "string_to_param" in tensors:
        return path.stem, [_only_one(tensors["string_to_param"], path)]
    if set(tensors) >= _XL_KEYS:
        return path.stem, [tensors["clip_l"], tensors["clip_g"]]
    return path.stem, [_only_one(tensors, path)]


def _comfyui(tensors: dict, path: Path, encoders: int) -> tuple:
    """Each text encoder takes the tensor of its name, or else the first one."""
    word = f"embedding:{path.stem}"
    if "string_to_param" in tensors:
        return word, [_first(tensors["string_to_param"])] * encoders
    names = ("clip_l", "clip_g")[:encoders]
    return word, [tensors.get(name, _first(tensors)) for name in names]


def _invokeai(tensors: dict, path: Path, encoders: int) -> tuple:
    word = f"<{path.stem}>"
    if "string_to_param" in tensors:
        _check_named(tensors, path)
        return word, [_first(tensors["string_to_param"])]
    if "emb_params" in tensors:
        return word, [tensors["emb_params"]]
    if set(tensors) >= _XL_KEYS:
        return word, [tensors["clip_l"], tensors["clip_g"]]
    if _first(tensors).ndim != 1:
        raise UserError(f"InvokeAI does not take {path.name} for an embedding: its key must be emb_params.")
    return word, [_first(tensors)]


def _diffusers(tensors: dict, path: Path, encoders: int) -> tuple:
    """A dict of one key, which is the word; XL's two tensors are handed over one by one, with a word."""
    if set(tensors) == _XL_KEYS:
        return None, [tensors["clip_l"], tensors["clip_g"]]
    if "string_to_param" in tensors:
        return tensors["name"], [tensors["string_to_param"]["*"]]
    return next(iter(tensors)), [_only_one(tensors, path)]


def _check_named(tensors: dict, path: Path) -> None:
    if "string_to_token" not in tensors:
        raise UserError(f"InvokeAI does not take {path.name}: string_to_token must be beside its rows.")


def _only_one(tensors: dict, path: Path) -> torch.Tensor:
    if len(tensors) != 1:
        raise UserError(
            f"{path.name} holds {len(tensors)} tensors ({', '.join(tensors)}), not one embedding."
        )
    return _first(tensors)


def _first(tensors: dict) -> torch.Tensor:
    return next(iter(tensors.values()))


RULES = {
    "automatic1111": _automatic1111,
    "forge": _automatic1111,
    "sdnext": _automatic1111,
    "comfyui": _comfyui,
    "invokeai": _invokeai,
    "diffusers": _diffusers,
}

SUFFIXES = {
    **dict.fromkeys(("automatic1111", "forge"), (".safetensors", ".pt", ".bin", ".png")),
    "sdnext": (".safetensors", ".pt"),
    **dict.fromkeys(("comfyui", "invokeai", "diffusers"), (".safetensors", ".pt", ".bin")),
}
