"""A new word changes nothing but itself."""

import pytest
import torch

from helpers.common.errors import UserError
from helpers.concept.concept import Concept
from helpers.concept.embedding import save_result
from helpers.model import base_model, tokens
from helpers.model.base_model import load_components

WORD = ["<grooty>", "<grooty>_1", "<grooty>_2"]


@pytest.fixture
def components():
    return load_components("miniature")


@pytest.fixture(scope="module")
def tokenizer():
    return load_components("miniature").tokenizers[0]


def encode(components, prompt):
    ids = components.tokenizers[0](prompt, padding="max_length", return_tensors="pt").input_ids
    return components.text_encoders[0](ids)


def install(components, word=WORD, words="toy"):
    tokenizer, encoder = components.tokenizers[0], components.text_encoders[0]
    return tokens.install_rows(tokenizer, encoder, word, tokens.initializer_ids(tokenizer, words, len(word)))


def test_every_other_row_and_sentence_stays_bit_for_bit_through_a_training(components):
    encoder = components.text_encoders[0]
    before = {name: value.clone() for name, value in encoder.state_dict().items()}
    old_sentence = encode(components, "a photo of a toy").last_hidden_state
    learned = install(components)
    optimizer = torch.optim.AdamW([learned.rows], lr=0.1, weight_decay=0.1)
    start = learned.rows.detach().clone()
    encode(components, " ".join(WORD)).last_hidden_state.square().mean().backward()
    optimizer.step()

    assert not torch.equal(learned.rows, start)
    assert torch.equal(encode(components, "a photo of a toy").last_hidden_state, old_sentence)
    after = {name.replace(".table.", "."): value for name, value in encoder.state_dict().items()}
    assert after.keys() - before.keys() == {"embeddings.token_embedding.rows"}
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_only_the_rows_are_trainable(components):
    install(components)
    trainable = [
        name for name, value in components.text_encoders[0].named_parameters() if value.requires_grad
    ]
    assert [name.split(".")[-1] for name in trainable] == ["rows"]


def test_a_new_word_reads_like_its_initializer_before_training(components):
    install(components, ["<grooty>"], "toy")
    new, old = (encode(components, f"a photo of a {word}").last_hidden_state for word in ("<grooty>", "toy"))
    assert torch.equal(new, old)


def test_half_precision_encoders_keep_float32_rows_and_gradients():
    components = load_components("miniature", torch.bfloat16)
    learned = install(components)
    out = components.text_encoders[0].get_input_embeddings()(torch.tensor([learned.ids]))
    out.sum().backward()
    assert out.dtype == torch.bfloat16
    assert learned.rows.dtype == learned.rows.grad.dtype == torch.float32


def test_each_row_gets_the_gradient_of_its_own_places(components):
    learned = install(components)
    first, second, _ = learned.ids
    look_up = components.text_encoders[0].get_input_embeddings()
    look_up(torch.tensor([[first, 3, first], [second, 4, 5]])).sum().backward()
    assert learned.rows.grad[:, 0].tolist() == [2.0, 1.0, 0.0]


def test_several_words_live_on_one_model_each_with_its_own_rows(components):
    one, other = install(components, ["<one>"], "toy"), install(components, ["<two>", "<two>_1"], "brown")
    encode(components, "a <one> toy").last_hidden_state.sum().backward()
    assert one.rows.grad.abs().sum() > 0
    assert other.rows.grad.abs().sum() == 0
    assert other.ids == [one.ids[0] + 1, one.ids[0] + 2]


def test_rows_can_start_again_from_other_words(components):
    learned = install(components, ["<grooty>"], "toy")
    (brown,) = tokens.initializer_ids(components.tokenizers[0], "brown", 1)
    learned.start_from([brown])
    assert torch.equal(learned.rows[0], components.text_encoders[0].get_input_embeddings().weight[brown])


def test_a_word_that_the_model_knows_is_refused_and_nothing_changes(components):
    tokenizer, encoder = components.tokenizers[0], components.text_encoders[0]
    size, table = len(tokenizer), encoder.get_input_embeddings()
    with pytest.raises(UserError, match="knows “toy” already"):
        tokens.install_rows(tokenizer, encoder, ["<new>", "toy"], [0, 0])
    assert len(tokenizer) == size
    assert encoder.get_input_embeddings() is table


def test_a_word_can_not_be_installed_twice(components):
    install(components, ["<grooty>"])
    with pytest.raises(UserError, match="choose another placeholder"):
        install(components, ["<grooty>"])


def test_an_initializer_of_several_tokens_is_refused_with_words_that_would_do(tokenizer):
    with pytest.raises(UserError) as caught:
        tokens.initializer_ids(tokenizer, "grooty", 1)
    proposed = str(caught.value).split("one of these: ")[1].rstrip(".").split(", ")
    assert proposed
    for word in proposed:
        assert len(tokens.initializer_ids(tokenizer, word, 1)) == 1


def test_the_parts_of_a_phrase_are_proposed_first(tokenizer):
    with pytest.raises(UserError, match=r"one of these: brown, toy\.$"):
        tokens.initializer_ids(tokenizer, "brown toy", 1)


def test_a_phrase_is_spread_in_order_over_more_vectors(tokenizer):
    brown, toy = tokens.initializer_ids(tokenizer, "brown toy", 2)
    assert tokens.initializer_ids(tokenizer, "brown toy", 5) == [brown] * 3 + [toy] * 2


def test_a_word_of_several_vectors_is_written_out_as_diffusers_writes_it(components):
    from diffusers.loaders import TextualInversionLoaderMixin

    install(components)
    prompt = "two <grooty>, at night"
    theirs = TextualInversionLoaderMixin().maybe_convert_prompt(prompt, components.tokenizers[0])
    assert tokens.expand_prompt(prompt, WORD) == theirs == "two <grooty> <grooty>_1 <grooty>_2, at night"


def test_the_pieces_of_a_word_are_shown_as_text(tokenizer):
    assert [piece for piece, _ in tokens.pieces(tokenizer, "a Grooty")] == ["a", "g", "ro", "ot", "y"]
    shown = tokens.show_tokens(tokenizer, ["<b>"]).data
    assert "&lt;b&gt;" in shown
    assert "<b>" not in shown


def test_a_learned_word_is_shown_as_it_is_written(components):
    """Each of its letters is itself; in other tokens, é stands for a byte."""
    (tokenizer,) = components.tokenizers
    tokens.add_tokens(tokenizer, ["<café>", "<café>_1"])
    assert [piece for piece, _ in tokens.pieces(tokenizer, "a <CAFÉ>")] == ["a", "<café>", "<café>_1"]


# Words with capitals, signs and accents (one letter, or letter and accent apart), in sentences.
ODD = {
    "Grooty": "two Grooty, at night",
    "MyCat": "a mycat on a beach",
    "<Émile>": "a photo of <E\u0301mile> x",
    "<Nae\u0308h>": "a photo of <Naëh>!",
    "[V]": "a photo of [V]",
    "zz*": "a photo of zz*!",
}


def ids_that_a_pipeline_reads(pipeline, prompt):
    """The token ids that reach each text encoder."""
    seen = []
    hooks = [
        encoder.register_forward_pre_hook(lambda _, given: seen.append(given[0][0]))
        for _, encoder in tokens.encoders(pipeline)
    ]
    how = {"device": "cpu", "num_images_per_prompt": 1, "do_classifier_free_guidance": False}
    pipeline.encode_prompt(prompt, **how)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("family", ["miniature", "sd1", "sd2", "sdxl"])
def test_all_rows_of_an_odd_word_arrive_in_training_and_in_drawing(family, families):
    name = str(families.get(family, family))
    trained, pipeline = load_components(name), base_model.load_pipeline(name)
    for word, sentence in ODD.items():
        rows = [encoder.get_input_embeddings().weight[:3].detach() for encoder in trained.text_encoders]
        tokens.put_word(pipeline, word, rows)
        drawn = ids_that_a_pipeline_reads(pipeline, [sentence])
        pairs = zip(trained.tokenizers, trained.text_encoders, drawn, strict=True)
        for tokenizer, encoder, drawn_ids in pairs:
            own = tokens.install_rows(tokenizer, encoder, tokens.row_names(word, 3), [1, 2, 3]).ids
            ids = tokens.prompt_ids(tokenizer, sentence)
            assert torch.equal(ids, drawn_ids)
            assert [number for number in ids.tolist() if number in own] == own


@pytest.mark.parametrize(
    ("short", "long"), [("grooty", "grooty2"), ("<g>", "<g>_s"), ("Gro", "GROOTY"), ("<g>_", "<g>_x")]
)
def test_of_two_words_that_begin_alike_both_arrive_whole(short, long):
    pipeline = base_model.load_pipeline("miniature")
    table = pipeline.text_encoder.get_input_embeddings().weight.detach()
    for word in (short, long):
        tokens.put_word(pipeline, word, [table[:2].clone()])
    tokenizer = pipeline.tokenizer
    (ids,) = ids_that_a_pipeline_reads(pipeline, f"{long} and {short}, {long}")
    first, second = (tokenizer.convert_tokens_to_ids([word, f"{word}_1"]) for word in (short, long))
    assert [number for number in ids.tolist() if number in (*first, *second)] == [*second, *first, *second]


def test_what_is_written_out_already_stays_as_it_is():
    once = tokens.expand_prompt("a <grooty>, <GROOTY>!", WORD)
    assert once == f"a {' '.join(WORD)}, {' '.join(WORD)}!"
    assert tokens.expand_prompt(once, WORD) == once


def test_a_saved_pipeline_knows_the_whole_word_without_this_package(concepts):
    """Also one with capitals, and for diffusers as it is."""
    from diffusers import StableDiffusionPipeline

    concept = Concept.make("Grooty", vectors=2)
    table = load_components("miniature").text_encoders[0].get_input_embeddings().weight.detach()
    save_result(concept, [table[:2].clone()])
    pipeline = StableDiffusionPipeline.from_pretrained(base_model.save_pipeline(concept))
    (ids,) = ids_that_a_pipeline_reads(pipeline, "a <Grooty>")
    assert set(pipeline.tokenizer.convert_tokens_to_ids(concept.placeholder_tokens)) <= set(ids.tolist())


@pytest.mark.parametrize("word", ["oto", "Rang", "OO", "each"])
def test_a_word_that_is_a_part_of_another_is_refused_when_it_is_chosen(word, tokenizer, concepts):
    concept = Concept.make("grooty", placeholder_token=word)
    with pytest.raises(UserError, match=f"“{word}” is a part of words such as .* for example <{word}>"):
        tokens.check_words(concept, [tokenizer])
    tokens.check_words(concept.changed(placeholder_token=f"<{word}>"), [tokenizer])


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        *((word, "also comes in usual sentences") for word in ("photo.", "...", "'s", "“!?", "toy-")),
        *((word, "nobody sees") for word in ("<a\u200bb>", "\u202eabc", "<a\0b>", "<a\u00adb>")),
        ("\ud800", "half a character"),
    ],
)
def test_a_word_that_comes_in_any_text_or_cannot_be_seen_is_refused(word, sentence, tokenizer, concepts):
    with pytest.raises(UserError, match=sentence):
        tokens.check_words(Concept.make("grooty", placeholder_token=word), [tokenizer])


@pytest.mark.parametrize("again", ["<grooty>", "<Grooty>", "<grooty>_1"])
def test_a_word_is_added_to_a_pipeline_once(again):
    pipeline = base_model.load_pipeline("miniature")
    rows = pipeline.text_encoder.get_input_embeddings().weight[:2].detach().clone()
    tokens.put_word(pipeline, "<grooty>", [rows])
    with pytest.raises(UserError, match=f"knows “{again}” already"):
        tokens.put_word(pipeline, again, [rows])
    assert len(pipeline.text_encoder.get_input_embeddings().weight) == len(pipeline.tokenizer)
