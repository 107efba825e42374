"""The notebooks in JupyterLab, as a person uses them: open, run, change a widget, look at the result."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
from PIL import Image

from helpers import places

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
SECONDS = 120
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
        yield tab
        browser.close()


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
    """Open a notebook, run all its cells, in a kernel started anew if asked, and wait for the last one."""
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
    last = page.locator(".jp-Notebook .jp-CodeCell").last.locator(".jp-InputArea-prompt")
    _wait(lambda: last.inner_text().strip("[]: ").isdigit(), f"{name} does not come to its end", page)
    assert page.locator(".jp-RenderedText[data-mime-type='application/vnd.jupyter.stderr']").count() == 0


def _own_settings(work):
    """JupyterLab's folders, away from the person's own; every cell is drawn, seen or not."""
    settings = {
        "notebook-extension/tracker": {"windowingMode": "none"},
        "apputils-extension/notification": {"fetchNews": "false"},
    }
    for name, values in settings.items():
        path = work / "jupyter" / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(values))
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
