"""JupyterLab in a headless Chromium: the fixtures and the hands of the browser tests.

A test file imports `concepts`, `lab`, `page` and `work` to have them as fixtures, and `needs_chromium`.
"""

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

import nbformat
import pytest

from helpers.common import places

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
SECONDS = 300
# A kernel that answers late, as on a busy machine, would be taken for one without subshells.
KERNELS, PATIENT = "apputils-extension/kernels-settings", {"kernelInfoTimeout": 1000 * SECONDS}
SHOTS = places.repository_folder() / "build" / "screenshots"  # to be looked at after a run
needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="there is no Chromium on this machine: `apt-get install chromium`, then again"
)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A folder like the repository, so that JupyterLab saves into copies of notebooks; none has been run."""
    folder = tmp_path_factory.mktemp("lab")
    for name in ("helpers", "data"):
        (folder / name).symlink_to(places.repository_folder() / name)
    (folder / "notebooks").mkdir()
    for path in (places.repository_folder() / "notebooks").glob("*.ipynb"):
        nbformat.write(not_yet_run(path), folder / "notebooks" / path.name)
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
            wait(lambda: _answers(address), f"JupyterLab does not start: see {log.name}")
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


def move(page, name):
    """One step to the right with the slider of that name, by its key."""
    handle = page.locator(".widget-hslider", has_text=name).locator(".noUi-handle")
    handle.focus()
    handle.press("ArrowRight")


def run_all(lab, page, name, restart=False):
    """Open a notebook, run all its cells and wait for the last one."""
    start(lab, page, name, restart)
    wait(lambda: ran(page), f"{name} does not come to its end", page)
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
        wait(lambda: not page.locator(".jp-OutputArea-output").count(), "the outputs stay", page)
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


def save(page):
    """Save the open notebook and wait until it is on disk."""
    page.keyboard.press("Control+s")
    wait(lambda: page.locator("li.lm-TabBar-tab.jp-mod-dirty").count() == 0, "it is not saved", page)


def not_yet_run(path):
    """A notebook without the outputs that it is kept with."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def cut_notebook(work, name, concept, last):
    """A notebook for another concept, as far as the cell that holds `last`."""
    notebook = nbformat.read(work / "notebooks" / f"{name}.ipynb", as_version=4)
    end = 1 + next(index for index, cell in enumerate(notebook.cells) if f"{last}(" in cell.source)
    notebook.cells = notebook.cells[:end]
    for cell in notebook.cells:
        cell.source = cell.source.replace('CONCEPT = "grooty"', f'CONCEPT = "{concept}"')
    path = work / "notebooks" / "cut.ipynb"
    nbformat.write(notebook, path)
    return path


def wait(condition, sentence, page=None):
    """Wait until it is so; `sentence` says what is wrong if it never is."""
    end = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < end, sentence
        page.wait_for_timeout(200) if page else time.sleep(0.2)


def shoot(page, name):
    """Screenshots of the page in JupyterLab's two themes, to be looked at."""
    for theme in ("Dark", "Light"):
        for entry in ("Settings", "Theme", f"JupyterLab {theme}"):
            page.locator(".lm-MenuBar-itemLabel, .lm-Menu-itemLabel").get_by_text(entry, exact=True).click()
        page.locator(f"body[data-jp-theme-name='JupyterLab {theme}']").wait_for(state="attached")
        page.locator("#jupyterlab-splash").wait_for(state="detached")
        page.screenshot(path=SHOTS / f"{name}_{theme.lower()}.png")


def _setting_path(work, name):
    return work / "jupyter" / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"


def shoot_whole(page, name):
    """The same of an open notebook from its top to its end."""
    shown = page.viewport_size
    panel = page.locator(".jp-Notebook .jp-WindowedPanel-outer, .jp-WindowedPanel-outer").first
    height = panel.evaluate("panel => panel.scrollHeight")
    page.set_viewport_size({"width": shown["width"], "height": height + 200})
    panel.evaluate("panel => { panel.scrollTop = 0; }")
    shoot(page, name)
    page.set_viewport_size(shown)


def write_setting(work, name, values):
    """Change settings of JupyterLab; a page that is opened after it has them."""
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
        write_setting(work, name, values)
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
