"""Words near to what was typed, and what a placeholder collides with."""

import pytest
import torch

from helpers.concept.concept import Concept
from helpers.model.base_model import load_tokenizers, load_word_table
from helpers.model.tokens import CAPTION_WORDS, collisions, initializer_ids, nearest_words


@pytest.fixture(scope="module")
def tokenizer():
    return load_tokenizers("miniature")[0]


@pytest.fixture(scope="module")
def table():
    return load_word_table("miniature")


@pytest.mark.parametrize("typed", ["toy", "robt", "brown toy", "xylophone", "teddy bear"])
def test_each_of_the_nearest_words_could_be_the_initializer(tokenizer, table, typed):
    near = nearest_words(tokenizer, typed, table)
    assert near and typed not in near
    assert all(len(initializer_ids(tokenizer, word, vectors=1)) == 1 for word in near)


def test_a_known_word_is_looked_up_by_its_row(tokenizer, table):
    """The miniature has learned that colours go where colours go."""
    assert {"red", "green", "orange"} & {*nearest_words(tokenizer, "brown", table)[:3]}


def test_names_of_toys_and_pieces_of_words_are_left_out(tokenizer, table):
    near = {*nearest_words(tokenizer, "brown", table), *nearest_words(tokenizer, "tampa", table)}
    assert near and not near & {"pibbo", "nno", "tampa", "ddle"}
    assert set(near) <= set(tokenizer.init_kwargs[CAPTION_WORDS])


def test_the_nearest_row_is_the_first(tokenizer, table):
    (brown,), (toy,) = (initializer_ids(tokenizer, word, 1) for word in ("brown", "toy"))
    changed = table.clone()
    changed[toy] = 3 * changed[brown] + 0.001
    assert nearest_words(tokenizer, "brown", changed)[0] == "toy", "by direction, not by length"


@pytest.mark.parametrize("with_rows", [True, False])
def test_a_mistyped_word_is_looked_up_by_its_spelling(tokenizer, table, with_rows):
    assert nearest_words(tokenizer, "robt", table if with_rows else None)[0] == "robot"


def test_the_words_of_a_phrase_come_first(tokenizer, table):
    assert nearest_words(tokenizer, "brown toy", table)[:2] == ["brown", "toy"]
    assert nearest_words(tokenizer, "teddy bear", table)[0] == "bear"


def test_nothing_typed_has_nothing_near(tokenizer, table):
    assert nearest_words(tokenizer, " ", table) == []


def test_a_model_without_its_weights_on_disk_has_no_table(families, tmp_path):
    assert load_word_table(str(families["sdxl"])).ndim == 2
    for path in families["sdxl"].rglob("*"):
        if path.is_file() and path.suffix != ".safetensors":
            copy = tmp_path / path.relative_to(families["sdxl"])
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    assert load_word_table(str(tmp_path)) is None


def test_the_table_is_that_of_the_text_encoder(table):
    from helpers.model.base_model import load_components

    weight = load_components("miniature").text_encoders[0].get_input_embeddings().weight
    assert torch.equal(table, weight)


def test_a_new_word_in_brackets_stands_alone(concepts, tokenizer):
    assert collisions(Concept.make("grooty"), tokenizer) == []


def test_a_word_that_the_model_has_is_named(concepts, tokenizer):
    (sentence,) = collisions(Concept.make("grooty", placeholder_token="toy", vectors=1), tokenizer)
    assert "knows “toy” already" in sentence


def test_a_word_inside_others_is_named(concepts, tokenizer):
    (sentence,) = collisions(Concept.make("grooty", placeholder_token="orang", vectors=1), tokenizer)
    assert "a part of words such as orange" in sentence and "<orang>" in sentence


def test_another_concept_s_word_is_named_and_its_own_is_not(concepts, tokenizer):
    grooty = Concept.make("grooty")
    grooty.save()
    assert collisions(grooty, tokenizer) == []
    (sentence,) = collisions(Concept.make("second", placeholder_token="<grooty>"), tokenizer)
    assert "“grooty” has the word <grooty> as well" in sentence
    (row,) = collisions(Concept.make("third", placeholder_token="<grooty>_1", vectors=1), tokenizer)
    assert "“grooty”" in row, "a row of it is enough"


def test_a_damaged_concept_collides_with_nothing(concepts, tokenizer):
    Concept.make("broken").save().write_text("{")
    assert collisions(Concept.make("grooty"), tokenizer) == []
