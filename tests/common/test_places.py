"""The root of concepts as people set it, and what is said where it can't be one."""

import pytest

from helpers.common import places
from helpers.common.errors import UserError
from helpers.concept import Concept, concept_table
from helpers.dataset import add_images

GROOTY = str(places.data_folder() / "grooty")


@pytest.mark.parametrize(
    "chosen", ["{}/a file", "{}/" + "y" * 300, "x" * 300, "~nobody-of-this-name/concepts"]
)
@pytest.mark.parametrize("act", [concept_table, lambda: Concept.make("toy").save()])
def test_a_root_that_can_be_no_folder_is_named(chosen, act, tmp_path, monkeypatch):
    (tmp_path / "a file").write_text("")
    monkeypatch.setenv("CONCEPTS_ROOT", chosen.format(tmp_path))
    with pytest.raises(UserError, match=r"CONCEPTS_ROOT is “.*”, which can't be a folder") as told:
        act()
        repr(concept_table())
    assert len(str(told.value)) < 300


def test_a_root_with_a_tilde_is_ones_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CONCEPTS_ROOT", "~/my concepts")
    assert Concept.make("toy").save() == tmp_path / "my concepts" / "toy" / "concept.json"


@pytest.mark.parametrize("act", [lambda: Concept.make("toy").save(), lambda: add_images("toy", [GROOTY])])
def test_a_root_that_cannot_be_written_to_is_one_sentence(act, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("CONCEPTS_ROOT", str(tmp_path / "file" / "concepts"))
    with pytest.raises(UserError, match=r"Nothing can be written to concepts/ .Not a directory"):
        act()
    monkeypatch.setenv("CONCEPTS_ROOT", str(tmp_path / "read only"))
    monkeypatch.setattr(places.os, "access", lambda path, mode: False)
    with pytest.raises(UserError, match=r"read only/ .it is read-only.: set CONCEPTS_ROOT to another"):
        act()
