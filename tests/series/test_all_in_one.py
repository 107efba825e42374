"""All notebooks in one kernel, as on a cloud: names of one meet those of another.

From notebook 2 on they run on every family too, so that nothing rests on the miniature's sizes.
"""

import shutil

import nbformat
import pytest
from single_files import write_single_file

from helpers.common import places
from helpers.concept.concept import Concept
from helpers.export.files import PROGRAMS
from helpers.series import publish
from helpers.series.run import run_notebook

SHORT = {"max_train_steps": 2, "evaluate_every": 2, "sample_every": 0, "checkpoint_every": 2}
SMALL = {"resolution": 64, "lr_warmup_steps": 1, "train_batch_size": 1, "mixed_precision": "no"}


def run_joined(folder, **parameters):
    """Run the joined notebook in one kernel, on the concept of the series."""
    (folder / "helpers").symlink_to(places.repository_folder() / "helpers")
    nbformat.write(publish.joined(), folder / "all_in_one.ipynb")
    run_notebook(
        folder / "all_in_one.ipynb", folder / "ran", {"CONCEPT": "grooty", "DRAW_STEPS": 1, **parameters}
    )
    return Concept.load("grooty")


@pytest.mark.slow
def test_it_runs_from_the_first_picture_to_the_export(concepts, tmp_path):
    concept = run_joined(tmp_path, BASE_MODEL="miniature", TRAINING=SHORT)
    assert len(list(concept.images_folder.iterdir())) == 5
    assert concept.training.max_train_steps == 2 and concept.embeds_path.is_file()
    assert any(concept.grids_folder.iterdir()) and any(concept.export_folder.iterdir())


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
def test_it_runs_on_every_family(model, grooty, tmp_path, monkeypatch):
    from_notebook_2 = publish.notebooks()[1:]
    monkeypatch.setattr(publish, "notebooks", lambda: from_notebook_2)
    training = {**SHORT, **SMALL, "evaluate_every": 1}
    concept = run_joined(tmp_path, BASE_MODEL=str(model), TRAINING=training, PICTURE_SIZE=64)
    assert concept.base_model == str(model)
    assert {path.parent.name for path in concept.export_folder.rglob("*.safetensors")} == set(PROGRAMS)
