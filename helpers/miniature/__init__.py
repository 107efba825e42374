"""The recipe of the embedded default: a miniature Stable Diffusion that knows a world of drawn toys.

Read in this order: `world` (what there is), `drawing` and `styles` (how it looks), `captions` (how it
is said), `tokenizer`, `autoencoder`, `diffusion` (the model), `judge` (how good it is), `recipe` (how much
of everything), `build`.
"""
