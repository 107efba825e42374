"""The embedding files that programs write and read, and prompts as each program wants them.

The programs' rules follow their loaders (AUTOMATIC1111, Forge and SD.Next `create_embedding_from_data`,
ComfyUI `load_embed`, InvokeAI `TextualInversionModelRaw`, diffusers `load_textual_inversion`), so that a
file is read back here as it will be there.

A file, a program or a prompt that can't be used is a `UserError`.
"""

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image, PngImagePlugin
from safetensors import SafetensorError, safe_open

from ..common.errors import UserError
from ..common.places import find_path
from ..common.sheets import packed
from ..concept.concept import Concept
from ..concept.embedding import NAMELESS, Rows, checked_rows, no_rows_error, read_tensors
from ..inference.prompt_weights import parse_prompt

# The text encoder that rows are for, by their width, where the file does not say.
_MINIATURE_WIDTH = 128
_ENCODERS = {_MINIATURE_WIDTH: "clip_l", 768: "clip_l", 1024: "clip_h", 1280: "clip_g", 4096: "t5xxl"}
_FAMILIES = {
    ("clip_l",): "Stable Diffusion 1.x",
    ("clip_h",): "Stable Diffusion 2.x",
    ("clip_g", "clip_l"): "Stable Diffusion XL",
}
_ENCODER_ALIASES = {"t5": "t5xxl"}  # OneTrainer's name and ComfyUI's
_ANY_ENCODER = {"emb_params", "emp_params", "string_to_param", "*"}
_BUNDLED = re.compile(r"bundle_emb\.(?P<word>.+?)\.(?P<key>string_to_param\.\*|[^.]+)")
_NUMBERED = re.compile(r"\d+\..+")


@dataclass(frozen=True)
class FoundWord:
    """The contents of a trainer's file; None for what it does not say."""

    rows: dict[str, torch.Tensor]  # (vectors, width) by text encoder: `clip_l`, `clip_g` and so on
    word: str | None
    base_model: str | None  # that it was learned on
    step: int | None  # of training
    left_out: tuple[str, ...]  # names of rows that no other program reads: OneTrainer's output rows

    @property
    def family(self) -> str | None:
        """The Stable Diffusion family that it fits; None for models that this series can't draw with."""
        widths = [rows.shape[1] for rows in self.rows.values()]
        if widths == [_MINIATURE_WIDTH]:
            return "the miniature"
        if any(_ENCODERS.get(width) != name for name, width in zip(self.rows, widths, strict=True)):
            return None
        return _FAMILIES.get(tuple(sorted(self.rows)))

    def __str__(self) -> str:
        tables = ", ".join(
            f"{name} {len(rows)} x {rows.shape[1]}, norm {rows.float().norm(dim=1).mean():.2f}"
            for name, rows in self.rows.items()
        )
        about = [f"taught to {self.base_model}"] if self.base_model else []
        about += [f"for {self.step} steps"] if self.step else []
        about += [f"left out: {', '.join(self.left_out)}, of OneTrainer alone"] if self.left_out else []
        return "; ".join([f"{self.family or 'another kind of model'}: {tables}", *about])


def read_word(path: Path | str) -> FoundWord:
    """Read any trainer's file: `.safetensors`, a pickle (`.pt`, `.bin`; no code in it runs), or a PNG."""
    path, given = find_path(path), path
    if not (path and path.is_file()):
        raise UserError(f"There is no file {str(given)[-80:]}: give the path of one.")
    content = _content(path)
    try:
        word, tables = _tables(content, path)
    except (AttributeError, TypeError, StopIteration) as error:
        raise no_rows_error(path) from error
    left_out = tuple(sorted(name for name in tables if name.endswith("_out")))
    names = [name for name in tables if name not in left_out]
    rows: dict[str, list[torch.Tensor]] = {}
    for name, own in zip(names, checked_rows(path, (tables[name] for name in names)), strict=True):
        rows.setdefault(_encoder_of(name, own.shape[1], path), []).append(own)
    # Numbered keys hold the rows of one word in parts; otherwise two tensors of one width are two words.
    if any(len(parts) > 1 for parts in rows.values()) and not all(map(_NUMBERED.fullmatch, tables)):
        first, *others = tables
        raise UserError(
            f"{path.name} holds several words ({first} and {len(others)} more), or is no word's file: split "
            "it, one file per word, or choose an embedding's file."
        )
    about = {**_notes(path), **content}
    texts = {key: value for key, value in about.items() if isinstance(value, str) and value}
    return FoundWord(
        rows={encoder: torch.cat(parts) for encoder, parts in rows.items()},
        word=word or texts.get("name"),
        base_model=texts.get("sd_checkpoint_name") or texts.get("base_model"),
        step=about["step"] if isinstance(about.get("step"), int) else None,
        left_out=left_out,
    )


def _encoder_of(name: str, width: int, path: Path) -> str:
    """The text encoder that rows are for, by their key, or by their width; else the key itself."""
    encoder, by_width = _ENCODER_ALIASES.get(name, name), _ENCODERS.get(width)
    if encoder not in _ENCODERS.values():
        return by_width or encoder
    if by_width not in (encoder, None):
        raise UserError(f"{path.name} is damaged: its {name} has the width of {by_width}. Fetch it again.")
    return encoder


def _content(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            is_picture = file.read(4) == b"\x89PNG"
    except OSError as error:
        raise UserError(f"{path.name} can't be read ({error.strerror}): give the path of a file.") from error
    return _word_in_picture(path) if is_picture else read_tensors(path)


def _tables(content: dict[str, Any], path: Path) -> tuple[str | None, dict[str, Any]]:
    """The word, if a key names it, and the candidates for its rows, by key."""
    if "string_to_param" in content:
        return None, {"string_to_param": _only_one(content["string_to_param"], path)}
    bundled = {key: found for key in content if (found := _BUNDLED.fullmatch(key))}
    if bundled:
        words = {found["word"] for found in bundled.values()}
        if len(words) > 1:
            raise UserError(f"{path.name} holds {len(words)} words ({', '.join(sorted(words))}): split it.")
        return words.pop(), {found["key"].split(".")[0]: content[key] for key, found in bundled.items()}
    tensors = {key: value for key, value in content.items() if isinstance(value, torch.Tensor)}
    key = next(iter(tensors), "")
    says_which = key.removesuffix("_out") in {*_ENCODERS.values(), *_ENCODER_ALIASES, *_ANY_ENCODER}
    is_word = len(tensors) == 1 and not says_which and not _NUMBERED.fullmatch(key)
    return key if is_word else None, tensors


def _notes(path: Path) -> dict[str, str]:
    """The texts in a safetensors file's header."""
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError):
        return {}


# A word inside a picture: AUTOMATIC1111 puts base64-encoded JSON into a text chunk of the PNG, and reads that
# first (`modules/textual_inversion`). Its second copy, in the pixels, is neither written nor read here.
_CHUNK = "sd-ti-embedding"
_TENSOR = "TORCHTENSOR"
_SIZE = (512, 256)  # pixels


def word_picture(content: dict[str, Any], rows: torch.Tensor) -> bytes:
    """A PNG file that holds a word.

    Args:
        content: as in a `.pt` file of AUTOMATIC1111: tensors, numbers, texts and dictionaries.
        rows: (vectors, width), shown as stripes: red for positive numbers, blue for negative ones.
    """
    text = json.dumps(content, default=lambda tensor: {_TENSOR: tensor.tolist()}).encode()
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text(_CHUNK, base64.b64encode(text).decode())
    fraction = (rows.float() / rows.abs().max().clamp(min=1e-9)).numpy()
    red, blue = np.clip(1 + fraction, 0, 1), np.clip(1 - fraction, 0, 1)
    colours = np.stack([red, np.minimum(red, blue), blue], axis=-1)
    stripes = Image.fromarray((255 * colours).astype(np.uint8))
    return packed(stripes.resize(_SIZE, Image.Resampling.NEAREST), pnginfo=chunks)


def _word_in_picture(path: Path) -> dict[str, Any]:
    def tensors(part: dict[str, Any]) -> Any:
        return torch.tensor(part[_TENSOR]) if _TENSOR in part else part

    try:
        with Image.open(path) as image:
            text = base64.b64decode(image.info[_CHUNK])
        return dict(json.loads(text, object_hook=tensors))
    except (OSError, KeyError, TypeError, ValueError, Image.DecompressionBombError) as error:
        raise UserError(
            f"{path.name} is a picture without a word in it: choose an embedding's file."
        ) from error


# Each program's own rule: the rows for each text encoder from a file's contents.


def _automatic1111(tensors: dict, path: Path, encoders: int) -> list:
    if "string_to_param" in tensors:
        return [_only_one(tensors["string_to_param"], path)]
    return _of_xl(tensors) or [_only_one(tensors, path)]


def _comfyui(tensors: dict, path: Path, encoders: int) -> list:
    """Each text encoder takes the tensor of its name, or else the first one."""
    if "string_to_param" in tensors:
        return [_first(tensors["string_to_param"])] * encoders
    return [tensors.get(name, _first(tensors)) for name in ("clip_l", "clip_g")[:encoders]]


def _invokeai(tensors: dict, path: Path, encoders: int) -> list:
    if "string_to_param" in tensors:
        if "string_to_token" not in tensors:
            raise UserError(f"InvokeAI does not take {path.name}: string_to_token must be beside its rows.")
        return [_first(tensors["string_to_param"])]
    if "emb_params" in tensors:
        return [tensors["emb_params"]]
    if not _of_xl(tensors) and _first(tensors).ndim != 1:
        raise UserError(f"InvokeAI does not take {path.name} for an embedding: its key must be emb_params.")
    return _of_xl(tensors) or [_first(tensors)]


def _diffusers(tensors: dict, path: Path, encoders: int) -> list:
    """One key; XL's two tensors are loaded one by one."""
    if "string_to_param" in tensors:
        return [tensors["string_to_param"]["*"]]
    return (_of_xl(tensors) if len(tensors) == 2 else []) or [_only_one(tensors, path)]


def _of_xl(tensors: dict) -> list:
    return [tensors[key] for key in ("clip_l", "clip_g")] if {*tensors} >= {"clip_l", "clip_g"} else []


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
PROGRAMS = tuple(RULES)
SUFFIXES = {
    **dict.fromkeys(("automatic1111", "forge"), (".safetensors", ".pt", ".bin", ".png")),
    "sdnext": (".safetensors", ".pt"),
    **dict.fromkeys(("comfyui", "invokeai", "diffusers"), (".safetensors", ".pt", ".bin")),
}
_TYPED_AS = {"comfyui": "embedding:{}", "invokeai": "<{}>"}  # elsewhere the file's name alone


class ReadBack(NamedTuple):
    """What a program finds in a file: the word as typed there, and `Rows` in the file's number format.

    The word is None where a person chooses it while loading.
    """

    word: str | None
    rows: Rows


def read_back(path: Path, program: str, widths: Sequence[int]) -> ReadBack:
    """Read an embedding file by a program's rule; UserError where it would not take the file.

    Args:
        widths: of the model's text encoders: 768 for 1.x, 1024 for 2.x, 768 and 1280 for XL.
    """
    check_program(program)
    if path.suffix not in SUFFIXES[program]:
        raise UserError(f"{program} does not read {path.name}: it reads {', '.join(SUFFIXES[program])}.")
    tensors = _content(path)
    if NAMELESS in tensors and program != "diffusers":
        raise UserError(f"{program} does not read {path.name}: it is a tensor without a key.")
    try:
        rows = RULES[program](tensors, path, len(widths))
        word = _TYPED_AS.get(program, "{}").format(path.stem)
        if program == "diffusers":
            word = tensors["name"] if "string_to_param" in tensors else next(iter(tensors))
            word = None if len(rows) > 1 else word or None
    except (AttributeError, KeyError, StopIteration, TypeError) as error:
        raise no_rows_error(path) from error
    rows = checked_rows(path, rows)
    found = [row.shape[-1] for row in rows]
    if found != list(widths):
        raise UserError(f"{path.name} has rows of width {found}, and the model needs {list(widths)}.")
    return ReadBack(word, rows)


# A prompt as each program wants it, and what makes it lose the word without saying so.
# diffusers has no weights of its own: its prompts go through compel, as InvokeAI's do.
_COMPEL = ("invokeai", "diffusers")
_A1111 = "The word is the file's name, and works wherever it stands alone: don't use a common word."
WHAT_LOSES_IT = {
    "automatic1111": f"{_A1111} A file whose rows have another width is silently skipped.",
    "forge": f"{_A1111} A file whose rows have another width is silently skipped.",
    "sdnext": f"{_A1111} It lists .safetensors and .pt only, of the width of the model that is loaded.",
    "comfyui": "Leave a space before . ! ; and quotes, and use no [ ]: otherwise the word is silently "
    "dropped. Rows of another width are skipped, with a line in the log.",
    "invokeai": "The word is the model's name in its list: if you rename it there, the word changes. Two "
    "of one name only give a warning.",
    "diffusers": "Load the file first. The pipeline alone ignores weights: give such prompts to compel.",
}


def check_program(program: str) -> None:
    if program not in PROGRAMS:
        raise UserError(f"There is no export for “{program}”: choose one of these: {', '.join(PROGRAMS)}.")


def diffusers_word(concept: Concept) -> str:
    """In lower case, as diffusers reads prompts: otherwise it finds only the first of the word's rows."""
    return concept.placeholder_token.lower()


def word_in(concept: Concept, program: str) -> str:
    """What to type into the program's prompt for the concept's word."""
    check_program(program)
    if program == "diffusers":
        return diffusers_word(concept)
    return _TYPED_AS.get(program, "{}").format(concept.file_name)


def prompt_for(concept: Concept, program: str, prompt: str) -> str:
    """A prompt of this series, with its word and weights (as for `generate`), in a program's own syntax."""
    word, placeholder = word_in(concept, program), concept.placeholder_token
    parts = parse_prompt(prompt, (placeholder,)).parts
    texts = [(_with_word(program, text, placeholder, word), weight) for text, weight in parts]
    return "".join(_weighted(program, text, weight) for text, weight in texts)


def _with_word(program: str, text: str, placeholder: str, word: str) -> str:
    """The text with escaped brackets, and the program's word for the placeholder."""
    brackets = r"[()]" if program in _COMPEL else r"[()\[\]]"
    pieces = re.split(re.escape(placeholder), text, flags=re.IGNORECASE)
    joined, *others = [re.sub(brackets, r"\\\g<0>", piece) for piece in pieces]
    for piece in others:
        if program == "comfyui":  # it reads a word from blank to blank, or to a comma
            joined += " " if joined and not joined[-1].isspace() else ""
            piece = f" {piece}" if piece and not re.match(r"[\s,]", piece) else piece
        joined += word + piece
    return joined


def _weighted(program: str, text: str, weight: float) -> str:
    if weight == 1 or not text.strip():
        return text
    before, own, after = re.fullmatch(r"(\s*)(.*?)(\s*)", text, re.DOTALL).groups()
    inside = f"({own}){weight:g}" if program in _COMPEL else f"({own}:{weight:g})"
    return before + inside + after
