"""A concept: one folder that holds everything about a word, with its settings and its learned rows.

Also an overview of all concepts, and operations on a whole folder: rename, delete, pack.
"""

from .concept import Concept, TrainingSettings
from .embedding import read_rows, turned, use_step
from .manage import delete_concept, empty_trash, in_trash, pack, rename_concept, restore_concept, unpack
from .overview import all_concepts, chosen_concept, concept_names, concept_sheet, concept_table, open_concept
