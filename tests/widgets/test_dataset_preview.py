"""The preview shows exactly what training takes, and keeps the captions that are typed."""

import base64
import io

import pytest
import torch
from PIL import Image, ImageOps

from helpers.common.errors import UserError
from helpers.concept.concept import Concept, TrainingSettings
from helpers.dataset.dataset import (
    Preview,
    TextualInversionDataset,
    crop,
    fill,
    held_out_templates,
    preprocess,
    resize,
    token_ids,
    training_templates,
)
from helpers.dataset.dataset import flips as flips_of
from helpers.dataset.images import captions_of, load_image, remove_image, write_captions
from helpers.model.base_model import load_tokenizers
from helpers.model.vae import to_pixel_values
from helpers.widgets.dataset_preview import DatasetPreview

FIRST, SECOND = "grooty-1.png", "grooty-2.png"
RED = "a {} on a red table"


def text(view):
    return view.shown.value + view.kept.value


@pytest.mark.parametrize("flipped", [False, True])
def test_an_example_has_the_very_pixels_of_training(grooty, flipped):
    shown = Preview(grooty).example(SECOND, RED, flipped)
    trained = preprocess(load_image(grooty, SECOND), grooty.training, 128, flipped)
    assert torch.equal(to_pixel_values(shown.image), trained)
    assert (shown.picture, shown.image.size, shown.original.size) == (SECOND, (128, 128), (256, 256))


def test_the_sentences_are_those_that_training_shows(grooty):
    preview = Preview(grooty)
    assert preview.sentences(FIRST) == training_templates(grooty)
    assert not {*preview.sentences(FIRST)} & {*held_out_templates(grooty)}
    write_captions(grooty, FIRST, RED)
    assert preview.sentences(FIRST) == (RED,) and preview.sentences(SECOND) == training_templates(grooty)


def test_each_vector_of_the_word_is_one_token(grooty):
    shown = Preview(grooty).example(FIRST, "a {} on a beach")
    assert shown.sentence == "a <grooty> on a beach"
    assert [piece for piece, _ in shown.tokens] == ["a", "<grooty>", "<grooty>_1", "on", "a", "beach"]
    assert shown.cut_off == ""


def test_what_the_model_does_not_read_is_named(grooty, capfd):
    template = "a photo of {}" + " on a beach" * 20 + " at night"
    shown, dataset = Preview(grooty).example(FIRST, template), load_tokenizers("miniature")
    assert shown.cut_off.endswith("on a beach at night")
    dataset[0].add_tokens(grooty.placeholder_tokens)
    read = token_ids(dataset, [fill(grooty, template)])[0][0].tolist()
    assert [number for _, number in shown.tokens] == read[1:-1]
    assert capfd.readouterr().err == "", "no remark of the library's"


def test_flips_follow_the_setting():
    flips = {}
    for share in (0, 0.5, 1):
        flips[share] = flips_of(TrainingSettings(flip_probability=share))
    assert flips == {0: (False,), 0.5: (False, True), 1: (True,)}


def test_random_crops_differ_and_come_back(grooty):
    concept = grooty.changed(training={"random_crop": True})
    preview, dataset = Preview(concept), TextualInversionDataset(concept, [], 128)
    crops = [preview.example(SECOND, RED, crop=number).image.tobytes() for number in (0, 1, 0)]
    assert crops[0] == crops[2] != crops[1]
    for number in range(10):  # the first samples of a run
        view, _ = dataset.draw(number)
        shown = preview.example(preview.names[view.picture], RED, view.flipped, view.crop).image
        assert torch.equal(to_pixel_values(shown), dataset[number]["pixel_values"])


# With the widget


def test_the_sliders_choose_the_example(grooty):
    view = DatasetPreview(grooty)
    assert "<b>a photo of a &lt;grooty&gt;</b>" in text(view) and f"Picture {FIRST}" in text(view)
    view.picture.value, view.sentence.value, view.flipped.value = SECOND, 2, True
    assert f"{SECOND} as the network sees it, mirrored" in text(view)
    assert f"<b>{training_templates(grooty)[1].replace('{}', '&lt;grooty&gt;')}</b>" in text(view)
    assert view.sentence.max == len(training_templates(grooty))
    seen = Image.open(io.BytesIO(base64.b64decode(view.shown.value.split("base64,")[2].split('"')[0])))
    straight = resize(crop(load_image(grooty, SECOND), grooty.training), 128, "bicubic")
    assert seen.convert("RGB").tobytes() == ImageOps.mirror(straight).tobytes()


def test_a_caption_is_kept_as_it_is_typed_and_found_again(grooty):
    view = DatasetPreview(grooty)
    view.picture.value = SECOND
    view.captions.value = f"{RED}\nmy {{}}"
    assert captions_of(grooty) == {SECOND: [RED, "my {}"]}
    assert "Kept in images/grooty-2.txt." in text(view) and view.sentence.max == 2
    assert "a &lt;grooty&gt; on a red table" in text(view)
    again = DatasetPreview(Concept.load("grooty"))
    assert again.captions.value == ""
    again.picture.value = SECOND
    assert again.captions.value == f"{RED}\nmy {{}}"
    again.captions.value = ""
    assert captions_of(grooty) == {} and again.sentence.max == len(training_templates(grooty))


def test_a_caption_without_the_word_is_marked_and_the_file_stays(grooty):
    view = DatasetPreview(grooty)
    view.captions.value = RED
    view.captions.value = "a toy on a red table"
    assert "Put {} into “a toy on a red table”" in text(view) and "role='alert'" in text(view)
    assert view.captions.layout.border_top and captions_of(grooty) == {FIRST: [RED]}
    view.picture.value = SECOND
    assert "alert" not in text(view) and not view.captions.layout.border_top
    view.picture.value = FIRST
    assert view.captions.value == RED, "what is seen is what is kept"


def test_a_caption_whose_word_would_not_be_read_is_marked_and_not_kept(grooty):
    view, far = DatasetPreview(grooty), "a toy" + " on a beach" * 15 + " like {}"
    view.captions.value = RED
    view.captions.value = far
    assert "the model reads only the first 46" in text(view) and captions_of(grooty) == {FIRST: [RED]}
    (grooty.images_folder / "grooty-1.txt").write_text(far)  # by hand
    assert "the model reads only the first 46" in text(DatasetPreview(grooty))


def test_turning_the_pictures_writes_nothing(grooty):
    (grooty.images_folder / "grooty-2.txt").write_text("a toy, no word")
    view = DatasetPreview(grooty)
    for name in (SECOND, FIRST, SECOND):
        view.picture.value = name
    assert "images/grooty-2.txt: Put {}" in text(view) and view.captions.value == "a toy, no word"
    assert (grooty.images_folder / "grooty-2.txt").read_text() == "a toy, no word"
    assert "text/plain" in view._repr_mimebundle_(), "it is shown all the same"


def test_a_picture_that_another_notebook_has_removed_is_named(grooty):
    view = DatasetPreview(grooty)
    remove_image(grooty, SECOND)
    view.picture.value = SECOND
    assert f"no picture “{SECOND}”" in text(view) and view.captions.value == ""
    view.captions.value = RED
    assert f"no picture “{SECOND}”" in text(view) and captions_of(grooty) == {}


def test_fewer_sentences_never_leave_the_slider_beyond_the_last(grooty):
    view = DatasetPreview(grooty)
    view.sentence.value = 20
    view.captions.value = RED
    assert view.sentence.value == 1 and "on a red table" in text(view)


def test_a_flip_that_never_comes_can_not_be_asked_for(grooty):
    never, always = (DatasetPreview(grooty.changed(training={"flip_probability": share})) for share in (0, 1))
    assert never.flipped.disabled and not never.flipped.value
    assert always.flipped.disabled and always.flipped.value


def test_warnings_are_on_top(grooty):
    for name in ("grooty-2.png", "grooty-3.png", "grooty-4.png", "grooty-5.png"):
        (grooty.images_folder / name).write_bytes((grooty.images_folder / FIRST).read_bytes())
    assert "All 5 pictures have nearly the same background" in DatasetPreview(grooty).children[0].value


def test_where_no_widget_lives_it_is_a_picture(grooty):
    still = DatasetPreview(grooty)._repr_mimebundle_()["text/html"]
    assert still.count("<img") == 1 and "5 pictures, 5 in a row: a photo of a" in still


def test_without_pictures_it_says_what_to_do(concepts):
    with pytest.raises(UserError, match="add some in notebook 1"):
        DatasetPreview(Concept.make("empty"))
