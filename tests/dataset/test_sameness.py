"""Warnings where pictures share a background, a colour or a pose by accident, and none where they don't."""

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from helpers.common import places
from helpers.common.errors import UserError
from helpers.concept.concept import Concept
from helpers.dataset.variety import outside_the_model, warnings_of

TABLE, LAWN, WALL, SKY, SAND = (150, 60, 50), (70, 130, 60), (200, 200, 190), (110, 160, 230), (220, 190, 120)


def place(colour, seed=0):
    """A background with grain, as a photo has it."""
    grain = np.random.default_rng(seed).normal(0, 12, (128, 128, 1))
    return Image.fromarray((np.array(colour) + grain).clip(0, 255).astype(np.uint8))


def toy(picture, left=40, top=30, side=50, shape="ellipse"):
    """A purple thing on it."""
    box = (left, top, left + side, top + side)
    getattr(ImageDraw.Draw(picture), shape)(box, fill=(120, 60, 160), outline=(20, 10, 30), width=3)
    return picture


def differing(number):
    """Where a picture's thing is, how large and in which shape: no two alike."""
    return [
        {"left": 10, "top": 20, "side": 60},
        {"left": 60, "top": 50, "side": 40, "shape": "rectangle"},
        {"left": 30, "top": 60, "side": 55},
        {"left": 50, "top": 10, "side": 75, "shape": "rectangle"},
        {"left": 20, "top": 30, "side": 30},
    ][number]


@pytest.fixture
def said(concepts):
    def of(*pictures):
        concept = Concept.make("toy")
        concept.images_folder.mkdir(parents=True)
        for number, picture in enumerate(pictures, 1):
            picture.save(concept.images_folder / f"{number:03d}.png")
        return warnings_of(concept)

    return of


def test_the_shipped_pictures_differ_enough(grooty):
    assert len(list((places.data_folder() / "grooty").iterdir())) == 5
    assert warnings_of(grooty) == []


def test_different_places_and_poses_get_no_warning(said):
    assert said(*(toy(place(c), **differing(n)) for n, c in enumerate((TABLE, LAWN, WALL, SKY, SAND)))) == []


def test_one_table_under_all_is_a_shared_background(said):
    light = (1, 0.97, 1.04, 1.02, 0.95)
    (sentence,) = said(
        *(ImageEnhance.Brightness(toy(place(TABLE, n), **differing(n))).enhance(light[n]) for n in range(5))
    )
    assert sentence.startswith("All 5 pictures have nearly the same background")
    assert "captions" in sentence


def test_one_picture_elsewhere_is_not_enough(said):
    places_of = (TABLE, TABLE, LAWN, TABLE, TABLE)
    (sentence,) = said(*(toy(place(c, n), **differing(n)) for n, c in enumerate(places_of)))
    assert sentence.startswith("4 of the 5 pictures have nearly the same background")


def test_half_of_them_elsewhere_is(said):
    places_of = (TABLE, LAWN, TABLE, SKY, TABLE)
    assert said(*(toy(place(c, n), **differing(n)) for n, c in enumerate(places_of))) == []


def test_one_light_is_a_shared_colour(said):
    browns = [(100, 60, 30), (225, 170, 100), (160, 100, 50), (190, 120, 80)]
    (sentence,) = said(*(toy(place(c, n), **differing(n)) for n, c in zip((0, 1, 2, 4), browns, strict=True)))
    assert sentence.startswith("All 4 pictures are orange all around")


def test_pictures_without_colours_are_named(said):
    pictures = [toy(place(c, n), **differing(n)) for n, c in enumerate((TABLE, LAWN, WALL, SKY))]
    (sentence,) = said(*(ImageOps.grayscale(one).convert("RGB") for one in pictures))
    assert sentence.startswith("All 4 pictures have no colours")


def test_one_outline_in_one_place_is_a_shared_pose(said):
    (sentence,) = said(*(toy(place(c, n), 30, 30, 70) for n, c in enumerate((TABLE, LAWN, WALL, SKY))))
    assert sentence.startswith("All 4 pictures show the same outline")


def test_a_mirrored_outline_is_the_same_pose(said):
    pictures = [toy(place(c, n), 10, 30, 70) for n, c in enumerate((TABLE, LAWN, WALL, SKY))]
    assert any(
        "same outline" in one for one in said(pictures[0], ImageOps.mirror(pictures[1]), *pictures[2:])
    )


@pytest.mark.parametrize("count", [1, 2])
def test_few_pictures_may_be_alike_by_chance(said, count):
    assert said(*(toy(place(TABLE, n)) for n in range(count))) == []


def test_plain_pictures_without_an_edge_are_no_error(said):
    assert len(said(*(Image.new("RGB", (64, 64), TABLE) for _ in range(3)))) == 1


def test_no_pictures_say_what_to_do(concepts):
    with pytest.raises(UserError, match="add some in notebook 1"):
        warnings_of(Concept.make("empty"))


def test_pictures_that_the_miniature_can_not_draw_are_named_before_the_training(grooty):
    assert outside_the_model(grooty) == ""
    grain = np.random.default_rng(1)
    for path in sorted(grooty.images_folder.glob("*.png")):
        Image.fromarray(grain.integers(0, 256, (128, 128, 3), dtype=np.uint8)).save(path)
    assert "outside what the miniature can draw" in outside_the_model(grooty)
    assert outside_the_model(grooty.changed(base_model="another/model")) == ""


def test_pictures_are_looked_at_before_the_concept_has_any(concepts):
    noise = np.random.default_rng(3).integers(0, 256, (128, 128, 3), np.uint8)
    assert "outside what the miniature" in outside_the_model(Concept.make("new"), [Image.fromarray(noise)])
