"""`make run`, `make outputs` and `make all-in-one`, on notebooks of a few lines."""

import base64
import io
import json
import re
import shutil

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from PIL import Image

from helpers.common import places
from helpers.common.errors import UserError
from helpers.concept.concept import Concept
from helpers.series import publish, run
from helpers.series import report as report_page

KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
BOOTSTRAP = f"import sys\nsys.path.insert(0, {str(places.repository_folder())!r})"
FIRST = """
from PIL import Image
from helpers.concept.concept import Concept
concept = Concept.make(CONCEPT, base_model=BASE_MODEL)
concept.save()
concept.images_folder.mkdir()
Image.new("RGB", (64, 64), "brown").save(concept.images_folder / "0.png")
"""
SECOND = """
import sys
from pathlib import Path
from PIL import Image
from helpers.common.sheets import described
print("10%\\r100%\\nlooked in", Path.home() / "pictures")
print("a warning", file=sys.stderr)
described(Image.new("RGB", (2000, 1000), "brown"), "a brown ground")
"""


ZEROTH = """
from PIL import Image
from helpers.common.sheets import described
from helpers.concept.overview import concept_names
print(*concept_names())
described(Image.new("RGB", (2000, 1000), "brown"), "a brown ground")
"""


def write_notebooks(folder):
    """Instead of the six: one that saves a concept, one that shows all sorts of things; and a notebook 0."""
    tags = {"metadata": {"tags": ["parameters"]}}
    code = {
        "1_first.ipynb": ('CONCEPT = "other"\nBASE_MODEL = None', FIRST),
        "2_second.ipynb": ('CONCEPT = "other"  # yours\nSTEPS = 3', SECOND),
        "0_start.ipynb": ('CONCEPT = "other"', ZEROTH),
    }
    for name, (parameters, source) in code.items():
        cells = [
            new_markdown_cell("# Title"),
            new_code_cell(BOOTSTRAP),
            new_markdown_cell("What you can change"),
            new_code_cell(parameters, **tags),
            new_code_cell(source.strip()),
        ]
        nbformat.write(new_notebook(cells=cells, metadata=KERNEL), folder / name)
    return [folder / name for name in code]


def put_in_place_of_the_six(patch, paths):
    *two, zeroth = paths
    patch.setattr(publish, "other_notebooks", lambda: [zeroth])
    for module in (run, publish):
        patch.setattr(module, "notebooks", lambda: two)
    return two


@pytest.fixture
def two_notebooks(concepts, tmp_path, monkeypatch):
    return put_in_place_of_the_six(monkeypatch, write_notebooks(tmp_path))


@pytest.fixture(scope="module")
def ran_once(tmp_path_factory):
    """The folder of the concept that a run of the two leaves: to be copied, not changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(places.ROOT_VARIABLE, str(tmp_path_factory.mktemp("concepts")))
        put_in_place_of_the_six(patch, write_notebooks(tmp_path_factory.mktemp("notebooks")))
        return run.run_series("brown", BASE_MODEL="some/model").parent


@pytest.fixture
def brown(ran_once, two_notebooks, concepts):
    """The concept that a run of the two notebooks left."""
    shutil.copytree(ran_once, concepts / "brown")
    return Concept.load("brown")


def test_a_run_goes_in_order_and_ends_with_a_page(two_notebooks, concepts, capsys):
    report = run.run_series("brown", BASE_MODEL="some/model")
    assert report == concepts / "brown" / "report.html"
    assert Concept.load("brown").base_model == "some/model"
    page = report.read_text()
    assert "some/model" in page and "2_second" in page
    pictures = re.findall(r'src="data:image/webp;base64,([^"]+)"', page)
    assert Image.open(io.BytesIO(base64.b64decode(pictures[0]))).getpixel((5, 5))[0] > 100
    assert not re.search(r'(src|href)="(?!data:)', page), "the page must hold everything in itself"
    said = capsys.readouterr()
    assert re.search(r"1_first +\d+\.\d s\n2_second +\d+\.\d s", said.out)
    assert "2_second" in said.err and "WARNING" not in said.err, "a bar for each notebook, and nothing else"


def test_a_failing_cell_is_one_sentence(two_notebooks, concepts):
    broken = nbformat.read(two_notebooks[1], as_version=4)
    broken.cells[-1].source = 'raise ValueError("no such picture")'
    nbformat.write(broken, two_notebooks[1])
    with pytest.raises(UserError, match=r"2_second.ipynb stopped .*ValueError: no such picture") as caught:
        run.run_series("brown", BASE_MODEL="some/model")
    assert "\n" not in str(caught.value)
    broken.cells[-1].source = "from helpers.dataset.images import load_images\nload_images('green')"
    nbformat.write(broken, two_notebooks[1])
    with pytest.raises(UserError, match=r"stopped in cell \[4\]\. The concept “green” has no pictures yet"):
        run.run_series("red", BASE_MODEL="some/model")
    assert (concepts / "brown" / "notebooks" / "2_second.ipynb").is_file()


def test_a_kernel_that_dies_is_one_sentence(two_notebooks, concepts):
    broken = nbformat.read(two_notebooks[0], as_version=4)
    broken.cells[-1].source = "import os\nos._exit(1)"
    nbformat.write(broken, two_notebooks[0])
    with pytest.raises(UserError, match=r"1_first\.ipynb: its kernel died"):
        run.run_series("brown")


def test_the_page_has_the_scores_beside_each_other(grooty):
    shares = {"traits": {"body": 0.75}, "asked": {"scene": 0.5}}
    subjects = {"word": "<grooty>", "initializer": "toy", "description": "a brown tall toy"}
    scores = {
        "said": subjects,
        "word": {"identity": 0.91, "prompt": 0.81, **shares},
        "initializer": {"identity": 0.32, "prompt": 0.92, **shares},
        "description": {"identity": 0.93, "prompt": 0.83, **shares},
    }
    grooty.export_folder.mkdir()
    (grooty.export_folder / "grooty.zip.partial").touch()  # of a killed export
    page = report_page.write_report(grooty).read_text()
    assert "There are none" in page and "partial" not in page
    (grooty.folder / "scores.json").write_text(json.dumps(scores))
    page = report_page.write_report(grooty).read_text()
    assert "<th>identity<td>0.91<td>0.32<td>0.93" in page
    assert "<th>scene<td>0.50<td>0.50<td>0.50" in page
    assert "word: &lt;grooty&gt;" in page
    assert page.index("<details>") < page.index("<th>learning_rate"), "what few read is folded away"


def test_a_name_that_is_no_folder_runs_nothing(two_notebooks, concepts):
    with pytest.raises(UserError, match="letters"):
        run.run_series("../elsewhere")
    assert not list(concepts.iterdir())


def test_a_word_to_start_from_is_asked_for_before_anything_runs(families, two_notebooks, concepts, capsys):
    model = ["--base-model", str(families["sd1"])]
    assert run.main(["--concept", "my_cat", *model]) == 1
    assert "INITIALIZER=cat" in capsys.readouterr().err and not list(concepts.iterdir())


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["--concept", "a/b"], "letters, digits"),
        (["--concept", "Kätzchen"], "letters, digits"),
        (["--concept", "my_cat"], "“my_cat” has no pictures yet: say where they are, as IMAGES=my_photos"),
        (["--images", "no/such/folder"], "“no/such/folder” can't be learned from. No file or folder"),
        (["--images", "notes"], "This folder holds no pictures"),
        (["--base-model", "notes/notes.txt"], "notes.txt is not a base model: give a .safetensors"),
        (["--base-model", "notes"], "model_index.json is missing or damaged"),
        (["--base-model", "minature"], "There is no base model at “minature”"),
    ],
)
def test_what_is_mistyped_is_said_before_anything_runs(
    given, sentence, two_notebooks, concepts, capsys, monkeypatch
):
    folder = concepts.parent / "notes"
    folder.mkdir()
    (folder / "notes.txt").write_text("buy milk")
    monkeypatch.chdir(concepts.parent)
    assert run.main(given) == 1
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1
    assert not list(concepts.iterdir())


def test_one_bad_picture_in_a_folder_stops_nothing(two_notebooks, concepts, capsys):
    folder = concepts.parent / "photos"
    folder.mkdir()
    Image.new("RGB", (64, 64)).save(folder / "good.png")
    (folder / "bad.png").write_text("no picture")
    assert run.main(["--images", str(folder), "--base-model", "some/model"]) == 0
    assert "report.html" in capsys.readouterr().out


@pytest.fixture
def published(brown, two_notebooks):
    publish.publish(brown)
    return [nbformat.read(path, as_version=4) for path in two_notebooks]


def test_published_outputs_name_no_machine(published):
    stream, picture = published[1].cells[-1].outputs
    assert stream.text == "100%\nlooked in ~/pictures\n"
    assert 'alt="a brown ground"' in picture.data["text/html"]
    assert picture.data["text/plain"] == "a brown ground"


def test_published_notebooks_keep_their_source(published):
    for notebook in published:
        assert [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"] == [1, 2, 3]
        assert "injected" not in str(notebook) and "papermill" not in str(notebook.metadata)
        assert "other" in notebook.cells[3].source
        nbformat.validate(notebook)


def test_notebook_0_is_published_with_this_concept_alone(brown):
    Concept.make("private").save()
    zeroth = nbformat.read(publish.publish(brown)[-1], as_version=4)
    stream, picture = zeroth.cells[-1].outputs
    assert stream.text == "brown\n"
    assert picture.data["text/plain"] == "a brown ground" and "<img" in picture.data["text/html"]


def test_outputs_of_other_code_are_not_published(published, two_notebooks):
    published[1].cells[-1].source += "\n1 + 1"
    nbformat.write(published[1], two_notebooks[1])
    before = two_notebooks[0].read_bytes()
    with pytest.raises(UserError, match=r"2_second\.ipynb was changed"):
        publish.publish(Concept.load("brown"))
    assert two_notebooks[0].read_bytes() == before


def test_the_joined_notebook_has_everything_once(two_notebooks):
    joined = publish.joined()
    nbformat.validate(joined)
    sources = [cell.source for cell in joined.cells]
    assert sources.count(BOOTSTRAP) == 1
    assert sources.index(BOOTSTRAP) < sources.index(FIRST.strip()) < sources.index(SECOND.strip())
    assert sources.count("# Title") == sources.count("What you can change") == 2
    (parameters,) = [cell.source for cell in joined.cells if publish.is_parameters(cell)]
    assert parameters == '# @title What you can change\nCONCEPT = "other"\nBASE_MODEL = None\nSTEPS = 3'
    second = nbformat.read(two_notebooks[1], as_version=4)
    second.cells[3].source = 'CONCEPT = "other"'
    nbformat.write(second, two_notebooks[1])
    assert [cell.source for cell in publish.joined().cells].count("What you can change") == 1


def test_the_joined_notebook_clones_an_address_that_is_there(two_notebooks, monkeypatch):
    monkeypatch.setattr(places, "REPOSITORY_ADDRESS", "https://example.org/someone/series")
    said, clone = (cell.source for cell in publish.joined().cells[1:3])
    assert "restart the kernel" in said and "switch Internet on" in said
    assert "address = 'https://example.org/someone/series'" in clone
