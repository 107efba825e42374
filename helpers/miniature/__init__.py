"""The recipe of the embedded default, a small Stable Diffusion that knows a world of drawn toys; its judge.

Read in this order: `world`, `drawing`, `captions`, `autoencoder`, `diffusion`, `judge`, `build`.
"""
