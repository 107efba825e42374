"""A picture's own sentences: kept beside it, refused without the word, and what the network is then told."""

import pytest
import torch

from helpers.common.errors import UserError
from helpers.concept.concept import Concept
from helpers.concept.manage import pack, unpack
from helpers.dataset.dataset import TextualInversionDataset, fill, training_templates
from helpers.dataset.images import add_images, captions_of, image_paths, remove_image, write_captions
from helpers.model.base_model import load_tokenizers
from helpers.training.evaluate import FixedLoss
from helpers.training.forecast import training_plan
from helpers.training.model import Model
from helpers.training.records import inputs_changed, run_inputs, save_inputs
from helpers.training.train import train

FIRST, SECOND = "grooty-1.png", "grooty-2.png"
RED = "a {} on a red table"


def file_of(concept, name):
    return concept.images_folder / name


def test_captions_are_kept_beside_the_picture_and_read_again(grooty):
    assert captions_of(grooty) == {}
    assert write_captions(grooty, FIRST, f"  {RED} \n\n the <grooty>  at night") == [RED, "the {} at night"]
    assert file_of(grooty, "grooty-1.txt").read_text() == f"{RED}\nthe {{}} at night\n"
    assert captions_of(Concept.load("grooty")) == {FIRST: [RED, "the {} at night"]}
    write_captions(grooty, FIRST, "  \n")
    assert captions_of(grooty) == {} and not file_of(grooty, "grooty-1.txt").exists()


@pytest.mark.parametrize("text", ["an <Émile>", "an <E\u0301MILE>"])
def test_a_caption_has_the_word_however_it_is_typed(text, grooty):
    grooty.placeholder_token = "<Émile>"
    assert write_captions(grooty, FIRST, text) == ["an {}"]
    assert grooty.is_in(text)


@pytest.mark.parametrize("text", ["a toy on a table", f"{RED}\nno word", "{} and {}", "a {} beside <grooty>"])
def test_a_caption_without_the_word_is_refused_and_the_old_one_stays(grooty, text):
    write_captions(grooty, FIRST, RED)
    with pytest.raises(UserError, match=r"Put \{\} into “.*”, once"):
        write_captions(grooty, FIRST, text)
    assert captions_of(grooty) == {FIRST: [RED]}


def test_half_a_character_in_a_caption_is_one_sentence_and_the_old_one_stays(grooty):
    write_captions(grooty, FIRST, RED)
    with pytest.raises(UserError, match="half a character"):
        write_captions(grooty, FIRST, "a {} \ud800")
    assert captions_of(grooty) == {FIRST: [RED]}


def test_a_file_that_can_not_be_used_is_named(grooty):
    file_of(grooty, "grooty-2.txt").write_text("a toy")
    with pytest.raises(UserError, match=r"images/grooty-2\.txt: Put \{\}"):
        captions_of(grooty)
    file_of(grooty, "grooty-2.txt").write_bytes(b"\xff\xfe\x00\xd8")
    with pytest.raises(UserError, match=r"images/grooty-2\.txt is not text"):
        TextualInversionDataset(grooty, [], 64)


def test_a_caption_for_a_picture_that_is_not_there_is_refused(grooty):
    with pytest.raises(UserError, match=r"There is no picture “\.\./concept\.json”"):
        write_captions(grooty, "../concept.json", RED)


def test_a_caption_goes_with_its_picture(concepts, grooty):
    add_images("other", [file_of(grooty, FIRST), file_of(grooty, SECOND)], "miniature")
    other = Concept.make("other")
    write_captions(other, "002.png", RED)
    remove_image(other, "002.png")
    add_images(other, file_of(grooty, SECOND))
    assert [path.name for path in image_paths(other)] == ["001.png", "002.png"] and captions_of(other) == {}
    write_captions(other, "002.png", RED)
    file_of(other, "002.png").unlink()  # by hand
    add_images(other, file_of(grooty, SECOND))
    assert captions_of(other) == {}, "an old caption does not come under a new picture"


def test_captions_are_no_refused_pictures(grooty):
    write_captions(grooty, FIRST, RED)
    verdicts = add_images("other", grooty.images_folder, "miniature")
    assert [one.outcome for one in verdicts] == ["kept"] * 5 + ["left alone"]
    assert "1 caption in it" in verdicts[-1].why


def test_captions_travel_with_the_concept(grooty, tmp_path, monkeypatch):
    write_captions(grooty, FIRST, RED)
    archive = pack(grooty).rename(tmp_path / "grooty.zip")
    monkeypatch.setenv("CONCEPTS_ROOT", str(tmp_path / "elsewhere"))
    assert captions_of(unpack(archive)) == {FIRST: [RED]}


def test_the_dataset_shows_a_picture_with_its_own_captions_only(grooty):
    write_captions(grooty, SECOND, f"{RED}\nmy {{}} at night")
    dataset = TextualInversionDataset(grooty, load_tokenizers("miniature"), 64)
    seen = {picture: set() for picture in range(5)}
    for view, sentence in map(dataset.draw, range(2000)):
        seen[view.picture].add(dataset.prompts[sentence])
    assert all(dataset[number]["prompt"] in seen[dataset.draw(number)[0].picture] for number in range(10))
    word = "<grooty> <grooty>_1"
    assert seen.pop(1) == {f"a {word} on a red table", f"my {word} at night"}
    every = {fill(grooty, template) for template in training_templates(grooty)}
    assert all(prompts == every for prompts in seen.values())


def test_the_fixed_loss_judges_a_picture_by_its_own_captions():
    latents, ids = torch.arange(3).float().view(-1, 1, 1, 1), [torch.arange(6).unsqueeze(1)]
    fixed = FixedLoss(latents, ids, {1: range(4, 6)}, len(latents), Concept.make("x").training, seed=0)
    pairs = zip(fixed.latents.flatten().tolist(), fixed.sentences[0].flatten().tolist(), strict=True)
    assert all((picture == 1) == (sentence >= 4) for picture, sentence in pairs)


def test_the_sentences_of_a_run_end_with_the_captions(grooty):
    write_captions(grooty, SECOND, RED)
    dataset = TextualInversionDataset(grooty, [], 64)
    assert dataset.templates == (*training_templates(grooty), RED)
    assert dataset.captions == {1: range(len(dataset.templates) - 1, len(dataset.templates))}
    assert "captions of their own instead for 1 picture\n" in training_plan(grooty)
    grooty.training.max_train_steps = 3  # evaluate_every is 2
    plan = training_plan(grooty)
    assert "2 looks at the fixed loss, 2 checkpoints to" in plan, "the last step is one of each"


def test_a_changed_caption_is_another_run(grooty):
    before = run_inputs(grooty)
    save_inputs(grooty, before)
    write_captions(grooty, FIRST, RED)
    assert inputs_changed(grooty, run_inputs(grooty))
    write_captions(grooty, FIRST, "")
    assert not inputs_changed(grooty, run_inputs(grooty))


def test_a_run_tells_the_model_a_picture_s_own_caption(grooty, families, monkeypatch):
    """All pictures have captions, so no template is left in what the text encoder is given."""
    for path in image_paths(grooty):
        write_captions(grooty, path.name, f"{{}} in picture {path.stem[-1]}")
    concept = grooty.changed(base_model=str(families["sd1"]), training={"resolution": 64, "sample_every": 0})
    read, told = Model.embed, []

    def listen(model, ids):
        if torch.is_grad_enabled() and not ids[0].is_meta:  # a step: no look, and no count of the memory
            told.extend(model.components.tokenizers[0].batch_decode(ids[0], skip_special_tokens=True))
        return read(model, ids)

    monkeypatch.setattr(Model, "embed", listen)
    train(concept)
    assert len(told) == 4 * 4 and all("in picture" in sentence for sentence in told)
    assert len({*told}) == 5, "each picture has had its own"
