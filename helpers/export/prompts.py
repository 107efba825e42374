"""A prompt as each program wants it, and what silently loses the word there."""

import re

from ..common.errors import UserError
from ..concept.concept import Concept
from ..inference.prompt_weights import parse_prompt
from .formats import RULES

PROGRAMS = tuple(RULES)
_WORDS = {"comfyui": "embedding:{}", "invokeai": "<{}>"}
# diffusers has no weights of its own: its prompts go through compel, which InvokeAI uses too.
_COMPEL = ("invokeai", "diffusers")
_A1111 = "The word is the file's name, and fires wherever it stands alone: call no concept by a usual word."
WHAT_LOSES_IT = {
    "automatic1111": f"{_A1111} A file of rows of another width is passed over silently.",
    "forge": f"{_A1111} A file of rows of another width is passed over silently.",
    "sdnext": f"{_A1111} It lists .safetensors and .pt only, of the width of the model that is loaded.",
    "comfyui": "Leave a blank before . ! ; and quotes, and use no [ ]: else the word is silently "
    "dropped. Rows of another width are left out with a line in the log.",
    "invokeai": "The word is the name of the model in its list: renamed there, it is another word. Two of "
    "one name: only a warning.",
    "diffusers": "Load the file first. The pipeline reads no weights by itself: give such prompts to compel.",
}


def word_in(concept: Concept, program: str) -> str:
    """What a person types into the program's prompt to mean the concept.

    Raises:
        UserError: the program is not one of ours.
    """
    check_program(program)
    if program == "diffusers":
        return diffusers_word(concept)
    return _WORDS.get(program, "{}").format(concept.file_name)


def prompt_for(concept: Concept, program: str, prompt: str) -> str:
    """A prompt of this series, with its word and its weights, as it is to be pasted into a program.

    Args:
        prompt: as for `generate`: `(a beach:1.2)` and `[a beach]` are weights.

    Raises:
        UserError: the program is not one of ours, or a weight can't be read.
    """
    word = word_in(concept, program)
    parts = parse_prompt(prompt, (concept.placeholder_token,)).parts
    return "".join(
        _weighted(program, _with_word(program, text, concept.placeholder_token, word), weight)
        for text, weight in parts
    )


def check_program(program: str) -> None:
    """Make sure that a program is one of ours.

    Raises:
        UserError: it is not.
    """
    if program not in PROGRAMS:
        raise UserError(f"There is no export for “{program}”: choose one of these: {', '.join(PROGRAMS)}.")


def diffusers_word(concept: Concept) -> str:
    """In lower case: diffusers reads prompts so, and else finds the first of the word's rows only."""
    return concept.placeholder_token.lower()


def _with_word(program: str, text: str, placeholder: str, word: str) -> str:
    """The text with brackets as signs, and the program's word for the placeholder."""
    pieces = re.split(re.escape(placeholder), text, flags=re.IGNORECASE)
    brackets = r"[()]" if program in _COMPEL else r"[()\[\]]"
    pieces = [re.sub(brackets, r"\\\g<0>", piece) for piece in pieces]
    joined = pieces[0]
    for piece in pieces[1:]:
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
