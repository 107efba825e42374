"""The frozen base model: found by name, on disk or on a hub, and loaded in parts.

Also the new word in its tokenizers, its autoencoder, and the number format that it computes in.
"""

from .base_model import (
    check_base_model,
    default_base_model,
    hub_login,
    load_pipeline,
    load_resolution,
    load_tokenizers,
    load_vae,
    load_word_table,
    without_gpu,
)
from .tokens import (
    add_tokens,
    check_placeholder,
    check_words,
    expand_prompt,
    initializer_ids,
    nearest_words,
    show_tokens,
)
from .vae import decode, difference, encode, psnr, to_image, to_pixel_values, worst_windows
