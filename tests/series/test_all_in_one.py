"""The all-in-one notebook, as on a cloud: names of one notebook meet those of another."""

import nbformat
import pytest

from helpers.common import places
from helpers.concept.concept import Concept
from helpers.series import publish as all_in_one
from helpers.series.run import run_notebook

SHORT = {
    "CONCEPT": "grooty",
    "BASE_MODEL": "miniature",
    "TRAINING": {"max_train_steps": 2, "evaluate_every": 2, "sample_every": 0, "checkpoint_every": 2},
    "DRAW_STEPS": 1,
}


@pytest.mark.slow
def test_it_runs_from_the_first_picture_to_the_export(concepts, tmp_path):
    (tmp_path / "helpers").symlink_to(places.repository_folder() / "helpers")
    nbformat.write(all_in_one.joined(), tmp_path / "all_in_one.ipynb")
    run_notebook(tmp_path / "all_in_one.ipynb", tmp_path / "ran", SHORT)
    concept = Concept.load("grooty")
    assert len(list(concept.images_folder.iterdir())) == 5
    assert concept.training.max_train_steps == 2 and concept.embeds_path.is_file()
    assert any(concept.grids_folder.iterdir()) and any(concept.export_folder.iterdir())
