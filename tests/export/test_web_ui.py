import shlex
import sys
import time
import urllib.request

import psutil
import pytest
import torch
from safetensors.torch import save_file
from web_ui_stand_in import LAUNCH, TREES, install, with_environment

from helpers.common.errors import UserError
from helpers.export.web_ui import (
    find_web_uis,
    put_embedding,
    running_web_ui,
    start_command,
    start_web_ui,
    web_ui_at,
)

LOOKED_IN = {
    "automatic1111": "embeddings",
    "forge": "embeddings",
    "sdnext": "models/embeddings",
    "comfyui": "models/embeddings",
}


@pytest.fixture
def stand_in(tmp_path):
    """A Web UI with an environment of its own, whose program is `LAUNCH`; it is stopped at the end."""
    folder = install("automatic1111", tmp_path / "ui")
    (folder / "launch.py").write_text(LAUNCH)
    with_environment(folder)
    yield web_ui_at(folder)
    if program := running_web_ui(web_ui_at(folder)):
        program.stop()


def until(condition, program):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end and program.is_running, program.output
        time.sleep(0.05)


@pytest.fixture
def exported(tmp_path):
    path = tmp_path / "export" / "grooty.safetensors"
    path.parent.mkdir()
    path.write_bytes(b"rows")
    return path


@pytest.mark.parametrize("program", TREES)
def test_each_program_is_known_by_its_folder(program, tmp_path):
    assert web_ui_at(install(program, tmp_path / "ui")).program == program


def test_looking_finds_every_program_beside_each_other_and_nothing_else(tmp_path):
    for program in TREES:
        install(program, tmp_path / f"my {program}")
    (tmp_path / "photos").mkdir()
    found = find_web_uis([tmp_path, tmp_path / "absent", tmp_path / "my forge"])
    assert sorted(ui.program for ui in found) == sorted(TREES)


@pytest.mark.parametrize("wrong", ["photos", "absent", "ui/modules"])
def test_a_wrong_folder_is_refused_in_one_sentence(wrong, tmp_path):
    install("automatic1111", tmp_path / "ui")
    (tmp_path / "photos").mkdir()
    with pytest.raises(UserError, match="give the one"):
        web_ui_at(tmp_path / wrong)


@pytest.mark.parametrize("program", LOOKED_IN)
def test_the_file_goes_where_the_program_looks(program, exported, tmp_path):
    folder = install(program, tmp_path / "ui")
    put = put_embedding(exported, web_ui_at(folder))
    assert put == folder / LOOKED_IN[program] / "grooty.safetensors"
    assert put.read_bytes() == b"rows"
    assert put_embedding(exported, web_ui_at(folder)) == put  # once more is no conflict


def test_another_embedding_of_that_name_is_kept_until_told(exported, tmp_path):
    ui = web_ui_at(install("automatic1111", tmp_path / "ui"))
    put = put_embedding(exported, ui)
    put.write_bytes(b"somebody else's")
    with pytest.raises(UserError, match="replace=True"):
        put_embedding(exported, ui)
    assert put.read_bytes() == b"somebody else's"
    put_embedding(exported, ui, replace=True)
    assert put.read_bytes() == b"rows"


def test_the_same_numbers_with_other_notes_are_no_conflict(tmp_path):
    """Files of the version before have their notes in any order."""
    rows, ui = {"emb_params": torch.ones(1, 768)}, web_ui_at(install("forge", tmp_path / "ui"))
    ui.embeddings_folder.mkdir()
    save_file(rows, tmp_path / "grooty.safetensors", {"name": "grooty"})
    save_file(rows, ui.embeddings_folder / "grooty.safetensors", {"format": "pt"})
    put_embedding(tmp_path / "grooty.safetensors", ui)
    save_file({"emb_params": torch.zeros(1, 768)}, tmp_path / "grooty.safetensors")
    with pytest.raises(UserError, match="replace=True"):
        put_embedding(tmp_path / "grooty.safetensors", ui)


def test_an_older_file_for_the_same_word_is_pointed_out(exported, tmp_path):
    ui = web_ui_at(install("forge", tmp_path / "ui"))
    older = ui.embeddings_folder / "mine" / "grooty.bin"
    older.parent.mkdir(parents=True)
    older.touch()
    with pytest.raises(UserError, match=r"mine/grooty\.bin gives the same word"):
        put_embedding(exported, ui, replace=True)
    assert [path for path in ui.embeddings_folder.rglob("*") if path.is_file()] == [older]


def test_an_embedding_of_that_name_in_another_case_is_pointed_out(exported, tmp_path):
    ui = web_ui_at(install("comfyui", tmp_path / "ui"))
    other = ui.embeddings_folder / "Grooty.safetensors"
    other.parent.mkdir(parents=True, exist_ok=True)
    other.touch()
    with pytest.raises(UserError, match=r"Grooty\.safetensors gives the same word"):
        put_embedding(exported, ui)


def test_a_folder_that_takes_no_file_is_named(exported, tmp_path):
    ui = web_ui_at(install("automatic1111", tmp_path / "ui"))
    ui.embeddings_folder.write_text("a file where a folder should be")
    with pytest.raises(UserError, match=r"embeddings can't be written to .*: copy .*grooty\.safetensors"):
        put_embedding(exported, ui)


def test_invokeai_is_told_about_in_its_own_window(exported, tmp_path):
    with pytest.raises(UserError, match="Add Model"):
        put_embedding(exported, web_ui_at(install("invokeai", tmp_path / "ui")))


@pytest.mark.parametrize("program", ["automatic1111", "forge", "sdnext"])
def test_the_command_starts_with_a_checkpoint_in_the_programs_own_environment(program, tmp_path):
    folder = with_environment(install(program, tmp_path / "my ui"))
    checkpoint = tmp_path / "v1-5 pruned.ckpt"
    checkpoint.touch()
    command = shlex.split(start_command(web_ui_at(folder), checkpoint, share=True))
    python = str(folder / "venv" / "bin" / "python")
    assert command == ["cd", str(folder), "&&", python, "launch.py", "--share", "--ckpt", str(checkpoint)]


def test_without_an_environment_the_script_that_makes_one_is_started(tmp_path):
    """Our own Python would be changed by what launch.py installs."""
    command = shlex.split(start_command(web_ui_at(install("forge", tmp_path / "ui"))))
    assert command[3:5] == ["bash", "webui.sh"] and sys.executable not in command


def test_nothing_is_made_public_unasked(tmp_path):
    for program in TREES:
        assert "share" not in start_command(web_ui_at(install(program, tmp_path / program)))


def test_comfyui_and_invokeai_start_without_a_checkpoint(tmp_path):
    comfyui, invokeai = (web_ui_at(install(name, tmp_path / name)) for name in ("comfyui", "invokeai"))
    assert start_command(comfyui).endswith(" main.py")
    assert start_command(invokeai).endswith(f"invokeai-web --root {tmp_path / 'invokeai'}")


def test_a_checkpoint_that_is_not_there_is_named(tmp_path):
    ui = web_ui_at(install("automatic1111", tmp_path / "ui"))
    with pytest.raises(UserError, match=r"no checkpoint .*absent\.ckpt"):
        start_command(ui, tmp_path / "absent.ckpt")


def test_a_started_program_answers_and_stop_ends_its_children(stand_in, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "module://of_the_kernel")
    program = start_web_ui(stand_in, share=True)
    until(lambda: program.addresses, program)
    urllib.request.urlopen(program.addresses[0]).close()
    assert "arguments ['--share'] backend None" in program.output
    assert "10%" not in program.output and "loaded by" in program.output
    with pytest.raises(UserError, match="running already"):
        start_web_ui(stand_in)
    assert running_web_ui(stand_in) is program

    child = psutil.Process(int(program.output.split("loaded by")[1].split()[0]))
    program.stop()
    psutil.wait_procs([child], 5)
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
    assert program.end == "It was stopped." and running_web_ui(stand_in) is None


def test_a_program_that_fails_says_how(stand_in):
    (stand_in.folder / "launch.py").write_text("raise SystemExit('no GPU here')")
    program = start_web_ui(stand_in)
    assert program.wait(30)
    program.stop()  # nothing more to end
    assert "exit code 1" in program.end and "no GPU here" in program.output


def test_a_program_that_is_not_installed_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(UserError, match="invokeai-web can't be started"):
        start_web_ui(web_ui_at(install("invokeai", tmp_path / "ui")))
