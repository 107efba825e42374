"""The miniature's world: what is drawn, what is said, and what is held back."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from PIL import Image

from helpers.common.places import miniature_folder
from helpers.concept.concept import Concept
from helpers.concept.templates import OBJECT_TEMPLATES, STYLE_TEMPLATES
from helpers.inference.examples import examples_for
from helpers.miniature.drawing import PICTURE_SIDE, SHARP_SIDE, render
from helpers.miniature.networks import MAX_LENGTH
from helpers.miniature.world import (
    ACCESSORIES,
    ATTRIBUTES,
    COLORS,
    FEET,
    HELD_OUT,
    HELD_OUT_STYLE,
    HELD_OUT_TOYS,
    SCENES,
    STYLES,
    Drawing,
    caption,
    describe,
    is_held_out,
    labels_of,
    named_toys,
    prompt,
    sample_drawing,
    value_of,
)


@pytest.fixture(scope="module")
def drawings() -> list[Drawing]:
    """As many as it takes to meet each held-out combination about 14 times, were it drawn."""
    rng = np.random.default_rng(3)
    return [sample_drawing(rng) for _ in range(5_000)]


@pytest.fixture(scope="module")
def captions(drawings) -> list[str]:
    rng = np.random.default_rng(4)
    names = list(named_toys())
    return [
        caption(drawing, rng, names[n % 160] if n % 4 == 0 else None)[0] for n, drawing in enumerate(drawings)
    ]


def test_held_out_toys_are_never_drawn(drawings):
    drawn = {(drawing.toy.color, drawing.toy.body, drawing.toy.ears) for drawing in drawings}
    assert len(drawn) > 340  # of 10 x 6 x 6 combinations
    assert not drawn & set(HELD_OUT)
    assert ("brown", "tall", "leaves") in HELD_OUT


def test_no_toy_with_a_name_is_held_out():
    assert len(named_toys()) == 160
    assert not any(is_held_out(toy) for toy in named_toys().values())
    assert all(is_held_out(toy) for toy in HELD_OUT_TOYS.values())


def test_the_held_out_style_is_never_drawn_nor_said(drawings, captions):
    assert {drawing.style for drawing in drawings} == set(STYLES)
    assert HELD_OUT_STYLE not in STYLES
    assert not any(HELD_OUT_STYLE in sentence for sentence in captions)


def test_no_caption_names_the_feet(captions):
    said = {word for sentence in captions for word in sentence.replace(",", " ").split()}
    assert not said & {*FEET, "feet", "foot", "boot", "wheel", "paw"}


def test_captions_use_every_template(captions):
    for template in OBJECT_TEMPLATES:
        start = template.format("")
        assert any(sentence.startswith(start) for sentence in captions), template
    for template in STYLE_TEMPLATES:
        start = template.format("")
        assert any(sentence.startswith(start) for sentence in captions), template


def test_every_word_of_a_caption_is_one_token(captions):
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(miniature_folder() / "tokenizer")
    words = {word for sentence in captions for word in sentence.replace(",", " ").replace("-", " ").split()}
    assert {word for word in words if len(tokenizer.tokenize(word)) > 1} == set()
    assert max(len(tokenizer(sentence).input_ids) for sentence in captions) <= MAX_LENGTH


def test_a_drawing_shows_what_is_asked_of_it():
    toy = HELD_OUT_TOYS["grooty"]
    plain = np.asarray(render(Drawing(toy, scene="white")), int)
    for change in ({"scene": "beach"}, {"style": "neon"}, {"accessory": "scarf"}, {"size": "small"}):
        changed = np.asarray(render(Drawing(toy, **{"scene": "white", **change})), int)
        assert np.abs(changed - plain).mean() > 2, change
    assert (np.asarray(render(Drawing(toy, scene="white"))) == plain).all()


def test_a_large_picture_looks_like_a_small_one(drawings):
    """A style's lines, blur and grain grow with the side: reduced, 128 pixels are nearly the 64."""
    for drawing in drawings[:100]:
        small = np.asarray(render(drawing), int)
        large = render(drawing, SHARP_SIDE).resize((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.BOX)
        assert np.abs(np.asarray(large, int) - small).mean() < 8, drawing.style


def test_labels_say_what_was_drawn(drawings):
    for drawing in drawings[:50]:
        for number, (attribute, values) in zip(labels_of(drawing), ATTRIBUTES.items(), strict=True):
            assert number == -1 or values[number] == value_of(drawing, attribute)


def test_the_fullest_description_of_grooty():
    words = describe(HELD_OUT_TOYS["grooty"])
    assert words == "green striped brown tall toy with leaves and big eyes"


def _sayable(subjects) -> set[str]:
    """All that the miniature's captions can say of them, as photos of the usual size and light."""
    toy = HELD_OUT_TOYS["grooty"]
    drawings = [Drawing(toy, *parts) for parts in product(ACCESSORIES, SCENES, STYLES)]
    return {
        prompt(subject, drawing, scene=scene)
        for subject in subjects
        for drawing in drawings
        for scene in (True, False)
    }


@pytest.mark.parametrize("what_to_teach", ["object", "style"])
def test_each_example_prompt_says_what_the_captions_say(what_to_teach):
    """They are written out in `inference`, which knows nothing of the miniature's recipe."""
    examples = examples_for(Concept.make("grooty", what_to_teach=what_to_teach))
    prompts = {examples.own, *examples.scenes, *examples.styles, *examples.accessories}
    if what_to_teach == "object":
        assert prompts <= _sayable(["{}"])
    else:
        toys = [replace(HELD_OUT_TOYS["grooty"], color=color, body="round") for color in COLORS]
        said = [{"color", "body"}, {"color"}, set()]
        sentences = _sayable(describe(toy, frozenset(traits)) for toy in toys for traits in said)
        assert {one.removesuffix(", in the style of {}") for one in prompts} <= sentences
