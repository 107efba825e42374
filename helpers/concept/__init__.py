"""A concept: one folder that holds all there is of a word. Its settings, its learned rows, an overview of all
concepts, and what is done to a whole folder: rename, delete, pack."""

from .concept import Concept, TrainingSettings, saved_concepts
from .embedding import read_rows, use_step
