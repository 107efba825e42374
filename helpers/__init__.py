"""Teach Stable Diffusion a new word: the machinery under the notebooks.

Importing this package loads nothing heavy; each module below imports what it needs.
"""
