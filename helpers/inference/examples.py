"""Example prompts that a base model can follow; `{}` stands for the learned word."""

import re
from collections.abc import Iterable
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


# As the miniature's captions say it: a test compares them.
_PLACES = MINIATURE_PLACES[:9]
_STYLES = ("a pencil sketch", "neon", "pixel art", "a blueprint", "a watercolor")
# All that the miniature can draw.
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
# Single tokens of its tokenizer, to start a word from, that no caption of its pictures had.
_NEVER_DRAWN = frozenset(
    """doll robot dog bear rabbit monster animal creature person object thing figure figurine statue sticker
    drawing image portrait groot plant tree character sepia black gray gold silver this that their his her or
    two three happy sad old new""".split()
)

# Kinds of thing, for a model that knows the words of the web.
_KINDS = """toy doll robot figurine statue cat dog bird horse bear rabbit animal monster car boat chair lamp
cup bag shoe hat ring clock book house tree plant flower food man woman child face""".split()
_KINDS_OF_STYLE = "painting drawing sketch photo cartoon watercolor comic poster mosaic collage".split()


def _each(sentence: str, values: Iterable[str]) -> tuple[str, ...]:
    return tuple(sentence.replace("*", value) for value in values)


# By model and by what is taught.
_EXAMPLES = {
    ("miniature", "object"): ExamplePrompts(
        own="a photo of a {} wearing a scarf on a beach",
        scenes=_each("a photo of a {} *", _PLACES),
        styles=_each("a photo of a {}, in the style of *", _STYLES),
        accessories=_each("a photo of a {} *", MINIATURE_THINGS_ON),
        guidance=4.0,
    ),
    ("miniature", "style"): ExamplePrompts(
        own="a photo of a red round toy on a beach, in the style of {}",
        scenes=_each("a photo of a blue toy *, in the style of {}", _PLACES[:5]),
        styles=_each("a photo of a * toy, in the style of {}", ("red", "yellow", "green", "blue")),
        accessories=_each("a photo of a toy *, in the style of {}", MINIATURE_THINGS_ON),
        guidance=4.0,
    ),
    ("other", "object"): ExamplePrompts(
        # The source tutorial's.
        own="a translucent jade chinese figurine of {}, HDR, productshot render, Cinema4D, caustics",
        scenes=_each(
            "a photo of {} *",
            ("on a beach", "in the snow", "at night in a city", "in a forest", "on a kitchen table"),
        ),
        styles=_each(
            "* of {}",
            ("a pencil sketch", "an oil painting", "a watercolor", "pixel art", "a line drawing"),
        ),
        accessories=_each("a photo of {} wearing *", ("a red scarf", "a crown", "a bow tie")),
        guidance=7.5,
    ),
    ("other", "style"): ExamplePrompts(
        own="a lighthouse on a cliff, in the style of {}",
        scenes=_each(
            "*, in the style of {}",
            ("a beach at sunset", "a village in the snow", "a city at night", "a forest", "a kitchen"),
        ),
        styles=_each("*, in the style of {}", ("a portrait", "a cat", "a bowl of fruit")),
        accessories=_each("a dog wearing *, in the style of {}", ("a scarf", "a crown")),
        guidance=7.5,
    ),
}


def examples_for(concept: Concept) -> ExamplePrompts:
    """Prompts for what a concept teaches, on its base model."""
    model = "miniature" if concept.base_model == MINIATURE else "other"
    return _EXAMPLES[model, concept.what_to_teach]


def words_to_start_from(concept: Concept) -> list[str]:
    """Words known to the concept's model, one of which may be close to what is taught."""
    is_object = concept.what_to_teach == "object"
    if concept.base_model != MINIATURE:
        return _KINDS if is_object else _KINDS_OF_STYLE
    looks = f"toy, {MINIATURE_KNOWS['Colours']}, {MINIATURE_KNOWS['Toys'].partition(' with')[0]}"
    return re.findall(r"[a-z]{3,}", looks if is_object else MINIATURE_KNOWS["In the style of"])


def unknown_words(concept: Concept, tokenizer: Any, prompt: str) -> list[str]:
    """Words that the base model never saw; known for the miniature alone."""
    if concept.base_model != MINIATURE:
        return []
    for learned in tokenizer.added_tokens_encoder:
        prompt = re.sub(re.escape(learned), " ", prompt, flags=re.IGNORECASE)
    words = dict.fromkeys(re.findall(r"[^\W\d_]+", prompt.lower()))
    pieces = {word: tokenizer(word, add_special_tokens=False).input_ids for word in words}
    return [word for word in words if len(pieces[word]) > 1 or word in _NEVER_DRAWN]


def known_words(base_model: str) -> HTML:
    """What a base model can draw, as a table, or a sentence where nobody has listed it."""
    if base_model == MINIATURE:
        return HTML(html_table(MINIATURE_KNOWS.items(), named_rows=True))
    return HTML("<p>It learned from captions of the web: most English words are known to it.</p>")


def own_prompt(concept: Concept, sentence: str) -> str:
    """A sentence with the concept's word in the place of `{}`; a `UserError` where it has neither."""
    prompt = sentence.replace("{}", concept.placeholder_token)
    if not concept.is_in(prompt):
        raise UserError(f"The prompt “{sentence}” has no place for your word: put {{}} where it belongs.")
    return prompt
