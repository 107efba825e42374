import shlex

import pytest
import torch
from safetensors.torch import save_file

from helpers.common.errors import UserError
from helpers.export.web_ui import find_web_uis, put_embedding, start_command, web_ui_at

TREES = {
    "automatic1111": ["launch.py", "webui.py", "modules/textual_inversion/textual_inversion.py"],
    "forge": ["launch.py", "modules/textual_inversion/image_embedding.py", "modules_forge/config.py"],
    "comfyui": ["main.py", "comfy/sd1_clip.py", "models/checkpoints/put_here"],
    "invokeai": ["invokeai.yaml", "databases/invokeai.db"],
}
LOOKED_IN = {"automatic1111": "embeddings", "forge": "embeddings", "comfyui": "models/embeddings"}


def install(program, folder):
    for name in TREES[program]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


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
    rows, ui = {"emb_params": torch.ones(1, 4)}, web_ui_at(install("forge", tmp_path / "ui"))
    ui.embeddings_folder.mkdir()
    save_file(rows, tmp_path / "grooty.safetensors", {"name": "grooty"})
    save_file(rows, ui.embeddings_folder / "grooty.safetensors", {"format": "pt"})
    put_embedding(tmp_path / "grooty.safetensors", ui)
    save_file({"emb_params": torch.zeros(1, 4)}, tmp_path / "grooty.safetensors")
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


def test_a_folder_that_takes_no_file_is_named(exported, tmp_path):
    ui = web_ui_at(install("automatic1111", tmp_path / "ui"))
    ui.embeddings_folder.write_text("a file where a folder should be")
    with pytest.raises(UserError, match=r"embeddings can't be written to .*: copy .*grooty\.safetensors"):
        put_embedding(exported, ui)


def test_invokeai_is_told_about_in_its_own_window(exported, tmp_path):
    with pytest.raises(UserError, match="Add Model"):
        put_embedding(exported, web_ui_at(install("invokeai", tmp_path / "ui")))


@pytest.mark.parametrize("program", ["automatic1111", "forge"])
def test_the_command_starts_with_a_checkpoint(program, tmp_path):
    folder = install(program, tmp_path / "my ui")
    checkpoint = tmp_path / "v1-5 pruned.ckpt"
    checkpoint.touch()
    command = shlex.split(start_command(web_ui_at(folder), checkpoint, share=True))
    assert command == ["cd", str(folder), "&&", "python", "launch.py", "--share", "--ckpt", str(checkpoint)]


def test_nothing_is_made_public_unasked(tmp_path):
    for program in TREES:
        assert "share" not in start_command(web_ui_at(install(program, tmp_path / program)))


def test_comfyui_and_invokeai_start_without_a_checkpoint(tmp_path):
    comfyui, invokeai = (web_ui_at(install(name, tmp_path / name)) for name in ("comfyui", "invokeai"))
    assert start_command(comfyui).endswith("python main.py")
    assert start_command(invokeai) == f"invokeai-web --root {tmp_path / 'invokeai'}"


def test_a_checkpoint_that_is_not_there_is_named(tmp_path):
    ui = web_ui_at(install("automatic1111", tmp_path / "ui"))
    with pytest.raises(UserError, match=r"no checkpoint .*absent\.ckpt"):
        start_command(ui, tmp_path / "absent.ckpt")
