"""Whatever the recipe is doing when it is killed, the next run finds whole files or none."""

from itertools import count

import numpy as np
import pytest

from helpers.common.errors import UserError
from helpers.common.files import made_once, replaced
from helpers.miniature.build import begin, make_once


class Killed(BaseException):
    """In place of a signal: nothing in the recipe catches it."""


def test_a_file_that_was_cut_short_has_not_its_name_and_is_made_again(tmp_path, monkeypatch):
    shard = tmp_path / "pictures" / "captioned-000.npz"
    made = {"pixels": np.zeros(3)}

    def savez(file, **arrays):
        file.write(b"PK")
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(np, "savez", savez)
        make_once(shard, lambda: made)
    assert not shard.exists()
    shard.with_name(f"{shard.name}.partial").write_bytes(b"PK")  # as a signal leaves it
    make_once(shard, lambda: made)
    assert list(shard.parent.iterdir()) == [shard] and np.array_equal(
        np.load(shard)["pixels"], made["pixels"]
    )


def test_a_folder_that_ships_is_the_old_or_the_new_one_but_never_half(tmp_path):
    shipped, work = tmp_path / "data" / "miniature", tmp_path / "build"
    shipped.mkdir(parents=True)
    for name in ("unet", "vae", "labels"):
        (shipped / name).write_text("old")
    with pytest.raises(Killed), replaced(shipped, work) as folder:
        (folder / "unet").write_text("new")
        raise Killed
    assert {path.read_text() for path in shipped.iterdir()} == {"old"}
    with replaced(shipped, work) as folder:
        (folder / "unet").write_text("new")
        (folder / "vae").write_text("new")
    assert {path.name: path.read_text() for path in shipped.iterdir()} == {
        "unet": "new",
        "vae": "new",
        "labels": "old",
    }
    assert not list(work.iterdir())


@pytest.mark.parametrize("renames", [0, 1, 2])
def test_a_kill_around_the_renames_loses_nothing(tmp_path, monkeypatch, renames):
    """Killed before the first rename, between the two, and after both: the next call finds a whole folder."""
    shipped, work = tmp_path / "miniature", tmp_path / "build"
    shipped.mkdir()
    (shipped / "unet").write_text("old")
    numbers, rename = count(), type(shipped).rename

    def killed_rename(self, target):
        if next(numbers) == renames:
            raise Killed
        return rename(self, target)

    def killed_rmtree(path, **options):
        raise Killed

    with pytest.raises(Killed), monkeypatch.context() as patch, replaced(shipped, work) as folder:
        (folder / "unet").write_text("new")
        patch.setattr(type(shipped), "rename", killed_rename)
        patch.setattr("helpers.common.files.shutil.rmtree", killed_rmtree)
    with replaced(shipped, work) as folder:
        assert (folder / "unet").read_text() == ("new" if renames == 2 else "old")
    assert [path.name for path in shipped.iterdir()] == ["unet"] and not list(work.iterdir())


def test_a_folder_that_is_made_once_has_no_name_until_it_is_whole(tmp_path):
    with pytest.raises(Killed), made_once(tmp_path / "tokenizer") as folder:
        (folder / "vocab.json").write_text("{")
        raise Killed
    assert not (tmp_path / "tokenizer").exists()
    with made_once(tmp_path / "tokenizer") as folder:
        (folder / "merges.txt").write_text("a b")
    assert [path.name for path in (tmp_path / "tokenizer").iterdir()] == ["merges.txt"]


def test_parts_of_a_smaller_build_are_not_taken_for_those_of_the_whole(tmp_path):
    begin(0.01, tmp_path)
    begin(0.01, tmp_path)
    with pytest.raises(UserError, match="other amounts"):
        begin(1, tmp_path)
