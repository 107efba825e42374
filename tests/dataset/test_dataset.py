"""What the network is shown."""

import random

import pytest
import torch
from PIL import Image

from helpers.common.errors import UserError
from helpers.concept.concept import Concept, TrainingSettings
from helpers.dataset.dataset import (
    TextualInversionDataset,
    crop,
    preprocess,
    resize,
    training_templates,
)
from helpers.dataset.images import write_captions
from helpers.model.base_model import load_tokenizers
from helpers.model.vae import to_image, to_pixel_values
from helpers.training.forecast import training_plan


def half_and_half(width, height):
    """Left half red, right half blue."""
    picture = Image.new("RGB", (width, height), (255, 0, 0))
    picture.paste((0, 0, 255), (width // 2, 0, width, height))
    return picture


def test_an_example_has_the_model_s_form(grooty):
    tokenizers = load_tokenizers("miniature")
    dataset = TextualInversionDataset(grooty, tokenizers, 64)
    example = dataset[0]
    assert len(dataset) == 5
    assert example["pixel_values"].shape == (3, 64, 64)
    assert example["pixel_values"].dtype == torch.float32
    assert -1 <= example["pixel_values"].min() < example["pixel_values"].max() <= 1
    assert example["input_ids"][0].shape == (tokenizers[0].model_max_length,)
    assert "<grooty>" in example["prompt"]


def test_the_sentence_is_tokenized_with_every_vector_of_the_word(grooty):
    grooty.vectors = 2
    tokenizers = load_tokenizers("miniature")
    tokenizers[0].add_tokens(grooty.placeholder_tokens)
    example = TextualInversionDataset(grooty, tokenizers, 64)[1]
    new = set(tokenizers[0].convert_tokens_to_ids(grooty.placeholder_tokens))
    assert new <= set(example["input_ids"][0].tolist())


def test_the_same_seed_draws_the_same_sentences_and_flips(grooty):
    for training in ({}, {"random_crop": True}):
        concept = grooty.changed(training=training)
        first, second = (TextualInversionDataset(concept, load_tokenizers("miniature"), 64) for _ in range(2))
        for number in (7, *range(5), 7):  # in whatever order one asks
            one, other = first[number], second[number]
            assert one["prompt"] == other["prompt"]
            assert torch.equal(one["pixel_values"], other["pixel_values"])
    other = TextualInversionDataset(grooty.changed(training={"seed": 7}), [], 64)
    assert [first.draw(number) for number in range(9)] != [other.draw(number) for number in range(9)]


def test_all_sentences_occur_the_person_s_own_too(grooty):
    concept = grooty.changed(vectors=1, own_templates=["my {} in the sink"])
    dataset = TextualInversionDataset(concept, [], 64)
    seen = {dataset.prompts[dataset.draw(number)[1]] for number in range(25)}
    assert "my <grooty> in the sink" in seen
    assert len(seen) == 25 == len(training_templates(concept))


def test_each_picture_comes_once_before_any_comes_twice_and_half_are_mirrored(grooty):
    dataset = TextualInversionDataset(grooty, [], 64)
    views = [dataset.draw(number)[0] for number in range(1000)]
    passes = [tuple(view.picture for view in views[first : first + 5]) for first in range(0, 1000, 5)]
    assert all(sorted(one) == [0, 1, 2, 3, 4] for one in passes) and len(set(passes)) > 50
    assert 450 < sum(view.flipped for view in views) < 550


def test_a_word_that_the_model_would_not_reach_is_refused(grooty):
    tokenizers = load_tokenizers("miniature")
    far = "a toy" + " on a beach" * 13 + " on {}"  # its word's tokens: the 43rd, 44th, ...
    for vectors, fits in ((4, True), (5, False)):
        concept = grooty.changed(vectors=vectors, own_templates=[far])
        tokenizers[0].add_tokens(concept.placeholder_tokens)
        if fits:
            TextualInversionDataset(concept, tokenizers, 64)
        else:
            with pytest.raises(UserError, match="has 47 tokens, 5 of them your word's, and the model reads"):
                TextualInversionDataset(concept, tokenizers, 64)
    write_captions(grooty, "grooty-1.png", far.replace(" {}", " a beach in the snow {}"))
    with pytest.raises(UserError, match=r"on a beach.* shorten the sentence"):
        TextualInversionDataset(grooty, tokenizers, 64)
    with pytest.raises(UserError, match="shorten the sentence"):
        training_plan(grooty)


def test_center_crop_takes_the_middle_and_without_it_the_picture_is_squeezed():
    wide = half_and_half(200, 100)
    assert crop(wide, TrainingSettings()).size == (100, 100)
    assert crop(wide, TrainingSettings(center_crop=False)).size == (200, 100)
    for settings in (TrainingSettings(), TrainingSettings(center_crop=False)):
        pixels = preprocess(wide, settings, 32)
        assert pixels[0, 0, 0] > 0.9 and pixels[2, 0, -1] > 0.9


def test_a_random_crop_is_inside_the_picture_and_moves():
    settings, draw = TrainingSettings(random_crop=True), random.Random(0)
    crops = [crop(half_and_half(200, 100), settings, draw) for _ in range(8)]
    assert all(80 <= one.width == one.height <= 100 for one in crops)
    assert len({one.tobytes() for one in crops}) > 1


def test_a_flip_mirrors_left_and_right():
    picture = half_and_half(64, 64)
    straight, flipped = (preprocess(picture, TrainingSettings(), 32, flag) for flag in (False, True))
    assert torch.equal(flipped, straight.flip(-1))
    assert not torch.equal(flipped, straight)


@pytest.mark.parametrize("name", ["linear", "bilinear", "bicubic", "lanczos"])
def test_every_named_interpolation_resizes(name):
    assert resize(half_and_half(100, 60), 48, name).size == (48, 48)


def test_numbers_and_pictures_are_each_other_s_inverse():
    picture = half_and_half(16, 16)
    pixels = to_pixel_values(picture)
    assert pixels.min() == -1 and pixels.max() == 1
    assert to_image(pixels).tobytes() == picture.tobytes()


def test_the_concept_s_own_resolution_goes_first(grooty):
    grooty.training.resolution = 48
    assert TextualInversionDataset(grooty, [], 64)[0]["pixel_values"].shape == (3, 48, 48)


def test_a_concept_without_pictures_says_what_to_do(concepts):
    with pytest.raises(UserError, match="notebook 1"):
        TextualInversionDataset(Concept.make("empty"), [], 64)
