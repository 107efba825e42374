"""The notebooks in JupyterLab, as a person uses them: open, run, change a widget, look at the result."""

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import nbformat
import numpy as np
import pytest
from PIL import Image

from helpers import places
from helpers.concept import Concept
from helpers.training.log import read_log

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
SECONDS = 300
# A kernel that answers late, as on a busy machine, would be taken for one without subshells.
KERNELS, PATIENT = "apputils-extension/kernels-settings", {"kernelInfoTimeout": 1000 * SECONDS}
STEPS = 400  # of a training that is stopped on its way
MORE = 20  # steps after that
SHOTS = places.repository_folder() / "build" / "screenshots"  # to be looked at after a run
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no Chromium on this machine: `apt-get install chromium`, then again"
)


_DROP = """async (addresses) => {
  const files = new DataTransfer();
  for (const address of addresses) {
    const data = await (await fetch(address)).blob();
    files.items.add(new File([data], address.split("/").pop()));
  }
  const area = document.querySelector(".drop-area");
  for (const kind of ["dragover", "drop"]) {
    area.dispatchEvent(new DragEvent(kind, { dataTransfer: files, bubbles: true, cancelable: true }));
  }
}"""


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder like the repository, so that JupyterLab saves into copies of the notebooks."""
    folder = tmp_path_factory.mktemp("lab")
    for name in ("helpers", "data"):
        (folder / name).symlink_to(places.repository_folder() / name)
    shutil.copytree(places.repository_folder() / "notebooks", folder / "notebooks")
    return folder


@pytest.fixture(scope="module")
def concepts(work):
    folder = work / "concepts"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def lab(work, concepts):
    """JupyterLab on loopback, with settings of its own; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    options = {
        "ServerApp.port": port,
        "ServerApp.root_dir": work,
        "IdentityProvider.token": "",
        "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    with (work / "lab.log").open("w") as log:
        server = subprocess.Popen(
            [*command, *(f"--{name}={value}" for name, value in options.items())],
            env={**os.environ, **_own_settings(work), places.ROOT_VARIABLE: str(concepts)},
            stdout=log,
            stderr=log,
        )
        try:
            _wait(lambda: _answers(address), f"JupyterLab does not start: see {log.name}")
            yield address
        finally:
            server.terminate()
            server.wait(SECONDS)


@pytest.fixture(scope="module")
def page(lab):
    """A tab of a headless Chromium."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        tab = browser.new_page(viewport={"width": 1400, "height": 1000})
        tab.set_default_timeout(SECONDS * 1000)
        tab.on("dialog", lambda dialog: dialog.accept())  # “leave the page?”
        yield tab
        browser.close()


@pytest.fixture
def lesson(work, concepts, monkeypatch):
    """Makes a concept that trains long enough to be stopped, and copies of notebook 4 for it.

    The first is cut after the launch, the second after the view.
    """
    monkeypatch.setenv(places.ROOT_VARIABLE, str(concepts))

    def make(name):
        training = {"max_train_steps": STEPS, "stop_when_learned": False, "train_batch_size": 1}
        concept = Concept.make(name, training={**training, "sample_every": MORE, "checkpoint_every": 40})
        concept.save()
        shutil.copytree(places.data_folder() / "grooty", concept.images_folder)
        for copy, last in (("train", "notebook_launcher"), ("look", "LiveTraining")):
            cut_notebook(work, "4_training", name, last).rename(work / "notebooks" / f"{copy}_{name}.ipynb")
        return concept

    return make


def test_a_training_is_stopped_survives_a_reload_and_goes_on(lab, page, lesson):
    concept = lesson("walker")
    start(lab, page, "train_walker")
    page.get_by_text(re.compile(rf"step [1-9]\d* of at most {STEPS} · .* left")).wait_for()
    page.get_by_alt_text(re.compile(r"step \d+: a photo of a <walker>")).first.wait_for()
    page.get_by_role("img", name=re.compile("Length of each row <walker>")).wait_for()
    button(page, "Stop").click()
    page.get_by_text("It was stopped: run it again to go on.").first.wait_for()
    stopped = outcome(concept)
    assert stopped["ended"] == "stopped" and stopped["steps"] < STEPS and concept.embeds_path.is_file()
    _wait(lambda: ran(page), "the cell does not end", page)
    page.keyboard.press("Control+s")
    _wait(lambda: page.locator("li.lm-TabBar-tab.jp-mod-dirty").count() == 0, "it is not saved", page)
    page.screenshot(path=SHOTS / "training_stopped.png")

    last = end_after(concept, stopped["steps"] + MORE)
    page.reload()
    page.get_by_text(f"step {stopped['steps']} of at most {STEPS}").wait_for()
    button(page, "Resume").click()
    page.get_by_text("A run starts: it loads the model first.").wait_for()
    start(lab, page, "look_walker")  # a second notebook, with a kernel of its own
    page.get_by_text(re.compile(rf"step \d+ of at most {last} · .* left")).wait_for()
    page.get_by_text("It reached max_train_steps.").wait_for()
    steps = [line["step"] for line in read_log(concept.training_folder) if "loss" in line]
    assert steps == list(range(1, last + 1)) and outcome(concept)["ended"] == "ceiling"
    newest = last - last % MORE
    page.get_by_text(f"Drawn at step {newest}").wait_for()
    slide_back(page, "Step")
    page.get_by_text(f"Drawn at step {newest - MORE}").wait_for()
    page.screenshot(path=SHOTS / "training_ended.png")


def test_a_concept_is_renamed_deleted_and_brought_back_by_its_buttons(lab, page, lesson, concepts):
    lesson("tidy")
    run_all(lab, page, "0_start_here")
    card = page.locator(".widget-vbox .widget-vbox", has_text="tidy").last
    card.get_by_role("button", name="Rename", exact=True).click()
    page.get_by_label("Name", exact=True).fill("two words")
    page.get_by_role("button", name="Rename it").click()
    page.get_by_text("use letters, digits, - and _ only").wait_for()
    page.get_by_label("Name", exact=True).fill("neat")
    _wait(lambda: page.get_by_label("Word", exact=True).input_value() == "<neat>", "the word stays", page)
    page.get_by_role("button", name="Rename it").click()
    page.get_by_text("tidy is neat now, and its word <neat>.").wait_for()
    assert json.loads((concepts / "neat" / "concept.json").read_text())["placeholder_token"] == "<neat>"
    page.screenshot(path=SHOTS / "start_here.png")
    card = page.locator(".widget-vbox .widget-vbox", has_text="neat").last
    card.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_text("Delete neat, 5 picture(s)").last.wait_for()
    assert (concepts / "neat").is_dir()
    page.get_by_role("button", name="Delete it").click()
    _wait(lambda: not (concepts / "neat").exists(), "it is still there", page)
    page.get_by_role("button", name="Bring back neat").click()
    _wait(lambda: (concepts / "neat" / "concept.json").is_file(), "it does not come back", page)
    card.get_by_role("button", name="Open", exact=True).click()
    page.get_by_role("link", name="3_dataset_preview.ipynb").last.click()
    page.get_by_role("tab", name=re.compile("3_dataset_preview")).wait_for()


def test_a_picture_is_removed_by_its_button(lab, page, concepts):
    run_all(lab, page, "1_download_images")
    images = concepts / "grooty" / "images"
    kept = sorted(path.name for path in images.iterdir())
    assert len(kept) == 5
    page.get_by_role("button", name="Remove").first.click()
    _wait(lambda: len(list(images.iterdir())) == 4, "the picture is still there")
    _wait(lambda: page.get_by_role("button", name="Remove").count() == 4, "it is still shown", page)


def test_dropped_files_become_pictures(lab, page, concepts):
    """In the notebook that the test before this one has left open; one file takes several messages."""
    images = concepts / "grooty" / "images"
    kept = {path.name for path in images.iterdir()}
    noise = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), dtype=np.uint8)
    files = {"noise.png": noise, "tall.png": np.full((90, 64, 3), 200, np.uint8)}
    for name, pixels in files.items():
        Image.fromarray(pixels).save(concepts.parent / name)
    assert (concepts.parent / "noise.png").stat().st_size > 4 * 2**20
    page.evaluate(_DROP, [f"{lab}/files/{name}" for name in files])
    page.get_by_text("2 kept.", exact=True).wait_for()
    new = {path.name for path in images.iterdir()} - kept
    assert len(new) == 2
    assert any((np.asarray(Image.open(images / name)).shape == noise.shape) for name in new)
    page.screenshot(path=SHOTS / "dropped.png")


def test_a_changed_setting_is_in_the_concept_file(lab, page, concepts):
    run_all(lab, page, "2_concept_settings")
    settings = concepts / "grooty" / "concept.json"
    assert json.loads(settings.read_text())["initializer_token"] == "toy"
    field = page.get_by_label("initializer_token")
    field.fill("robot")
    field.press("Enter")
    page.get_by_role("button", name="Save", exact=True).click()
    _wait(
        lambda: json.loads(settings.read_text())["initializer_token"] == "robot",
        "concept.json keeps the old word",
    )


def test_a_bad_value_is_marked_while_it_is_typed(lab, page, concepts):
    """In the notebook that the test before this one has left open: no Enter is pressed, no field is left."""
    settings = concepts / "grooty" / "concept.json"
    field, row = page.get_by_label("vectors"), page.locator(".widget-hbox", has=page.get_by_label("vectors"))
    field.fill("")
    field.press_sequentially("2x")
    row.get_by_role("alert").filter(has_text="vectors").wait_for()
    page.screenshot(path=SHOTS / "bad_value.png")
    assert field.evaluate("field => field === document.activeElement")
    field.press("Backspace")
    row.get_by_role("alert").wait_for(state="detached")
    row.get_by_text("rows of numbers for the word").wait_for()
    word = page.get_by_label("initializer_token")
    word.fill("")
    word.press_sequentially("robotic")
    page.get_by_text("Words of one token near “robotic”: robot").wait_for()
    word.press("Backspace")
    word.press("Backspace")
    page.get_by_role("button", name="Save", exact=True).click()
    page.get_by_text("Saved: grooty/concept.json.", exact=True).wait_for()
    assert json.loads(settings.read_text())["initializer_token"] == "robot"


def test_a_caption_is_kept_over_a_reload_and_a_new_kernel(lab, page, concepts):
    images = concepts / "grooty" / "images"
    second = sorted(images.glob("*.png"))[1]
    run_all(lab, page, "3_dataset_preview")
    move(page, "Picture")
    page.get_by_alt_text(f"{second.name} as the network sees it", exact=True).wait_for()
    move(page, "Sentence")
    page.get_by_text("a rendering of a <grooty>", exact=True).last.wait_for()
    page.get_by_label("mirrored").check()
    page.get_by_alt_text(f"{second.name} as the network sees it, mirrored").wait_for()
    field = page.get_by_label("Captions")
    field.press_sequentially("a photo of a toy")
    page.get_by_role("alert").filter(has_text="Put {} into “a photo of a toy”").wait_for()
    assert not second.with_suffix(".txt").exists()
    field.press_sequentially(" and {}")
    page.get_by_text(f"Kept in images/{second.stem}.txt.").wait_for()
    assert second.with_suffix(".txt").read_text() == "a photo of a toy and {}\n"
    page.screenshot(path=SHOTS / "captions.png")
    page.reload()
    run_all(lab, page, "3_dataset_preview", restart=True)
    move(page, "Picture")
    page.get_by_text("a photo of a toy and <grooty>", exact=True).wait_for()
    assert page.get_by_label("Captions").input_value() == "a photo of a toy and {}"


def move(page, name):
    """One step to the right with the slider of that name, by its key."""
    handle = page.locator(".widget-hslider", has_text=name).locator(".noUi-handle")
    handle.focus()
    handle.press("ArrowRight")


def run_all(lab, page, name, restart=False):
    """Open a notebook, run all its cells and wait for the last one."""
    start(lab, page, name, restart)
    _wait(lambda: ran(page), f"{name} does not come to its end", page)
    assert page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']").count() == 0


def start(lab, page, name, restart=False):
    """Open a notebook and run all its cells, in a kernel started anew if asked."""
    page.goto(f"{lab}/lab/tree/notebooks/{name}.ipynb?reset")
    page.locator(".jp-Notebook .jp-CodeCell").first.wait_for()
    page.get_by_text("| Idle").wait_for()  # the kernel, in the bar at the bottom
    if restart:
        page.get_by_role("menuitem", name="Kernel", exact=True).click()
        page.get_by_role("menuitem", name="Restart Kernel and Clear Outputs of All Cells").click()
        page.locator(".jp-Dialog .jp-mod-accept").click()
        _wait(lambda: not page.locator(".jp-OutputArea-output").count(), "the outputs stay", page)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()


def ran(page):
    """Whether the last cell has come to its end."""
    last = page.locator(".jp-Notebook .jp-CodeCell").last.locator(".jp-InputArea-prompt")
    return last.inner_text().strip("[]: ").isdigit()


def button(page, name):
    """A button of a widget, not one of JupyterLab's own."""
    return page.locator(".jp-OutputArea").get_by_role("button", name=name, exact=True)


def slide_back(page, name):
    """One step to the left with the slider of that name, by its key."""
    handle = page.locator(".widget-hslider, .jupyter-widgets", has_text=name).locator(".noUi-handle").last
    handle.focus()
    handle.press("ArrowLeft")


def end_after(concept, steps):
    """Set how long the training shall be; a stopped one may be given another length."""
    concept.training.max_train_steps = steps
    concept.save()
    return steps


def outcome(concept):
    return json.loads((concept.training_folder / "outcome.json").read_text())


def cut_notebook(work, name, concept, last):
    """A notebook for another concept, as far as the cell that holds `last`."""
    notebook = nbformat.read(work / "notebooks" / f"{name}.ipynb", as_version=4)
    end = 1 + next(index for index, cell in enumerate(notebook.cells) if f"{last}(" in cell.source)
    for cell in notebook.cells[:end]:
        cell.source = cell.source.replace('CONCEPT = "grooty"', f'CONCEPT = "{concept}"')
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    notebook.cells = notebook.cells[:end]
    path = work / "notebooks" / "cut.ipynb"
    nbformat.write(notebook, path)
    return path


def _setting_path(work, name):
    return work / "jupyter" / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"


def _write_setting(work, name, values):
    path = _setting_path(work, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))


def _own_settings(work):
    """JupyterLab's folders, away from the person's own; every cell is drawn, seen or not."""
    settings = {
        "notebook-extension/tracker": {"windowingMode": "none"},
        "apputils-extension/notification": {"fetchNews": "false"},
        KERNELS: PATIENT,
    }
    for name, values in settings.items():
        _write_setting(work, name, values)
    folders = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    return {variable: str(work / "jupyter" / folder) for variable, folder in folders.items()}


def _answers(address):
    with contextlib.suppress(urllib.error.URLError, ConnectionError):
        return urllib.request.urlopen(f"{address}/api", timeout=5).status == 200
    return False


def _wait(condition, sentence, page=None):
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, sentence
        page.wait_for_timeout(200) if page else time.sleep(0.2)
