import time

import pytest
from web_ui_stand_in import LAUNCH, install, with_environment

from helpers.export.web_ui import web_ui_at
from helpers.widgets.web_ui_form import WebUIForm


@pytest.fixture
def made(tmp_path):
    """A Web UI's stand-in, and a file for it."""
    folder = with_environment(install("forge", tmp_path / "ui"))
    (folder / "launch.py").write_text(LAUNCH)
    (tmp_path / "grooty.safetensors").write_bytes(b"rows")
    return web_ui_at(folder), tmp_path / "grooty.safetensors"


def until(condition, form):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, f"{form.message.value} {form.output.value}"
        time.sleep(0.05)


def test_the_word_is_put_there_and_another_file_is_overwritten_only_after_a_question(made):
    ui, file = made
    put = ui.embeddings_folder / file.name
    assert "The word is in embeddings/grooty.safetensors." in WebUIForm(ui, file).message.value
    put.write_bytes(b"somebody else's")
    form = WebUIForm(ui, file)
    asked, overwrite, keep = form.question.children
    assert "Overwrite it?" in asked.value
    keep.click()
    assert put.read_bytes() == b"somebody else's" and not form.question.children
    overwrite.click()
    assert put.read_bytes() == b"rows" and not form.question.children


def test_its_output_and_its_address_are_shown_until_stop(made):
    form = WebUIForm(*made)
    assert not form.share.value and form.stop.disabled
    form.start.click()
    until(lambda: '<a href="http://127.0.0.1:' in form.addresses.value, form)
    assert "Running on local URL" in form.output.value
    form.start.click()  # the second click of two
    assert "alert" not in form.message.value and not form.checkpoint.layout.border
    again = WebUIForm(*made)  # as after running the cell once more
    assert again.start.disabled and not again.stop.disabled
    again.stop.click()
    until(lambda: form.stop.disabled and again.stop.disabled, form)
    assert "It was stopped." in form.message.value and not form.addresses.value


def test_a_checkpoint_that_is_not_there_starts_nothing(made):
    form = WebUIForm(*made, checkpoint="absent.ckpt")
    form.start.click()
    assert "There is no checkpoint" in form.message.value and form.checkpoint.layout.border
    assert form.stop.disabled and not form.start.disabled


def test_on_a_page_without_a_kernel_it_is_the_command(made):
    assert "launch.py --share" in WebUIForm(*made, share=True).static_html()
