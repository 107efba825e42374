"""Prompts that a base model can follow, `{}` standing for the word: the one place that chooses them."""

import re
from dataclasses import dataclass
from typing import Any

from IPython.display import HTML

from ..common.errors import UserError
from ..common.sheets import html_table
from ..concept.concept import Concept
from ..concept.templates import MINIATURE_PLACES, MINIATURE_THINGS_ON
from ..model.base_model import MINIATURE


@dataclass(frozen=True)
class ExamplePrompts:
    """A prompt to begin with, variations of several kinds, and the guidance that suits the model."""

    own: str
    scenes: tuple[str, ...]
    styles: tuple[str, ...]
    accessories: tuple[str, ...]
    guidance: float

    @property
    def mixed(self) -> tuple[str, ...]:
        """A few of each kind: for a quick look at how well a word obeys."""
        return (*self.scenes[:3], *self.accessories[:1], *self.styles[:1])


# What the miniature's captions say, word for word: a test compares them.
_PLACES = MINIATURE_PLACES[:9]
_STYLES = ("a pencil sketch", "neon", "pixel art", "a blueprint", "a watercolor")
# All that the miniature can be asked to draw.
MINIATURE_KNOWS = {
    "Colours": "red, orange, yellow, green, teal, blue, purple, pink, brown, white",
    "Toys": "round, tall, square, star, cone, cloud; plain, spotted, striped, with a red belly",
    "Ears": "cat ears, bunny ears, horns, antenna, leaves",
    "Eyes": "big eyes, small eyes, sleepy eyes, one eye",
    "Things": ", ".join(MINIATURE_THINGS_ON),
    "Places": ", ".join(_PLACES),
    "In the style of": ", ".join(_STYLES),
    "Photos": "small, large, close-up, dark, bright",
}
# Its tokenizer has these as one token, to start a word from, but no picture of it was described by them.
_NEVER_DRAWN = frozenset(
    """doll robot dog bear rabbit monster animal creature person object thing figure figurine statue sticker
    drawing image portrait groot plant tree character sepia black gray gold silver this that their his her or
    two three happy sad old new""".split()
)

# Kinds of thing, for a model that knows the words of the web.
_KINDS = """toy doll robot figurine statue cat dog bird horse bear rabbit animal monster car boat chair lamp
cup bag shoe hat ring clock book house tree plant flower food man woman child face""".split()
_KINDS_OF_STYLE = "painting drawing sketch photo cartoon watercolor comic poster mosaic collage".split()

_MINIATURE_OBJECT = ExamplePrompts(
    own="a photo of a {} wearing a scarf on a beach",
    scenes=tuple(f"a photo of a {{}} {place}" for place in _PLACES),
    styles=tuple(f"a photo of a {{}}, in the style of {style}" for style in _STYLES),
    accessories=tuple(f"a photo of a {{}} {thing}" for thing in MINIATURE_THINGS_ON),
    guidance=4.0,
)
_MINIATURE_STYLE = ExamplePrompts(
    own="a photo of a red round toy on a beach, in the style of {}",
    scenes=tuple(f"a photo of a blue toy {place}, in the style of {{}}" for place in _PLACES[:5]),
    styles=tuple(
        f"a photo of a {color} toy, in the style of {{}}" for color in ("red", "yellow", "green", "blue")
    ),
    accessories=tuple(f"a photo of a toy {thing}, in the style of {{}}" for thing in MINIATURE_THINGS_ON),
    guidance=4.0,
)
# The first is the source tutorial's.
_STABLE_DIFFUSION_OBJECT = ExamplePrompts(
    own="a translucent jade chinese figurine of {}, HDR, productshot render, Cinema4D, caustics",
    scenes=tuple(
        f"a photo of {{}} {place}"
        for place in ("on a beach", "in the snow", "at night in a city", "in a forest", "on a kitchen table")
    ),
    styles=tuple(
        f"{style} of {{}}"
        for style in ("a pencil sketch", "an oil painting", "a watercolor", "pixel art", "a line drawing")
    ),
    accessories=tuple(
        f"a photo of {{}} {accessory}"
        for accessory in ("wearing a red scarf", "wearing a crown", "wearing a bow tie")
    ),
    guidance=7.5,
)
_STABLE_DIFFUSION_STYLE = ExamplePrompts(
    own="a lighthouse on a cliff, in the style of {}",
    scenes=tuple(
        f"{view}, in the style of {{}}"
        for view in ("a beach at sunset", "a village in the snow", "a city at night", "a forest", "a kitchen")
    ),
    styles=tuple(
        f"{subject}, in the style of {{}}" for subject in ("a portrait", "a cat", "a bowl of fruit")
    ),
    accessories=tuple(
        f"a dog {accessory}, in the style of {{}}" for accessory in ("wearing a scarf", "wearing a crown")
    ),
    guidance=7.5,
)


def examples_for(concept: Concept) -> ExamplePrompts:
    """Prompts for what a concept teaches, on its base model."""
    if concept.base_model == MINIATURE:
        return _MINIATURE_OBJECT if concept.what_to_teach == "object" else _MINIATURE_STYLE
    return _STABLE_DIFFUSION_OBJECT if concept.what_to_teach == "object" else _STABLE_DIFFUSION_STYLE


def words_to_start_from(concept: Concept) -> list[str]:
    """Words that mean things to the concept's model, of which one may be near to what is taught."""
    is_object = concept.what_to_teach == "object"
    if concept.base_model != MINIATURE:
        return _KINDS if is_object else _KINDS_OF_STYLE
    looks = f"toy, {MINIATURE_KNOWS['Colours']}, {MINIATURE_KNOWS['Toys'].partition(' with')[0]}"
    return re.findall(r"[a-z]{3,}", looks if is_object else MINIATURE_KNOWS["In the style of"])


def unknown_words(concept: Concept, tokenizer: Any, prompt: str) -> list[str]:
    """Words that the base model never saw, as far as that is known: of the miniature alone."""
    if concept.base_model != MINIATURE:
        return []
    for learned in tokenizer.added_tokens_encoder:
        prompt = prompt.replace(learned, " ")
    words = dict.fromkeys(re.findall(r"[^\W\d_]+", prompt.lower()))
    pieces = {word: tokenizer(word, add_special_tokens=False).input_ids for word in words}
    return [word for word in words if len(pieces[word]) > 1 or word in _NEVER_DRAWN]


def known_words(base_model: str) -> HTML:
    """What a base model can be asked for, as a table, or a sentence where nobody has listed it."""
    if base_model == MINIATURE:
        return HTML(html_table(MINIATURE_KNOWS.items(), named_rows=True))
    return HTML("<p>It learned from captions of the web: most English words are known to it.</p>")


def own_prompt(concept: Concept, sentence: str) -> str:
    """A sentence with the concept's word in the place of `{}`, or where it stands already.

    Raises:
        UserError: the sentence has neither.
    """
    prompt = sentence.replace("{}", concept.placeholder_token)
    if concept.placeholder_token not in prompt:
        raise UserError(f"The prompt “{sentence}” has no place for your word: put {{}} where it belongs.")
    return prompt
