"""`python -m tests.bench.outside PICTURES...`: what the miniature's autoencoder keeps of toys and of others.

The threshold of `outside_the_model` lies between. The mean of five pictures is what it asks for.
"""

import sys

import numpy as np
from PIL import Image

from helpers.concept.concept import TrainingSettings
from helpers.dataset.dataset import preprocess
from helpers.miniature.drawing import render
from helpers.model.base_model import MINIATURE, load_resolution, load_vae
from helpers.model.vae import decode, encode, psnr

from .population import SETTINGS, population
from .truth import SIDE


def main(paths: list[str]) -> None:
    """Print the least mean of the toys for each seed, and each picture's own value in dB."""
    vae, side = load_vae(MINIATURE), load_resolution(MINIATURE)

    def kept(image: Image.Image) -> float:
        original = preprocess(image, TrainingSettings(), side)[None]
        return psnr(original, decode(vae, encode(vae, original).mean))

    for seed in range(100, 104):
        sitters = [sitter for setting in SETTINGS for sitter in population(6, seed, setting)]
        means = [np.mean([kept(render(one, SIDE)) for one in sitter.drawings]) for sitter in sitters]
        print(f"seed {seed}, {len(means)} toys: {min(means):.1f} to {max(means):.1f} dB")
    for path in paths:
        print(f"{path}: {kept(Image.open(path).convert('RGB')):.1f} dB")


if __name__ == "__main__":
    main(sys.argv[1:])
