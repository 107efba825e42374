"""Each notebook runs in a fresh kernel on what the ones before it left, and keeps to the budgets."""

import platform
import re
import statistics

import nbformat
import pytest

from helpers.common import places
from helpers.concept.concept import Concept
from helpers.series import publish, run

NOTEBOOKS = run.notebooks()
NAMES = [path.stem for path in NOTEBOOKS]
SHORT = {
    "CONCEPT": "grooty",
    "BASE_MODEL": "miniature",
    "TRAINING": {"max_train_steps": 4, "evaluate_every": 2, "sample_every": 2, "checkpoint_every": 2},
    "DRAW_STEPS": 2,
    "SCORED_PICTURES": 2,
    "SETTINGS": {"steps": 4, "prior_pictures": 2},
    "WEIGHTS": [0.5, 1.5],
}
MACHINE = [
    r"(?<![\w.])/(home|root|work|tmp|usr|opt|Users|content|kaggle|storage)/",
    rf"\b{re.escape(platform.node())}\b",
    r"\b(hf_|ghp_|github_pat_|sk-)\w{16,}|Bearer ",  # tokens
]
NOTEBOOK_0, NOTEBOOK_7 = run.other_notebooks()
ALL = [*NOTEBOOKS, NOTEBOOK_0, NOTEBOOK_7]
each_of_the_six = pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)
each_notebook = pytest.mark.parametrize("path", ALL, ids=[path.stem for path in ALL])


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """Runs the series for one person as far as a notebook, each in a fresh kernel; once for all tests."""
    root, ran = tmp_path_factory.mktemp("series"), []

    def run_up_to(last):
        for path in NOTEBOOKS[len(ran) : 1 + NOTEBOOKS.index(last)]:
            run.run_notebook(path, root / "grooty" / "notebooks", SHORT)
            ran.append(path)
        return root

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(places.ROOT_VARIABLE, str(root))
        yield run_up_to


def test_notebook_0_runs_where_there_is_nothing_yet(tmp_path, monkeypatch):
    monkeypatch.setenv(places.ROOT_VARIABLE, str(tmp_path / "none"))
    run.run_notebook(NOTEBOOK_0, tmp_path / "ran", {})
    shown = "\n".join(
        _text(output)
        for cell in _read(tmp_path / "ran" / NOTEBOOK_0.name).cells
        for output in cell.get("outputs", [])
    )
    assert "nothing in none/ yet: run notebook 1 first" in shown and "1_download_images" in shown


@each_of_the_six
def test_runs_in_a_fresh_kernel(path, series):
    assert (series(path) / "grooty" / "notebooks" / path.name).is_file()


def test_the_series_leaves_a_concept_with_all_its_parts(series):
    series(NOTEBOOKS[-1])
    concept = Concept.load("grooty")
    assert (
        len(list(concept.images_folder.glob("*.png"))) == len(list(concept.images_folder.glob("*.txt"))) == 5
    )
    assert concept.embeds_path.is_file() and concept.embeds_path.with_suffix(".bin").is_file()
    assert any(concept.grids_folder.iterdir()) and any(concept.export_folder.iterdir())


def test_notebook_7_teaches_a_second_toy_and_draws_both(series):
    root = series(NOTEBOOKS[-1])
    run.run_notebook(NOTEBOOK_7, root / "ran", SHORT)
    alts = [
        output.data["text/plain"]
        for cell in _read(root / "ran" / NOTEBOOK_7.name).cells
        for output in cell.get("outputs", [])
        if "<img" in output.get("data", {}).get("text/html", "")
    ]
    assert any("4 pictures that differ by weight in columns and prompt in rows" in alt for alt in alts)
    assert "of <grooty> row by row" in alts[-1] and "of sks row by row" in alts[-1]
    assert (root / "starla" / "dreambooth" / "model" / "model_index.json").is_file()
    assert Concept.load("grooty").base_model == "miniature"
    assert "both" in {path.stem for path in Concept.load("starla").grids_folder.glob("*.png")}


def test_notebook_0_shows_what_the_series_left(series):
    root = series(NOTEBOOKS[-1])
    run.run_notebook(NOTEBOOK_0, root / "ran", SHORT)
    shown = [
        output for cell in _read(root / "ran" / NOTEBOOK_0.name).cells for output in cell.get("outputs", [])
    ]
    assert "learned" in shown[2].data["text/plain"] and "<grooty>" in shown[2].data["text/plain"]
    assert "drawn with the word" in shown[3].data["text/plain"]
    assert "5_inference_grids.ipynb" in shown[5].data["text/html"]
    assert Concept.load("grooty").embeds_path.is_file(), "it must only ask before it deletes"


@each_notebook
def test_cells_are_short(path):
    lengths = sorted(len(source.splitlines()) for source in _code(path))
    assert statistics.median(lengths) <= 6
    assert lengths[int(0.9 * len(lengths))] < 20 and lengths[-1] <= 30


@each_notebook
def test_one_to_two_words_of_prose_a_word_of_code(path):
    prose = " ".join(cell.source for cell in _read(path).cells if cell.cell_type == "markdown")
    words, code = (len(re.findall(r"[A-Za-z]+", text)) for text in (prose, " ".join(_code(path))))
    assert 1 <= words / code <= 2, f"{words} words of prose, {code} of code"


@each_notebook
def test_begins_as_all_of_them_do(path):
    notebook = _read(path)
    opening = notebook.cells[0].source
    assert opening.startswith(f"# {path.stem[0]}. ")
    for word in ("takes", "makes", "Next"):
        assert word in opening
    assert _code(path)[0] == _code(NOTEBOOKS[0])[0]
    parameters = next(cell for cell in notebook.cells if publish.is_parameters(cell))
    assert "CONCEPT = None" in parameters.source


@each_notebook
def test_is_a_file_that_every_viewer_opens(path):
    notebook = _read(path)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert notebook.metadata.kernelspec.name == "python3"
    assert not {"widgets", "papermill"} & set(notebook.metadata)
    assert path.stat().st_size < 1_000_000


@each_notebook
def test_outputs_are_those_of_the_code(path):
    notebook = _read(path)
    assert notebook.metadata.get(publish.CODE_HASH) == publish.code_hash(notebook), (
        "the code was changed since: `make run`, then `make outputs`"
    )
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert any("<img" in output.get("data", {}).get("text/html", "") for output in outputs)


@each_notebook
def test_names_no_machine(path):
    shown = [_text(output) for cell in _read(path).cells for output in cell.get("outputs", [])]
    words = re.sub(r"base64,[\w+/=]+", "", "\n".join(shown))  # of a picture, any letters may come together
    for pattern in MACHINE:
        assert not re.search(pattern, words)


def test_a_sentence_of_ones_own_may_have_braces_in_notebook_3(grooty, capsys):
    grooty.own_templates = ["a {red|blue} photo of {}"]
    (cell,) = [one for one in _read(NOTEBOOKS[2]).cells if "training_templates" in one.source]
    exec(cell.source, {"concept": grooty})
    assert "a {red|blue} photo of <grooty>" in capsys.readouterr().out


def test_all_in_one_is_in_step():
    written = _read(places.repository_folder() / "notebooks" / "all_in_one.ipynb")
    assert written == publish.joined(), "`make all-in-one`"


def _read(path):
    return nbformat.read(path, as_version=4)


def _code(path):
    return [cell.source for cell in _read(path).cells if cell.cell_type == "code"]


def _text(output):
    if output.output_type == "stream":
        return output.text
    return "\n".join(
        text for mime, text in output.data.items() if isinstance(text, str) and not mime.startswith("image/")
    )
