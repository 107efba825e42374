"""`make web`: a learned word is chosen, a sentence written, a grid drawn, on a page without code."""

import os
import re
import signal
import socket
import subprocess
import sys

import pytest
from browser import ANSWER, button, shoot_page, type_into, wait

from helpers.common import places

DRAWN = 120_000  # milliseconds for two small pictures
LOADED = 120_000  # for a kernel, and for the model


@pytest.fixture
def web(learned, tmp_path):
    """The address that `make web` writes, with its token."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with (tmp_path / "web.log").open("w") as log:
        process = subprocess.Popen(
            ["make", "web", f"PYTHON={sys.executable}", f"PORT={port}"],
            cwd=places.repository_folder(),
            env=dict(os.environ),
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            yield _address(tmp_path / "web.log")
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(ANSWER)


@pytest.fixture
def sent(page):
    """The addresses that the page asks, without those that the browser refused to send to."""
    addresses = []

    def keep(request):
        if request.failure != "csp":
            addresses.append(request.url)

    page.on("requestfinished", keep)
    page.on("requestfailed", keep)
    return addresses


def test_choose_write_and_draw(web, page, learned, sent):
    assert web.startswith("http://127.0.0.1:")
    page.goto(web.partition("?")[0])
    page.get_by_label(re.compile("token", re.IGNORECASE)).first.wait_for()
    assert not page.get_by_text("<grooty>").count(), "the page is shown without its token"

    page.goto(web)
    page.get_by_text("<grooty> on miniature").wait_for(timeout=LOADED)
    assert not page.get_by_text("DrawingPage").count(), "code is shown"
    assert not button(page, "Delete").count()
    button(page, "Draw").click()
    page.get_by_text("Write <grooty> where it belongs").wait_for(timeout=LOADED)
    type_into(page, "Prompt", "a photo of a <grooty> on a beach")
    type_into(page, "Steps", "2")
    type_into(page, "X values", "0-1")
    button(page, "Draw").last.click()
    page.get_by_text("Saved: grooty/grids/yours/").wait_for(timeout=DRAWN)
    assert len([*learned.grids_folder.glob("yours/*.png")]) == 1
    page.get_by_role("button", name="Settings of seed 1").click()
    page.get_by_role("row", name="Seed 1", exact=True).wait_for()
    shoot_page(page, "web")
    here = (web.partition("?")[0], "data:", "blob:")
    assert not [url for url in sent if not url.startswith(here)], "another address was asked"


def _address(log):
    found = []

    def written():
        found[:] = re.findall(r"https?://\S+[?]token=\w+", log.read_text())
        return found

    wait(written, lambda: f"it does not start: {log.read_text()}", seconds=120)
    return found[0]
