"""All notebooks in one kernel, as on a cloud: names of one meet those of another.

They run on models of random weights, so that nothing rests on the miniature's sizes.
"""

import shutil
import subprocess
from pathlib import Path

import pytest
from jupyter_client import AsyncKernelManager
from jupyter_core.utils import run_sync
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell
from single_files import write_single_file

from helpers.common import places
from helpers.concept.concept import Concept
from helpers.export.formats import PROGRAMS
from helpers.series import publish

TRAINING = {
    "max_train_steps": 2,
    "evaluate_every": 1,
    "sample_every": 0,
    "checkpoint_every": 2,
    "resolution": 64,
    "lr_warmup_steps": 1,
    "train_batch_size": 1,
    "mixed_precision": "no",
}


@pytest.fixture(scope="module")
def kernel():
    """One for the whole file: what a notebook does in a kernel of its own is asked in `test_notebooks`."""
    manager = AsyncKernelManager()
    run_sync(manager.start_kernel)(cwd=str(places.repository_folder() / "notebooks"))
    yield manager
    run_sync(manager.shutdown_kernel)(now=True)


def run_joined(kernel, **parameters):
    """Run the joined notebook on the concept of the series, as if nothing had been run before."""
    notebook = publish.joined()
    given = {"CONCEPT": "grooty", "DRAW_STEPS": 1, "SCORED_PICTURES": 2, **parameters}
    values = [f"{name} = {value!r}" for name, value in given.items()]
    place = [publish.is_parameters(cell) for cell in notebook.cells].index(True)
    notebook.cells.insert(place + 1, new_code_cell("\n".join(values)))
    root = f"os.environ[{places.ROOT_VARIABLE!r}] = {str(places.concepts_root())!r}"
    notebook.cells[:0] = [new_code_cell("%reset -f"), new_code_cell(f"import os\n\n{root}")]
    client = NotebookClient(notebook, km=kernel)
    client.execute()
    client.kc.stop_channels()
    return Concept.load("grooty")


def test_its_first_cell_installs_from_the_zip_once(tmp_path, monkeypatch):
    install = next(cell.source for cell in publish.joined().cells if cell.cell_type == "code")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"Put textual-inversion\.zip beside this notebook"):
        exec(install, {})

    series = tmp_path / "elsewhere" / "series"
    (series / "helpers").mkdir(parents=True)
    (series / "helpers" / "__init__.py").touch()
    (series / "requirements.txt").touch()
    shutil.make_archive("textual-inversion", "zip", series.parent)
    ran = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: ran.append(command))
    with pytest.raises(SystemExit, match="restart the kernel"):
        exec(install, {})
    assert ran[0][-1] == tmp_path / "textual-inversion" / "series" / "requirements.txt"

    exec(install, {})  # after the restart
    assert len(ran) == 1
    assert Path.cwd() == tmp_path / "textual-inversion" / "series"


@pytest.fixture
def model(request, families, tmp_path):
    """A family as one file, with its settings in a folder of the same name beside it.

    That a file opens as the same parts as its folder is asked in `test_single_file`.
    """
    family, suffix = request.param
    shutil.copytree(families[family], tmp_path / family, ignore=shutil.ignore_patterns("*.safetensors"))
    return write_single_file(families[family], tmp_path / f"{family}{suffix}")


@pytest.mark.slow
@pytest.mark.parametrize(
    "model",
    [("sd2", ".ckpt"), ("sdxl", ".safetensors")],  # the miniature is an sd1 folder: `test_notebooks`
    ids=" ".join,
    indirect=True,
)
def test_it_runs_from_the_first_picture_to_the_export(model, concepts, kernel):
    pictures = str(places.data_folder() / "grooty")
    given = {"BASE_MODEL": str(model), "ADDRESSES": pictures, "TRAINING": TRAINING, "PICTURE_SIZE": 64}
    concept = run_joined(kernel, **given)
    assert concept.base_model == str(model) and concept.training.max_train_steps == 2
    assert len(list(concept.images_folder.glob("*.png"))) == 5
    assert concept.embeds_path.is_file() and any(concept.grids_folder.iterdir())
    assert {path.parent.name for path in concept.export_folder.rglob("*.safetensors")} == set(PROGRAMS)
