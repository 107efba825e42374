"""Words that a model knows already, and settings of a picture: in place of a training and of a drawing."""

from helpers.inference.png import PictureSettings
from helpers.model.base_model import load_components

SETTINGS = PictureSettings(
    prompt="a photo of a <grooty>, über “Eis” 🧊",
    negative_prompt="blurry",
    seed=7,
    steps=25,
    guidance=7.5,
    scheduler="DPM++ 2M",
    size=64,
    base_model="miniature",
    training_step=None,
    rows_hash="0123",
    batch_size=4,
    position=1,
)


def known_rows(base_model, words):
    """The rows of words that the model knows, from each of its text encoders."""
    parts = load_components(base_model)
    pairs = zip(parts.tokenizers, parts.text_encoders, strict=True)
    return [
        encoder.get_input_embeddings().weight[tokenizer(words, add_special_tokens=False).input_ids].detach()
        for tokenizer, encoder in pairs
    ]
