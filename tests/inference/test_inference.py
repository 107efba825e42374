import re

import diffusers
import numpy as np
import pytest
import torch
from known_words import known_rows
from transformers import BatchFeature

from helpers.common.errors import UserError
from helpers.concept.concept import Concept
from helpers.concept.embedding import (
    read_rows,
    save_result,
    save_rows,
    step_path,
    turned,
    use_step,
)
from helpers.inference.examples import examples_for, own_prompt
from helpers.inference.grid import a_few_steps, xy_grid
from helpers.inference.pipeline import (
    SCHEDULERS,
    add_word,
    check,
    generate,
    pipeline_with_word,
    remake,
    switch_step,
)
from helpers.inference.png import PictureSettings, save_picture
from helpers.model.base_model import load_pipeline

PROMPT = "a photo of a <grooty> on a beach"
QUICK = {"steps": 3, "guidance": 4.0}


def pixels(picture):
    return np.asarray(picture.image)


def same(one, other):
    return np.array_equal(pixels(one), pixels(other))


def distance(one, other):
    """The largest difference of a pixel; places in a batch may differ by rounding."""
    return np.abs(pixels(one).astype(int) - pixels(other).astype(int)).max()


def test_the_word_means_what_its_rows_say(miniature):
    _, pipeline = miniature
    by_word, by_name = generate(
        pipeline, ["a photo of a <grooty> on a beach", "a photo of a red toy on a beach"], **QUICK
    )
    assert same(by_word, by_name)


def test_a_seed_gives_the_same_picture_alone_and_in_any_grid(miniature):
    _, pipeline = miniature
    together = generate(pipeline, PROMPT, range(3), **QUICK)
    alone = generate(pipeline, PROMPT, 2, **QUICK)[0]
    by_twos = generate(pipeline, PROMPT, [2, 1, 0], batch_size=2, **QUICK)
    # On a processor that computes in bfloat16, a batch of another size may be rounded otherwise.
    for picture in (alone, by_twos[0]):
        assert abs(pixels(picture).astype(int) - pixels(together[2])).mean() < 1
    assert not same(together[0], together[1])


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_a_saved_picture_is_made_again_bit_for_bit(scheduler, miniature, tmp_path):
    _, pipeline = miniature
    picture = generate(pipeline, PROMPT, range(2), scheduler=scheduler, negative_prompt="blurry", **QUICK)[1]
    generate(pipeline, "a toy", scheduler="Euler a", **QUICK)  # whatever was drawn in between
    again = remake(save_picture(picture, tmp_path), pipeline)
    assert same(again, picture) and again.settings == picture.settings


def test_a_picture_is_made_again_from_the_file_alone(miniature, tmp_path):
    concept, pipeline = miniature
    switch_step(pipeline, concept, 10)
    picture = generate(pipeline, PROMPT, size=32, **QUICK)[0]
    switch_step(pipeline, concept, None)
    path, result = save_picture(picture, tmp_path), concept.embeds_path.read_bytes()
    concept.embeds_path.unlink()  # as during a run: there are steps, and no result yet
    assert same(remake(path), picture)
    concept.embeds_path.write_bytes(result)


def test_a_word_that_was_learned_again_is_not_passed_off_as_the_old_one(miniature, tmp_path):
    concept, pipeline = miniature
    path = save_picture(generate(pipeline, PROMPT, **QUICK)[0], tmp_path)
    save_result(concept, known_rows("miniature", "green toy"))
    switch_step(pipeline, concept, None)
    for given in (pipeline, None):
        with pytest.raises(UserError, match="learned again since"):
            remake(path, given)
    save_result(concept, known_rows("miniature", "red toy"))
    switch_step(pipeline, concept, None)


def test_a_pipeline_without_a_word_makes_no_picture_again(miniature, tmp_path):
    _, pipeline = miniature
    path = save_picture(generate(pipeline, PROMPT, **QUICK)[0], tmp_path)
    with pytest.raises(UserError, match="no word in this pipeline"):
        remake(path, type(pipeline)(**pipeline.components, requires_safety_checker=False))


def test_a_pipeline_from_before_the_word_was_learned_again_does_not_pass_for_the_new_one(miniature, tmp_path):
    concept, pipeline = miniature
    save_result(concept, known_rows("miniature", "green toy"))
    path = save_picture(generate(pipeline_with_word(concept), PROMPT, **QUICK)[0], tmp_path)
    with pytest.raises(UserError, match="learned again since"):
        remake(path, pipeline)
    save_result(concept, known_rows("miniature", "red toy"))


def test_a_picture_is_made_again_whichever_step_is_in_use(miniature, tmp_path):
    concept, pipeline = miniature
    picture = generate(pipeline, PROMPT, **QUICK)[0]
    switch_step(pipeline, concept, 10)
    assert same(remake(save_picture(picture, tmp_path), pipeline), picture)
    assert pipeline.learned_word.step == 10
    switch_step(pipeline, concept, None)


def test_numbers_may_be_typed_in_quotes(miniature):
    typed = generate(miniature[1], PROMPT, "1", steps="1", size="64")[0]
    given = generate(miniature[1], PROMPT, 1, steps=1, size=64)[0]
    assert same(typed, given) and typed.settings == given.settings


@pytest.mark.parametrize("typo", ["<groty>", "<grooty2>", "<gro\u200boty>"])
def test_a_word_that_does_not_exist_is_named(typo, miniature):
    with pytest.raises(UserError, match=f"{typo}, which was not learned: the word here is <grooty>"):
        generate(miniature[1], ["a photo of a <grooty>", f"a photo of a {typo}"], **QUICK)


@pytest.mark.parametrize("half", ["<grooty", "grooty>", "(<Grooty:1.2)"])
def test_a_word_that_lacks_a_bracket_is_refused(half, miniature):
    with pytest.raises(UserError, match="in the prompt lacks a bracket: write <grooty>"):
        generate(miniature[1], f"a photo of a {half} on a beach", **QUICK)


@pytest.mark.parametrize("bare", ["grooty", "Grooty", "(grooty:1.2)"])
def test_a_word_without_brackets_is_drawn_and_said(bare, miniature, capsys):
    generate(miniature[1], f"a photo of a {bare}, not a <grooty>", steps=1)
    assert "has no brackets, so it is not your word, which is <grooty>." in capsys.readouterr().out


def test_letters_of_a_word_that_the_model_knows_are_no_slip(capsys):
    pipeline = load_pipeline("miniature")
    add_word(pipeline, "<a>", known_rows("miniature", "red toy"))
    add_word(pipeline, "<toy>", known_rows("miniature", "red toy"))
    generate(pipeline, "a photo of a toy and <a>", steps=1)
    assert "brackets" not in capsys.readouterr().out


def test_a_word_in_capitals_is_the_word(miniature):
    small, large = generate(miniature[1], ["a photo of a <grooty>", "a photo of a <GROOTY>"], **QUICK)
    assert small.image.tobytes() == large.image.tobytes()


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"prompts": None}, "prompt: give words in quotes (you gave None)"),
        ({"negative_prompt": None}, "negative_prompt: give words in quotes (you gave None)"),
        ({"steps": "many"}, "steps: give a whole number (you gave 'many')"),
        ({"prompts": "a \ud800"}, "half a character in 'a \\ud800'"),
        ({"negative_prompt": "\udc00"}, "half a character"),
        ({"steps": 2.5}, "steps: give a whole number (you gave 2.5)"),
        ({"guidance": None}, "guidance: give a number"),
        ({"seeds": "x"}, "seed: give a whole number"),
        ({"seeds": 1.5}, "seed: give a whole number"),
        ({"size": "large"}, "size: give a whole number"),
        ({"size": 20}, "size: give a multiple of 8"),
        ({"batch_size": -1}, "batch_size: give 1 or more"),
        ({"batch_size": "all"}, "batch_size: give a whole number"),
    ],
)
def test_a_value_of_another_kind_is_named_before_anything_is_drawn(wrong, sentence, miniature):
    with pytest.raises(UserError, match=re.escape(sentence)):
        generate(miniature[1], **{"prompts": "a toy", **wrong})


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory"), MemoryError()],
)
def test_a_full_memory_is_a_sentence_when_drawing(error, miniature, monkeypatch):
    def full(*given, **named):
        raise error

    monkeypatch.setattr(miniature[1].unet, "forward", full)
    with pytest.raises(UserError, match=r"memory is full: draw smaller pictures .*batch_size=1"):
        generate(miniature[1], "a toy", **QUICK)


def test_prompts_and_seeds_that_do_not_pair_and_unknown_schedulers_are_named(miniature):
    with pytest.raises(UserError, match="2 prompts and 3 seeds"):
        generate(miniature[1], ["a toy", "a cat"], [1, 2, 3], **QUICK)
    with pytest.raises(UserError, match=r"scheduler: choose 'DPM\+\+ 2M', 'DDIM'.* \(you gave 'Euler b'\)"):
        generate(miniature[1], "a toy", scheduler="Euler b", **QUICK)


@pytest.mark.parametrize("name", SCHEDULERS)
def test_the_largest_number_of_steps_goes_through_or_is_refused(name, miniature):
    """Some schedulers would look up a level of noise that the model does not have."""
    _, pipeline = miniature
    for steps in (1, 500, 999, 1000):
        try:
            check(pipeline, [PictureSettings(prompt="a toy", steps=steps, scheduler=name)])
        except UserError as error:
            assert steps > 900 and f"{name} can't take {steps} steps" in str(error)
        else:
            latents = walk_through(pipeline, name, steps)
            assert latents.isfinite().all()


def walk_through(pipeline, name, steps):
    kind, settings = SCHEDULERS[name]
    scheduler = getattr(diffusers, kind).from_config(pipeline.scheduler.config, **settings)
    scheduler.set_timesteps(steps)
    latents = torch.zeros(1, 4, 2, 2)
    for timestep in scheduler.timesteps:
        noise = torch.zeros_like(latents)
        latents = scheduler.step(noise, timestep, scheduler.scale_model_input(latents, timestep)).prev_sample
    return latents


@pytest.mark.parametrize(("count", "said"), [(4, "4 vectors"), (1, "1 vector, and")])
def test_a_step_with_more_or_fewer_vectors_than_the_word_here_is_refused(count, said, miniature):
    """More would go into the row of a token that stands for everything unknown, fewer leave an old row."""
    concept, pipeline = miniature
    table = pipeline.text_encoder.get_input_embeddings().weight
    before = table.detach().clone()
    save_rows(step_path(concept, 30), concept, [torch.ones(count, table.shape[1])])
    with pytest.raises(UserError, match=said):
        switch_step(pipeline, concept, 30)
    step_path(concept, 30).unlink()
    assert torch.equal(table, before)


def test_a_random_seed_of_other_programs_is_named(miniature):
    with pytest.raises(UserError, match="-1 does not mean “random”"):
        generate(miniature[1], "a toy", [3, -1], **QUICK)


def test_rows_of_another_width_are_refused_and_leave_the_pipeline_as_it_is(miniature):
    _, pipeline = miniature
    size = len(pipeline.tokenizer)
    with pytest.raises(UserError, match=r"<other> was learned on another base model .* are 768 wide"):
        add_word(pipeline, "<other>", [torch.zeros(1, 768)])
    assert len(pipeline.tokenizer) == size


def test_schedulers_and_guidance_make_a_difference(miniature):
    _, pipeline = miniature
    shown = [generate(pipeline, PROMPT, scheduler=name, **QUICK)[0] for name in SCHEDULERS]
    shown.append(generate(pipeline, PROMPT, steps=3, guidance=1.0)[0])
    assert len({pixels(picture).tobytes() for picture in shown}) == len(shown)


def test_nothing_learned_yet_is_said_before_anything_loads(grooty):
    with pytest.raises(UserError, match="<grooty> has not been learned yet: run notebook 4 first"):
        pipeline_with_word(grooty)


def test_a_word_of_another_base_model_is_refused(grooty):
    save_result(grooty, [torch.zeros(1, 999)])
    with pytest.raises(UserError, match="learned on another base model"):
        pipeline_with_word(grooty)
    save_result(grooty, [torch.zeros(1, 999), torch.zeros(1, 1280)])
    with pytest.raises(UserError, match="999 and 1280 wide"):
        pipeline_with_word(grooty)


def test_a_damaged_file_and_a_step_not_kept_are_named(grooty):
    grooty.embeds_path.write_bytes(b"torn")
    with pytest.raises(UserError, match="damaged"):
        read_rows(grooty)
    save_rows(step_path(grooty, 50), grooty, [torch.zeros(1, 4)])
    with pytest.raises(UserError, match="Step 60 was not kept: choose one of these: 50"):
        use_step(grooty, 60)
    assert grooty.embeds_path.read_bytes() == b"torn"


def test_a_chosen_step_becomes_the_result_and_the_old_one_is_kept(grooty):
    for step in (50, 100):
        save_rows(step_path(grooty, step), grooty, [torch.full((1, 4), float(step))])
    save_result(grooty, [torch.full((1, 4), 73.0)])
    for step in (50, 100, 50):
        use_step(grooty, step)
        assert read_rows(grooty)[0].unique().item() == step
        assert torch.load(grooty.embeds_path.with_suffix(".bin"))["<grooty>"].unique().item() == step
    (kept,) = (grooty.training_folder / "replaced").iterdir()
    grooty.embeds_path.write_bytes(kept.read_bytes())
    assert read_rows(grooty)[0].unique().item() == 73


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_every_family_draws_its_word(family, families, concepts):
    concept = Concept.make("grooty", base_model=str(families[family]), vectors=2)
    rows = known_rows(concept.base_model, "green toy")
    save_result(concept, rows)
    pipeline = pipeline_with_word(concept)
    prompts = ["a photo of a <grooty>", "a photo of a green toy", "a photo of a red toy"]
    by_word, by_name, another = generate(pipeline, prompts, size=64, steps=2)
    assert distance(by_word, by_name) <= 1 < distance(by_word, another)


def test_a_safety_checker_stays_on_and_says_what_it_did(grooty, monkeypatch, capsys):
    monkeypatch.setattr(
        "helpers.inference.pipeline.load_pipeline", lambda *given, **named: checked_pipeline()
    )
    save_result(grooty, known_rows("miniature", "red toy"))
    grooty.save()
    black = generate(pipeline_with_word(grooty), PROMPT, **QUICK)[0]
    assert black.image.getextrema() == ((0, 0),) * 3 and "1 picture black" in capsys.readouterr().out
    shown = generate(pipeline_with_word(grooty, safety_checker=False), PROMPT, **QUICK)[0]
    assert shown.image.getextrema() != ((0, 0),) * 3


def checked_pipeline():
    """The miniature with a checker that refuses everything."""
    pipeline = load_pipeline("miniature")
    pipeline.feature_extractor = lambda images, return_tensors: BatchFeature({"pixel_values": torch.ones(1)})
    pipeline.safety_checker = lambda images, clip_input: (images * 0, [True] * len(images))
    return pipeline


def test_a_pipeline_without_a_word_draws_and_says_so():
    pipeline = load_pipeline("miniature")
    picture = generate(pipeline, "a photo of a toy", **QUICK)[0]
    assert picture.settings.rows_hash is None
    with pytest.raises(UserError, match="no word is loaded"):
        generate(pipeline, PROMPT, **QUICK)


def test_sheets_are_saved_with_all_their_pictures(miniature):
    concept, pipeline = miniature
    prompts = ["a photo of a {} on a beach", "a photo of a {} at night"]
    words = (concept.initializer_token, concept.placeholder_token)
    sheets = [
        xy_grid(pipeline, ("seed", range(3)), prompt=PROMPT, columns=2, **QUICK),
        xy_grid(pipeline, ("prompt", prompts), ("word", words), **QUICK),
        xy_grid(pipeline, ("seed", range(2)), ("prompt", [PROMPT]), **QUICK),
        xy_grid(pipeline, ("seed", [7]), ("guidance", [1, 4]), prompt=PROMPT, steps=3),
        xy_grid(pipeline, ("seed", [7]), ("scheduler", ["DDIM", "PLMS"]), prompt=PROMPT, **QUICK),
        xy_grid(pipeline, ("prompt", prompts), ("training_step", [10, 20, None]), **QUICK),
    ]
    for sheet in sheets:
        path = sheet.save(concept)
        assert path.parent == concept.grids_folder
        assert len(list(path.with_suffix("").glob("*.png"))) == len(sheet.pictures)
    before, after = sheets[1].pictures[0], sheets[1].pictures[2]
    assert "toy" in before.settings.prompt and "<grooty>" in after.settings.prompt


def test_the_steps_sheet_shows_each_step_and_leaves_the_result_loaded(miniature):
    _, pipeline = miniature
    axes = ("prompt", ["a photo of a {}"]), ("training_step", [10, 20, None])
    sheet = xy_grid(pipeline, *axes, **QUICK)
    green, red, result = sheet.pictures
    assert not same(green, red) and same(red, result)
    assert [picture.settings.training_step for picture in sheet.pictures] == [10, 20, None]
    assert pipeline.learned_word.step is None


def test_a_few_steps_run_from_the_first_to_the_last(grooty):
    for step in range(0, 601, 50):
        save_rows(step_path(grooty, step), grooty, [torch.zeros(1, 4)])
    assert a_few_steps(grooty, 4) == [0, 200, 400, 600]
    assert len(a_few_steps(grooty, 50)) == 13


@pytest.mark.parametrize("base_model", ["miniature", "owner/stable-diffusion"])
@pytest.mark.parametrize("what_to_teach", ["object", "style"])
def test_every_example_has_one_place_for_the_word(base_model, what_to_teach):
    examples = examples_for(Concept.make("grooty", base_model=base_model, what_to_teach=what_to_teach))
    prompts = (examples.own, *examples.scenes, *examples.styles, *examples.accessories)
    assert all(prompt.count("{}") == 1 for prompt in prompts)


def test_a_prompt_of_ones_own_needs_the_word(grooty):
    assert own_prompt(grooty, "a {} in the snow") == "a <grooty> in the snow"
    assert own_prompt(grooty, "<Grooty> asleep") == "<Grooty> asleep"
    with pytest.raises(UserError, match="“a robot on the moon” has no place for your word"):
        own_prompt(grooty, "a robot on the moon")


def test_a_word_is_turned_to_the_class_word_and_back(grooty):
    start, learned = torch.tensor([[3.0, 0.0], [0.0, 2.0]]), torch.tensor([[0.0, 5.0], [0.0, 4.0]])
    for step, rows in ((0, start), (60, learned)):
        save_rows(step_path(grooty, step), grooty, [rows])
    save_result(grooty, [learned])
    assert torch.equal(turned(grooty, 60, 0)[0], learned)
    assert torch.allclose(turned(grooty, 60, 1)[0], start, atol=1e-5)
    half = torch.tensor([[4.5**0.5, 4.5**0.5], [0.0, 2.0]])
    use_step(grooty, 60, 0.5)
    assert torch.allclose(read_rows(grooty)[0], half)
    use_step(grooty, 60)
    assert torch.equal(read_rows(grooty)[0], learned)
    with pytest.raises(UserError, match="class word"):
        use_step(grooty, 60, 1.5)
