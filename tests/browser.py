"""What the browser tests do with JupyterLab: prepare notebooks, run them, press, move, wait, look.

`SCREENSHOTS=1 make test` also leaves pictures of the pages in `build/screenshots`, in both themes.
"""

import json
import os
import re
import time

import nbformat
from nbformat.v4 import new_code_cell

from helpers.common import places

ANSWER = 30  # seconds for what a kernel or a page does in one or two, on a machine that does other things too
RUN = 300  # for a whole notebook; an error in it is noticed at once
SHOTS = places.repository_folder() / "build" / "screenshots"
FAILED = ".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.{}']"


def wait(condition, sentence, page=None, seconds=ANSWER):
    """Wait until it is so; `sentence` says what is wrong if it never is. Never acts: it only looks."""
    end = time.monotonic() + seconds
    while not condition():
        said = sentence() if callable(sentence) else sentence
        assert time.monotonic() < end, f"{said}, after {seconds} s"
        page.wait_for_timeout(100) if page else time.sleep(0.1)


# Notebooks


def not_yet_run(path):
    """A notebook without the outputs that it is kept with."""
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def change_notebook(work, name, to=None, only=None, **parameters):
    """Write a notebook again, with other parameters.

    Args:
        to: the name of the copy; None: the notebook itself.
        only: of its cells, those that hold one of these words are kept, with the first of the code.
    """
    notebook = nbformat.read(work / "notebooks" / f"{name}.ipynb", as_version=4)
    if only:
        code = [cell for cell in notebook.cells if cell.cell_type == "code"]
        notebook.cells = [code[0], *(cell for cell in code[1:] if any(word in cell.source for word in only))]
    for parameter, value in parameters.items():
        tagged = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
        cells = [cell for cell in tagged if re.search(rf"^{parameter} = ", cell.source, re.M)]
        assert len(cells) == 1, f"{parameter} is set in {len(cells)} cells of {name}"
        cells[0].source = re.sub(
            rf"^{parameter} = .*$", f"{parameter} = {value!r}", cells[0].source, flags=re.M
        )
    nbformat.write(notebook, work / "notebooks" / f"{to or name}.ipynb")


def put_before(work, name, word, source):
    """Add a code cell before the one that has `word` in it."""
    path = work / "notebooks" / f"{name}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    place = next(number for number, cell in enumerate(notebook.cells) if word in cell.source)
    notebook.cells.insert(place, new_code_cell(source))
    nbformat.write(notebook, path)


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


def run_all(lab, page, name, restart=False):
    """Open a notebook, run all its cells and wait for the last one."""
    start(lab, page, name, restart)
    end_of(page, name)
    assert not errors(page)


def end_of(page, name="the notebook"):
    """Wait until the last cell has come to its end, or one has failed."""
    wait(lambda: ran(page) or errors(page), f"{name} does not come to its end", page, RUN)


def ran(page):
    """Whether the last cell has come to its end."""
    last = page.locator(".jp-Notebook .jp-CodeCell").last.locator(".jp-InputArea-prompt")
    return last.inner_text().strip("[]: ").isdigit()


def errors(page):
    """What cells have written to stderr, and the errors that they ended with."""
    return [
        text for kind in ("stderr", "error") for text in page.locator(FAILED.format(kind)).all_inner_texts()
    ]


def save(page):
    """Save the open notebook and wait until it is on disk."""
    page.keyboard.press("Control+s")
    wait(lambda: page.locator("li.lm-TabBar-tab.jp-mod-dirty").count() == 0, "it is not saved", page)


# Widgets


def button(page, name):
    """A button of a widget, not one of JupyterLab's own."""
    return page.locator(".jp-OutputArea").get_by_role("button", name=name, exact=True)


def type_into(page, name, text, then=None):
    """Fill in a field and leave it; wait until it shows what the kernel makes of it, `then`."""
    field = page.get_by_label(name, exact=True)
    field.fill(text)
    field.press("Tab")
    shows(page, name, text if then is None else then)


def shows(page, name, text):
    """Wait until a field has this text in it."""
    field = page.get_by_label(name, exact=True)
    wait(
        lambda: field.input_value() == text,
        lambda: f"{name} shows {field.input_value()!r}, not {text!r}",
        page,
    )


def says(page, text, seconds=ANSWER):
    """Wait until the page has this text on it, once or more often."""
    page.get_by_text(text).first.wait_for(timeout=1000 * seconds)


def move(page, name):
    """One step to the right with the slider of that name, by its key."""
    handle = page.locator(".widget-hslider", has_text=name).locator(".noUi-handle")
    handle.focus()
    handle.press("ArrowRight")


def slide_back(page, name):
    """One step to the left with the slider of that name, by its key."""
    handle = page.locator(".widget-hslider, .jupyter-widgets", has_text=name).locator(".noUi-handle").last
    handle.focus()
    handle.press("ArrowLeft")


def alt_texts(page):
    """What stands in place of each picture, for a screen reader."""
    return page.locator(".jp-OutputArea img").evaluate_all("pictures => pictures.map(one => one.alt)")


# Pictures of the page


def shoot(page, name):
    """Screenshots of the page in JupyterLab's two themes, to be looked at, where they are asked for."""
    if not os.environ.get("SCREENSHOTS"):
        return
    for theme in ("Dark", "Light"):
        for entry in ("Settings", "Theme", f"JupyterLab {theme}"):
            page.locator(".lm-MenuBar-itemLabel, .lm-Menu-itemLabel").get_by_text(entry, exact=True).click()
        page.locator(f"body[data-jp-theme-name='JupyterLab {theme}']").wait_for(state="attached")
        page.locator("#jupyterlab-splash").wait_for(state="detached")
        page.screenshot(path=SHOTS / f"{name}_{theme.lower()}.png")


def shoot_page(page, name):
    """A screenshot of a page that is not JupyterLab's, where it is asked for."""
    if os.environ.get("SCREENSHOTS"):
        page.screenshot(path=SHOTS / f"{name}.png")


def shoot_whole(page, name):
    """The same of an open notebook from its top to its end."""
    shown = page.viewport_size
    panel = page.locator(".jp-Notebook .jp-WindowedPanel-outer, .jp-WindowedPanel-outer").first
    height = panel.evaluate("panel => panel.scrollHeight")
    page.set_viewport_size({"width": shown["width"], "height": height + 200})
    panel.evaluate("panel => { panel.scrollTop = 0; }")
    shoot(page, name)
    page.set_viewport_size(shown)


# Settings of JupyterLab

# A kernel that answers late, as on a busy machine, would be taken for one without subshells.
KERNELS, PATIENT = "apputils-extension/kernels-settings", {"kernelInfoTimeout": 1000 * RUN}


def write_setting(work, name, values):
    """Change settings of JupyterLab; a page that is opened after it has them."""
    path = work / "jupyter" / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))
