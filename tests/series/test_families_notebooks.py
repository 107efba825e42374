"""The notebooks from 2 on run on every family, so that nothing rests on the miniature's sizes."""

import shutil

import pytest
from single_files import write_single_file

from helpers.concept.concept import Concept
from helpers.export.files import PROGRAMS
from helpers.series import run
from helpers.series.run import run_notebook

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


@pytest.fixture
def model(request, families, tmp_path):
    """A family as a folder, or as one file with its settings in a folder of the same name beside it."""
    family, form = request.param
    if form == "folder":
        return families[family]
    shutil.copytree(families[family], tmp_path / family, ignore=shutil.ignore_patterns("*.safetensors"))
    return write_single_file(families[family], tmp_path / f"{family}{form}")


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [
        ("sd1", "folder"),
        ("sd2", "folder"),
        ("sdxl", "folder"),
        ("sd1", ".ckpt"),
        ("sd2", ".safetensors"),
        ("sdxl", ".safetensors"),
    ],
    ids=" ".join,
    indirect=True,
)
def test_the_series_runs(model, grooty, tmp_path):
    given = {"CONCEPT": "grooty", "BASE_MODEL": str(model), "TRAINING": SHORT, **DRAWING}
    for notebook in NOTEBOOKS:
        run_notebook(notebook, tmp_path / "notebooks", given)
    concept = Concept.load("grooty")
    assert concept.base_model == str(model)
    assert {path.parent.name for path in concept.export_folder.rglob("*.safetensors")} == set(PROGRAMS)
