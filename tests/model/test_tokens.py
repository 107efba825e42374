"""A new word changes nothing but itself."""

import pytest
import torch

from helpers.common.errors import UserError
from helpers.model import tokens
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
