"""Words that a model knows already: in place of a training, where its length and luck don't matter."""

from helpers.model.base_model import load_components


def known_rows(base_model, words):
    """The rows of words that the model knows, from each of its text encoders."""
    parts = load_components(base_model)
    pairs = zip(parts.tokenizers, parts.text_encoders, strict=True)
    return [
        encoder.get_input_embeddings().weight[tokenizer(words, add_special_tokens=False).input_ids].detach()
        for tokenizer, encoder in pairs
    ]
