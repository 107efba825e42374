"""One JupyterLab a worker for its browser tests; each has its own concepts, notebooks, kernels and page."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request

import nbformat
import psutil
import pytest
from browser import ANSWER, KERNELS, PATIENT, SHOTS, not_yet_run, wait, write_setting

from helpers.common import places
from helpers.concept.concept import Concept

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
NO_CHROMIUM = "there is no Chromium on this machine: `apt-get install chromium`, then again"
START = 120  # seconds for JupyterLab's start, which takes four


@pytest.fixture(scope="session")
def server(tmp_path_factory):
    """JupyterLab on loopback in a folder like the repository: the process, its address, the folder."""
    folder = tmp_path_factory.mktemp("lab")
    for name in ("helpers", "data"):
        (folder / name).symlink_to(places.repository_folder() / name)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    options = {
        "ServerApp.port": port,
        "ServerApp.root_dir": folder,
        "ServerApp.disable_check_xsrf": True,  # kernels are shut down without a browser
        "IdentityProvider.token": "",
        "LabApp.check_for_updates_class": "jupyterlab.NeverCheckForUpdate",
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    with (folder / "lab.log").open("w") as log:
        process = subprocess.Popen(
            [*command, *(f"--{name}={value}" for name, value in options.items())],
            env={**os.environ, **_own_settings(folder), places.ROOT_VARIABLE: str(folder / "concepts")},
            stdout=log,
            stderr=log,
        )
        try:
            wait(
                lambda: _answers(address),
                lambda: f"JupyterLab does not start: {_end_of(log.name)}",
                None,
                START,
            )
            yield process, address, folder
        finally:
            process.terminate()
            process.wait(ANSWER)


@pytest.fixture
def work(server):
    """JupyterLab's folder, with copies of the notebooks that have not been run, and no concepts."""
    process, address, folder = server
    for path in (places.repository_folder() / "notebooks").glob("*.ipynb"):
        (folder / "notebooks").mkdir(exist_ok=True)
        nbformat.write(not_yet_run(path), folder / "notebooks" / path.name)
    yield folder
    _end_kernels(process, address)
    for name in ("notebooks", "concepts"):
        shutil.rmtree(folder / name, ignore_errors=True)


@pytest.fixture
def concepts(work, monkeypatch):
    """JupyterLab's root of concepts, empty; this process has the same."""
    folder = work / "concepts"
    folder.mkdir()
    monkeypatch.setenv(places.ROOT_VARIABLE, str(folder))
    return folder


@pytest.fixture
def lab(server, concepts):
    """The address of JupyterLab."""
    return server[1]


@pytest.fixture
def page(lab, request):
    """A tab of a headless Chromium of its own."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        tab = browser.new_page(viewport={"width": 1400, "height": 1000})
        tab.set_default_timeout(1000 * ANSWER)
        tab.on("dialog", lambda dialog: dialog.accept())  # “leave the page?”
        said = request.node.stash[_SAID] = []
        tab.on("pageerror", lambda error: said.append(str(error)))
        yield tab
        browser.close()


@pytest.fixture
def pictures(concepts):
    """The five pictures of the concept of the series, of which there is nothing else yet."""
    concept = Concept.make("grooty")
    shutil.copytree(places.data_folder() / "grooty", concept.images_folder)
    return concept.images_folder


@pytest.fixture
def learned(concepts, learned_once):
    """The concept of the series, learned in a few steps."""
    shutil.copytree(learned_once, concepts / "grooty")
    return Concept.load("grooty")


def pytest_collection_modifyitems(items):
    for item in items:
        if item.path.parent == _HERE:
            item.add_marker(pytest.mark.skipif(CHROMIUM is None, reason=NO_CHROMIUM))


_SAID = pytest.StashKey()
_HERE = places.repository_folder() / "tests" / "series" / "in_browser"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """A test that fails tells what the page showed."""
    report = yield
    if report.failed and call.when == "call" and "page" in item.funcargs:
        report.sections.append(("the browser", _seen(item)))
    return report


def _seen(item):
    page, folder = item.funcargs["page"], item.funcargs["work"]
    picture = SHOTS / f"failed_{item.name}.png"
    try:
        page.screenshot(path=picture)
        shown = page.locator(".jp-NotebookPanel:visible, #main").first.inner_text()
        alerts = page.get_by_role("alert").all_inner_texts() + page.get_by_role("status").all_inner_texts()
    except Exception as error:  # the browser itself may be what failed
        shown, alerts = f"nothing: {error}", []
    lines = [line for line in shown.splitlines() if line.strip()]
    return "\n".join(
        [
            f"{page.url}, seen in {picture}",
            *(f"said: {alert}" for alert in alerts if alert.strip()),
            *(f"error of the page: {error}" for error in item.stash[_SAID][-5:]),
            *lines[-30:],
            "JupyterLab's log:",
            _end_of(folder / "lab.log"),
        ]
    )


def _end_of(path):
    with open(path, errors="replace") as file:
        return "".join(file.readlines()[-10:])


def _end_kernels(process, address):
    """End all kernels and what they have started, a training in a process of its own included."""
    begun = psutil.Process(process.pid).children(recursive=True)
    for kernel in json.loads(_ask(f"{address}/api/kernels")):
        with contextlib.suppress(urllib.error.HTTPError):  # gone by itself
            _ask(f"{address}/api/kernels/{kernel['id']}", "DELETE")
    for one in begun:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    psutil.wait_procs(begun, ANSWER)


def _ask(address, method="GET"):
    with urllib.request.urlopen(urllib.request.Request(address, method=method), timeout=ANSWER) as answer:
        return answer.read()


def _answers(address):
    with contextlib.suppress(urllib.error.URLError, ConnectionError):
        return bool(_ask(f"{address}/api"))
    return False


def _own_settings(folder):
    """JupyterLab's folders, away from the person's own; every cell is drawn, seen or not."""
    settings = {
        "notebook-extension/tracker": {"windowingMode": "none"},
        "apputils-extension/notification": {"fetchNews": "false"},
        KERNELS: PATIENT,
    }
    for name, values in settings.items():
        write_setting(folder, name, values)
    folders = {
        "JUPYTER_CONFIG_DIR": "config",
        "JUPYTER_DATA_DIR": "data",
        "JUPYTER_RUNTIME_DIR": "runtime",
        "JUPYTERLAB_SETTINGS_DIR": "settings",
        "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
        "IPYTHONDIR": "ipython",
    }
    return {variable: str(folder / "jupyter" / name) for variable, name in folders.items()}
