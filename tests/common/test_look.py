"""What a page is given besides pixels: texts for pictures, one manner for figures, bars, and no remarks."""

import json
import re
import subprocess
import sys
import time

import nbclient
import nbformat
import pytest
from IPython.core.formatters import DisplayFormatter
from jupyter_client.manager import start_new_kernel
from matplotlib import pyplot
from PIL import Image

from helpers.common import places
from helpers.common.progress import progress
from helpers.common.sheets import described, finish, html_table, image_grid, new_figure
from helpers.training.figures import plot_run, sample_animation, sample_sheet
from helpers.training.records import Log, RunSummary, read_log, row_norms

SQUARE = Image.new("RGB", (8, 8), "brown")


def run_code(code, **how):
    return subprocess.run(
        [sys.executable, "-c", code], cwd=places.repository_folder(), capture_output=True, text=True, **how
    )


def test_a_grid_says_what_is_on_it():
    data, metadata = DisplayFormatter().format(image_grid([SQUARE] * 3, 2, ["one", "two <3>", "three"]))
    said = "3 pictures, 2 in a row: one, two <3>, three."
    assert data["text/plain"] == said and not metadata
    assert 'alt="3 pictures, 2 in a row: one, two &lt;3&gt;, three."' in data["text/html"]
    assert 'src="data:image/webp;base64,' in data["text/html"] and "requestFullscreen" in data["text/html"]
    assert image_grid([SQUARE], 5).alt == "One picture." and image_grid([SQUARE], 1, alt="mine").alt == "mine"


def test_a_picture_with_a_text_is_a_picture_as_any_other(tmp_path):
    picture = described(SQUARE, "a brown square")
    assert picture.tobytes() == SQUARE.tobytes() and picture.size == (8, 8)
    picture.crop((0, 0, 4, 4)).save(tmp_path / "part.png")
    picture.save(tmp_path / "whole.jpg")
    assert Image.open(tmp_path / "part.png").size == (4, 4)


def test_a_sheet_is_transparent_between_its_pictures_and_wraps_its_captions_at_words():
    caption = "a photo of a <grooty> wearing a scarf on a beach"
    one, long = image_grid([SQUARE] * 2, 2, ["short"] * 2), image_grid([SQUARE] * 2, 2, [caption] * 2)
    assert long.size[0] == one.size[0] == 2 * 192 + 4 and long.size[1] > one.size[1]
    assert one.getpixel((193, 10))[3] == 0 and one.getpixel((10, 10)) == (165, 42, 42, 255)
    assert one.getchannel("A").crop((0, 192, *one.size)).getbbox(), "the caption"


def test_numbers_stand_at_the_right_below_their_titles():
    shown = html_table([("grooty", "15.4 MB"), ("7 cats", "8 bytes")], ("concept", "size"))
    cells = re.findall(r'style="text-align:(left|right)[^>]*>([^<]*)<', shown)
    assert [side for side, text in cells] == ["left", "right"] * 3


def test_figures_have_the_ground_of_the_page_and_change_nothing_global():
    before = dict(pyplot.rcParams)
    axes = new_figure(columns=2)
    axes[0].plot([1, 2, 3])
    picture = finish(axes[0], "a line")
    assert picture.getpixel((0, 0))[3] == 0 and picture.alt == "a line"
    assert not axes[1].spines["top"].get_visible() and dict(pyplot.rcParams) == before
    assert not pyplot.get_fignums()


def test_the_plot_of_a_run_names_each_row(grooty):
    grooty.training_folder.mkdir()
    log = Log(grooty.training_folder, 0)
    log.write(0, fixed_loss=0.08, score=0.0)
    log.write(1, loss=0.1, norm=1.5, norms=[1.0, 2.0])
    log.write(2, loss=0.1, norm=1.0, norms=[0.5, 1.5], fixed_loss=0.07)
    log.close()
    RunSummary("grooty", "ceiling", "It reached max_train_steps.", 2, 2, 1.0, 0.08, 0.07).save(
        grooty.training_folder
    )
    assert row_norms(grooty, read_log(grooty.training_folder)) == {
        "<grooty>": ([1, 2], [1.0, 0.5]),
        "<grooty>_1": ([1, 2], [2.0, 1.5]),
    }
    said = plot_run(grooty).alt
    assert "fixed loss from 0.0800 at step 0 to 0.0700" in said
    assert "length of each row <grooty>_1 from 2.0000 at step 1 to 1.5000" in said
    assert "The step that was kept: 2." in said
    assert "No samples were drawn" in sample_sheet(grooty).data == sample_animation(grooty).data


def test_xl_has_a_curve_for_each_row_of_both_encoders(grooty):
    lines = [{"step": 1, "norms": [1.0, 2.0, 3.0, 4.0]}]
    assert list(row_norms(grooty, lines)) == [
        "<grooty>",
        "<grooty>_1",
        "<grooty>, second encoder",
        "<grooty>_1, second encoder",
    ]


def test_a_bar_goes_through_everything_and_writes_into_no_file(capfd):
    assert list(progress(iter("abc"), "letters", total=3, at_once=True)) == ["a", "b", "c"]
    assert capfd.readouterr().err == ""


def test_a_terminal_is_shown_what_is_going_on():
    code = (
        "import sys; sys.stderr.isatty = lambda: True\n"
        "from helpers.common.progress import progress\n"
        "list(progress('abc', 'letters', at_once=True)); list(progress('abc', 'too short'))"
    )
    shown = run_code(code).stderr
    assert "letters" in shown and "too short" not in shown


def test_a_bar_in_a_notebook_is_seen_and_leaves_no_text_in_its_file():
    heard = []

    class Listener(nbclient.NotebookClient):
        def process_message(self, message, *place):
            heard.append(message["content"].get("data", {}).get("text/plain", ""))
            return super().process_message(message, *place)

    code = (
        "from helpers.common.progress import progress, progress_bar\n"
        "print(*progress('abc', 'letters', at_once=True))\n"
        "with progress_bar('too short', 3) as bar:\n    bar.update(3)"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    place = {"metadata": {"path": places.repository_folder()}}
    outputs = Listener(notebook, resources=place).execute().cells[0].outputs
    assert [text[:7] for text in heard if text] == ["letters"]
    assert [output.data for output in outputs if "data" in output] == [{"text/plain": ""}]
    assert [output.text for output in outputs if "text" in output] == ["a b c\n"]


def test_no_cell_runs_after_one_that_was_refused():
    """“Run All” sends the cells one after the other, and some are on their way when one is refused."""
    manager, client = start_new_kernel(cwd=str(places.repository_folder()))
    status = {}

    def wait_for(sent):
        while not status.keys() >= {*sent}:  # on a busy machine, answers to the start come in between
            reply = client.get_shell_msg(timeout=60)
            status[reply["parent_header"]["msg_id"]] = reply["content"]["status"]

    try:
        sent = [client.execute("from helpers.concept.concept import Concept")]
        wait_for(sent)
        for code in ("Concept.load('mistyped')", "1", "2", "3"):
            sent.append(client.execute(code))
            time.sleep(0.05)
        wait_for(sent)
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert [status[one] for one in sent[1:]] == ["error", "aborted", "aborted", "aborted"]


def test_bitsandbytes_is_imported_without_a_remark():
    pytest.importorskip("bitsandbytes")
    ran = run_code(
        "from helpers.model.machine import bitsandbytes; print(bitsandbytes().nn.Linear4bit.__name__)"
    )
    assert ran.stdout.strip() == "Linear4bit" and ran.stderr == ""


def test_a_forecast_of_memory_is_without_a_remark():
    code = (
        "import torch\nfrom helpers.concept.concept import Concept\n"
        "from helpers.training.forecast import memory_needed\n"
        "print(memory_needed(Concept.make('grooty'), torch.float32))"
    )
    ran = run_code(code)
    assert "weights=" in ran.stdout and ran.stderr == ""


def test_every_picture_in_the_notebooks_has_its_text():
    for path in sorted((places.repository_folder() / "notebooks").glob("[0-9]_*.ipynb")):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            for output in cell.get("outputs", []):
                data, known = output.get("data", {}), output.get("metadata", {})
                bare = [mime for mime in data if mime.startswith("image/")]
                assert all(known.get(mime, {}).get("alt") for mime in bare), f"{path.name}: {cell['id']}"
                pictures = re.findall("<img [^>]*>", "".join(data.get("text/html", [])))
                assert all(re.search('alt="[^"]', tag) for tag in pictures), f"{path.name}: {cell['id']}"
