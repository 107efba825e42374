"""Toys that a person puts together, in words and by a form."""

import numpy as np
import pytest

from helpers.common.errors import UserError
from helpers.dataset.images import caption_path, image_path, image_paths
from helpers.miniature import TOY_TRAITS, draw_toy, draw_words, remark_on
from helpers.miniature.world import HELD_OUT_TOYS, Toy, read_toy
from helpers.series import run
from helpers.widgets import ToyMaker


def test_words_become_the_toy_that_they_say():
    toy = read_toy("teal star toy, bunny ears, one eye, wheels")
    assert toy == Toy("star", "teal", "bunny ears", "one eye", "plain", "white", "wheels")
    toy = read_toy("A green striped brown tall toy with leaves and big eyes and boots")
    assert toy == HELD_OUT_TOYS["grooty"]
    with pytest.raises(UserError, match="“red feathers” is not a trait of a toy: choose from body: round"):
        read_toy("blue red round toy with feathers")


def test_another_seed_draws_other_places_of_the_same_toy():
    first, again, other = (draw_words("pink cone toy, horns", seed) for seed in (0, 0, 1))
    assert len(first) == 5 and first[0].size == (256, 256)
    assert all(np.array_equal(*pair) for pair in zip(first, again, strict=True))
    assert not np.array_equal(first[0], other[0])


def test_the_form_draws_marks_and_keeps(concepts):
    form = ToyMaker("mine", TOY_TRAITS, draw_toy, remark_on)
    plain = form.images[0]
    form.fields["color"].value, form.fields["body"].value = "teal", "star"
    assert "Never seen" not in form.remark.value
    form.fields["ears"].value = "bunny ears"
    assert "Never seen by the model" in form.remark.value
    assert not np.array_equal(plain, form.images[0])
    for button in (form.use, form.others, form.use):
        button.click()
    names = [path.name for path in image_paths("mine")]
    assert names == [f"drawn-{number}.png" for number in range(1, 6)], "the drawings before are replaced"
    assert "mine has 5 drawn pictures now." in form.message.value
    caption = caption_path(image_path("mine", "drawn-1.png"))
    caption.write_text("a {} in the hall\n")
    form.use.click()
    assert caption.is_file(), "the same drawings keep their captions, as where the quick start goes on"
    form.others.click()
    form.use.click()
    assert not caption.exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--images", "x"], "leave out IMAGES"),
        (["--toy", "a red dragon"], "“dragon” is not a trait"),
        (["--toy", "red blue toy"], "“blue” is one too many"),
        (["--toy", "red toy, one eye, big eyes"], "“big eyes” is one too many"),
        (["--vectors", "0"], "vectors: give 1 or more"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_a_run(concepts, capsys, more, words):
    assert run.main(["--concept", "mine", "--toy", "red toy", *more]) == 1
    assert words in capsys.readouterr().err and not (concepts / "mine").exists()
