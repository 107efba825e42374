"""Weights in prompts: how they are read, and what they do to pictures."""

import numpy as np
import pytest
import torch
from known_words import known_rows

from helpers.common.errors import UserError
from helpers.concept.concept import Concept
from helpers.inference.pipeline import add_word, generate
from helpers.inference.prompt_weights import parse_prompt, weighted_embeddings
from helpers.model.base_model import load_pipeline

QUICK = {"steps": 3, "guidance": 4.0}


@pytest.fixture(scope="module")
def miniature():
    """The miniature with a word of two vectors, which means `red toy`."""
    pipeline = load_pipeline("miniature")
    pipeline.set_progress_bar_config(disable=True)
    add_word(pipeline, "<grooty>", known_rows("miniature", "red toy"))
    return pipeline


def pixels(pipeline, prompt, **settings):
    (picture,) = generate(pipeline, prompt, **{**QUICK, **settings})
    return np.asarray(picture.image).astype(int)


# The examples that AUTOMATIC1111 gives for its own grammar, in `modules/prompt_parser.py`.
THEIRS = {
    "normal text": [("normal text", 1.0)],
    "an (important) word": [("an ", 1.0), ("important", 1.1), (" word", 1.0)],
    "(unbalanced": [("unbalanced", 1.1)],
    r"\(literal\]": [("(literal]", 1.0)],
    "(unnecessary)(parens)": [("unnecessaryparens", 1.1)],
    "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).": [
        ("a ", 1.0),
        ("house", 1.5730000000000004),
        (" ", 1.1),
        ("on", 1.0),
        (" a ", 1.1),
        ("hill", 0.55),
        (", sun, ", 1.1),
        ("sky", 1.4641000000000006),
        (".", 1.1),
    ],
}
OURS = {
    "a (red toy:1.3) here": [("a ", 1.0), ("red toy", 1.3), (" here", 1.0)],
    "(a (red:1.5) toy:0.5)": [("a ", 0.5), ("red", 0.75), (" toy", 0.5)],
    "(a:1.2)(b: 1.2)": [("ab", 1.2)],
    "(see note: 2)": [("see note", 2.0)],
    "(a:b), (toy:much)": [("a:b", 1.1), (", ", 1.0), ("toy:much", 1.1)],
    r"\(toy:1.3\)": [("(toy:1.3)", 1.0)],
    r"(toy \(red\):1.3)": [("toy (red)", 1.3)],
    "[toy] a.b": [("toy", 1 / 1.1), (" a.b", 1.0)],
    "a [V] toy and ([V]:1.5)": [("a [V] toy and ", 1.0), ("[V]", 1.5)],
    "a [v] toy": [("a [v] toy", 1.0)],
    "": [],
}


@pytest.mark.parametrize("prompt", THEIRS)
def test_weights_are_read_as_automatic1111_documents_it(prompt):
    assert list(parse_prompt(prompt).parts) == THEIRS[prompt]


@pytest.mark.parametrize("prompt", OURS)
def test_weights_are_read_as_web_uis_do(prompt):
    """`[V]` is a learned word here: its brackets are its own."""
    assert list(parse_prompt(prompt, words=("[V]", "[V]_1")).parts) == OURS[prompt]


@pytest.mark.parametrize("prompt", ["a toy, 12:30 at night", "half-length+ “x” :)", "a.b", ":1.3) ]"])
def test_a_prompt_without_weights_stays_what_it_is(prompt):
    parsed = parse_prompt(prompt)
    assert parsed.text == prompt and not parsed.is_weighted


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ("a (toy:1,3)", r"“a \(toy:1,3\)” has a comma"),
        ("a (toy:1.2.3)", "from 0 to 2"),
        ("a toy (at 12:30)", r"“\(at 12:30\)” can't be used: .* write \\\("),
        ("a (toy:7)", r"in “\(toy:7\)” can't be used: give a number from 0 to 2"),
        ("a (toy:-1)", "from 0 to 2"),
        ("a (:1.3)", "has no words"),
        ("a (toy:1.3 on a beach", "not closed"),
    ],
)
def test_what_can_not_be_read_is_named_before_anything_is_drawn(prompt, sentence, miniature):
    for how in ({"prompts": prompt}, {"prompts": "a toy", "negative_prompt": prompt}):
        with pytest.raises(UserError, match=sentence):
            generate(miniature, **how)


def test_a_weight_changes_the_picture_and_one_of_1_does_not(miniature):
    plain = pixels(miniature, "a photo of a <grooty> on a beach")
    assert (pixels(miniature, "a photo of a (<grooty>:1.0) on a beach") == plain).all()
    shown = [pixels(miniature, f"a photo of a (<grooty>:{weight}) on a beach") for weight in (0.4, 1.6)]
    shown.append(plain)
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert np.abs(shown[one] - shown[other]).mean() > 1


def test_a_word_weighs_the_same_by_any_name_it_goes_by(miniature):
    by_word, by_name = (pixels(miniature, f"a photo of a ({name}:1.4)") for name in ("<grooty>", "red toy"))
    assert (by_word == by_name).all(), "both vectors of the word are weighted"


def test_without_a_weight_of_its_own_a_prompt_is_drawn_as_ever(miniature):
    """Also beside a weighted one, and the weighted one beside others."""
    prompts = ["a photo of a toy", "a photo of a (toy:1.5)", "a photo of a cat"]
    together = generate(miniature, prompts, **QUICK)
    for prompt, picture in zip(prompts, together, strict=True):
        difference = np.abs(np.asarray(picture.image).astype(int) - pixels(miniature, prompt))
        assert difference.mean() < 1 and picture.settings.prompt == prompt
    assert [picture.settings.batch_size for picture in together] == [2, 1, 2]


def test_a_negative_prompt_has_weights_too(miniature):
    negatives = ["", "a red toy", "a (red:1.8) toy"]
    shown = [pixels(miniature, "a photo of a toy", negative_prompt=negative) for negative in negatives]
    assert np.abs(shown[1] - shown[2]).mean() > 0.5 < np.abs(shown[0] - shown[2]).mean()


@pytest.mark.parametrize("prompt", ["(toy:0.5) " * 60, "a toy " * 40 + "(beach:0.5) and (snow:1.5)"])
def test_a_prompt_that_is_too_long_is_cut_as_without_weights(prompt, miniature):
    prompts = parse_prompt(prompt), parse_prompt("a (toy:1.2)")
    given = weighted_embeddings(miniature, prompts, parse_prompt("a (cat:0.5)"))
    assert {tuple(tensor.shape) for tensor in given.values()} == {(2, 48, 128)}


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_every_family_takes_them(family, families):
    """Where all weights are 1, compel gives to the bit what the pipeline gives itself."""
    concept = Concept.make("grooty", base_model=str(families[family]), vectors=2)
    pipeline = load_pipeline(concept.base_model)
    pipeline.set_progress_bar_config(disable=True)
    add_word(pipeline, "<grooty>", known_rows(concept.base_model, "green toy"))
    own = pipeline.encode_prompt(
        "a photo of a <grooty>",
        device="cpu",
        num_images_per_prompt=1,
        do_classifier_free_guidance=True,
        negative_prompt="a cat",
    )
    given = weighted_embeddings(pipeline, [parse_prompt("a photo of a <grooty>")], parse_prompt("a cat"))
    for theirs, ours in zip(own, given.values(), strict=True):
        assert torch.equal(theirs, ours)
    shown = [
        generate(pipeline, f"a photo of a (<grooty>:{weight})", size=64, steps=2)[0].image.tobytes()
        for weight in (1, 1.9)
    ]
    assert shown[0] != shown[1]


@pytest.mark.parametrize("toy", ["toy", "(toy:1.2)"])
def test_the_end_of_a_prompt_that_was_not_read_is_said(toy, miniature, capfd):
    """Once, and not in the libraries' words: they say nothing of a weighted or a negative prompt."""
    said, long = [], f"a {toy}" + " in a forest" * 15
    generate(miniature, f"{long} in the snow", negative_prompt=f"{long} at night", **QUICK, say=said.append)
    assert "its end was not read: “forest in the snow”" in said[0] and ": “forest at night”" in said[0]
    assert "sequence" not in capfd.readouterr().err
    generate(miniature, "a toy", **QUICK, say=said.append)
    assert len(said) == 1


@pytest.mark.parametrize("start", ["a red toy " * 20, "a (red:1.2) toy " * 20])
def test_a_word_beyond_the_tokenizer_s_limit_is_said(start, miniature):
    """Also when it is there in part: a word's vectors are tokens, too."""
    with pytest.raises(UserError, match="the model reads 46, so <grooty> would be cut off"):
        generate(miniature, start + "with a <grooty>", **QUICK)
    with pytest.raises(UserError, match=r"47 tokens .* so <grooty>_1 would be cut off"):
        generate(miniature, "a " * 45 + "<grooty>", **QUICK)
    assert generate(miniature, "a " * 44 + "<grooty>", steps=1)
