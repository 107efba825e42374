"""The notebooks from 2 on run on every family, so that nothing rests on the miniature's sizes."""

import pytest
from families import FAMILIES

from helpers import run
from helpers.concept import Concept
from helpers.run import run_notebook

NOTEBOOKS = run.notebooks()[1:]
SHORT = {
    "resolution": 64,
    "max_train_steps": 2,
    "evaluate_every": 1,
    "sample_every": 0,
    "checkpoint_every": 2,
    "lr_warmup_steps": 1,
    "train_batch_size": 1,
    "mixed_precision": "no",
}
DRAWING = {"DRAW_STEPS": 1, "PICTURE_SIZE": 64}


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_the_series_runs(family, families, grooty, tmp_path):
    given = {"CONCEPT": "grooty", "BASE_MODEL": str(families[family]), "TRAINING": SHORT, **DRAWING}
    for notebook in NOTEBOOKS:
        run_notebook(notebook, tmp_path / "notebooks", given)
    assert Concept.load("grooty").base_model == str(families[family])
