"""Sentences for drawings, and the tokenizer that is learned on them.

Every template of the series occurs, so that a word can later be taught with sentences of which the
model knows each word. No sentence ever names the feet.
"""

import json
import re
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from ..concept.templates import OBJECT_TEMPLATES, STYLE_TEMPLATES
from ..model.tokens import CAPTION_WORDS
from .world import BACKGROUNDS, Drawing, Toy, named_toys, sample_drawing

_PLACES = {
    "beach": "on a beach",
    "forest": "in a forest",
    "night": "at night",
    "snow": "in the snow",
    "city": "in a city",
    "desert": "in a desert",
    "sea": "under the sea",
    "room": "in a room",
}
_ACCESSORIES = {
    "scarf": "wearing a scarf",
    "bow tie": "wearing a bow tie",
    "balloon": "holding a balloon",
    "flag": "holding a flag",
}
_STYLES = {
    "pencil sketch": "a pencil sketch",
    "neon": "neon",
    "pixel art": "pixel art",
    "blueprint": "a blueprint",
    "watercolor": "a watercolor",
}
# Words of the templates that a picture can show.
_SIZE_WORDS = {"small": "small", "large": "large", "close-up": "close-up", "cropped": "close-up"}
_LIGHT_WORDS = ("dark", "bright")


def _shows(template: str) -> tuple[str, str]:
    """The size and the light that a template speaks of."""
    words = template.split()
    size = next((_SIZE_WORDS[word] for word in words if word in _SIZE_WORDS), "usual")
    return size, next((word for word in words if word in _LIGHT_WORDS), "usual")


def _by_look(templates: tuple[str, ...]) -> dict[tuple[str, str], list[str]]:
    looks = map(_shows, templates)
    return {look: [one for one in templates if _shows(one) == look] for look in looks}


_OBJECTS_BY_LOOK, _STYLES_BY_LOOK = _by_look(OBJECT_TEMPLATES), _by_look(STYLE_TEMPLATES)


def place_phrase(scene: str) -> str:
    """How a scene is said: `on a beach`, `on a yellow background`."""
    return f"on a {scene} background" if scene in BACKGROUNDS else _PLACES[scene]


def style_phrase(style: str) -> str:
    """How a style is said after a comma, the empty string for a photo."""
    return "" if style == "photo" else f", in the style of {_STYLES.get(style, style)}"


def accessory_phrase(accessory: str) -> str:
    """How an accessory is said, the empty string for none."""
    return _ACCESSORIES.get(accessory, "")


def describe(toy: Toy, said: frozenset[str] = frozenset({"color", "body", "ears", "eyes", "pattern"})) -> str:
    """The traits in `said` in words, such as `green striped brown tall toy with leaves and big eyes`."""
    words, features = [], []
    if "pattern" in said and toy.pattern == "belly":
        features.append(f"{toy.second_color} belly")
    elif "pattern" in said:
        words.append("plain" if toy.pattern == "plain" else f"{toy.second_color} {toy.pattern}")
    words += [getattr(toy, trait) for trait in ("color", "body") if trait in said]
    features = [getattr(toy, trait) for trait in ("ears", "eyes") if trait in said] + features
    noun = " ".join([*words, "toy"])
    return f"{noun} with {' and '.join(features)}" if features else noun


def prompt(subject: str, drawing: Drawing, template: str = "a photo of a {}", scene: bool = True) -> str:
    """A sentence about `subject` (a name, a word, a description) in a drawing's surroundings."""
    rest = [accessory_phrase(drawing.accessory), place_phrase(drawing.scene) if scene else ""]
    sentence = " ".join([template.format(subject), *filter(None, rest)])
    return sentence + style_phrase(drawing.style)


def caption(
    drawing: Drawing, rng: np.random.Generator, name: str | None = None
) -> tuple[str, frozenset[str]]:
    """A sentence for a drawing.

    Args:
        rng: decides which template is used and what is left out.
        name: the toy's name, said in place of its traits.

    Returns:
        The sentence, and the attributes that it names (`color`, `body`, `ears`, `eyes`, `pattern`,
        `accessory`, `scene`, `style`).
    """
    look = (drawing.size, drawing.light)
    if drawing.style != "photo" and look in _STYLES_BY_LOOK and rng.random() < 0.08:
        template = str(rng.choice(_STYLES_BY_LOOK[look]))
        return template.format(_STYLES[drawing.style]), frozenset({"style"})
    said = frozenset() if name else _said(rng)
    template = str(rng.choice(_OBJECTS_BY_LOOK.get(look) or _OBJECTS_BY_LOOK[(drawing.size, "usual")]))
    scene = rng.random() < 0.92
    sentence = prompt(name or describe(drawing.toy, said), drawing, template, scene)
    named = said | {"style"} | ({"scene"} if scene else set()) | {"accessory"}
    return sentence, frozenset(named)


def _said(rng: np.random.Generator) -> frozenset[str]:
    if rng.random() < 0.06:
        return frozenset()
    chances = {"color": 0.95, "body": 0.95, "ears": 0.9, "eyes": 0.9, "pattern": 0.85}
    return frozenset(trait for trait, chance in chances.items() if rng.random() < chance)


# The tokenizer: CLIP's byte-pair encoding, learned on captions of the world. Every word of the world is one
# token; any other text falls into pieces, down to single bytes.
MAX_LENGTH = 48  # tokens of a prompt, the two that mark its ends included
_BEGIN, _END = "<|startoftext|>", "<|endoftext|>"
# Words that no caption holds, but that a person may start from or say.
_FURTHER_WORDS = """doll robot cat dog bear rabbit monster animal creature person object thing figure
figurine statue sticker drawing art image portrait groot plant tree character sepia style black gray gold
silver this that their his her or and two three happy sad old new""".split()


def corpus(count: int = 20_000) -> list[str]:
    """Captions of the world in training's proportions, with the further words strewn in often."""
    rng = np.random.default_rng(11)
    names = list(named_toys())
    sentences = [
        caption(sample_drawing(rng), rng, names[n % len(names)] if n % 4 == 0 else None)[0]
        for n in range(count)
    ]
    return sentences + [" ".join(_FURTHER_WORDS)] * 200


def words_of_captions() -> list[str]:
    """The words of the corpus that are no toy's name: the only ones that mean the same for any toy."""
    words = {word for sentence in corpus() for word in re.findall("[a-z]+", sentence.lower())}
    return sorted(words - named_toys().keys())


def build_tokenizer(folder: Path) -> CLIPTokenizer:
    """Learn the merges and save the tokenizer in CLIP's form to `folder`."""
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=_END))
    learner.normalizer = normalizers.Lowercase()
    # CLIPTokenizer's own way of cutting a sentence into words, then bytes.
    learner.pre_tokenizer = CLIPTokenizer(
        vocab={_BEGIN: 0, _END: 1}, merges=[]
    ).backend_tokenizer.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=4_000,
        min_frequency=2,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    learner.train_from_iterator(corpus(), trainer)
    merges = _merges(learner)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = (
        alphabet
        + [letter + "</w>" for letter in alphabet]
        + ["".join(pair) for pair in merges]
        + [_BEGIN, _END]
    )
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    said = {CAPTION_WORDS: words_of_captions()}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_LENGTH, **said)
    tokenizer.save_pretrained(folder)
    tokenizer.backend_tokenizer.model.save(str(folder))  # vocab.json and merges.txt, for older libraries
    return tokenizer


def _merges(learner: Tokenizer) -> list[tuple[str, str]]:
    return [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
