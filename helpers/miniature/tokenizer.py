"""The tokenizer: CLIP's byte-pair encoding, learned on captions of the world.

Every word of the world is one token; any other text falls into pieces, down to single bytes.
"""

import json
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from .captions import caption
from .world import named_toys, sample_drawing

MAX_LENGTH = 48  # tokens of a prompt, the two that mark its ends included
_BEGIN, _END = "<|startoftext|>", "<|endoftext|>"
# Words that no caption holds, but that a person may start from or say.
_FURTHER_WORDS = """doll robot cat dog bear rabbit monster animal creature person object thing figure
figurine statue sticker drawing art image portrait groot plant tree character sepia style black gray gold
silver this that their his her or and two three happy sad old new""".split()


def corpus(count: int = 20_000) -> list[str]:
    """Captions of the world in training's proportions, with the further words strewn in often."""
    rng = np.random.default_rng(11)
    names = list(named_toys())
    sentences = [
        caption(sample_drawing(rng), rng, names[n % len(names)] if n % 4 == 0 else None)[0]
        for n in range(count)
    ]
    return sentences + [" ".join(_FURTHER_WORDS)] * 200


def build_tokenizer(folder: Path) -> CLIPTokenizer:
    """Learn the merges and save the tokenizer in CLIP's form to `folder`."""
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=_END))
    learner.normalizer = normalizers.Lowercase()
    # CLIPTokenizer's own way of cutting a sentence into words, then bytes.
    learner.pre_tokenizer = CLIPTokenizer(
        vocab={_BEGIN: 0, _END: 1}, merges=[]
    ).backend_tokenizer.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=4_000,
        min_frequency=2,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    learner.train_from_iterator(corpus(), trainer)
    merges = _merges(learner)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pieces = (
        alphabet
        + [letter + "</w>" for letter in alphabet]
        + ["".join(pair) for pair in merges]
        + [_BEGIN, _END]
    )
    vocabulary = {piece: index for index, piece in enumerate(dict.fromkeys(pieces))}
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_LENGTH)
    tokenizer.save_pretrained(folder)
    _write_older_form(folder, vocabulary, merges)
    return tokenizer


def _write_older_form(folder: Path, vocabulary: dict[str, int], merges: list[tuple[str, str]]) -> None:
    """`vocab.json` and `merges.txt`, as Stable Diffusion 1.5 ships them and older libraries read them."""
    (folder / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _merges(learner: Tokenizer) -> list[tuple[str, str]]:
    return [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
