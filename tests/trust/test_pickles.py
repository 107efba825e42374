"""A pickle that would run code: none runs, whichever file a person is given."""

import pickle
import shutil
from pathlib import Path

import pytest
import torch

from helpers.common.errors import UserError
from helpers.concept.embedding import load_rows
from helpers.export import read_back
from helpers.model.base_model import check_base_model, load_components
from helpers.training.records import STATE_FILE, load_checkpoint


class Harm:
    """Unpickled, it makes a file."""

    def __init__(self, sign):
        self.sign = sign

    def __reduce__(self):
        return Path.touch, (self.sign,)


def as_pickle(path, harm):
    path.write_bytes(pickle.dumps({"emb": harm}))


def as_checkpoint(path, harm):
    torch.save({"string_to_param": {"*": harm}, "name": "x"}, path)


def as_old_checkpoint(path, harm):
    torch.save({"state_dict": harm}, path, _use_new_zipfile_serialization=False)


def an_embedding(folder, write, harm):
    write(folder / "word.bin", harm)
    load_rows(folder / "word.bin")


def an_embedding_of_a_program(folder, write, harm):
    write(folder / "word.pt", harm)
    read_back(folder / "word.pt", "automatic1111", [32])


def our_own_checkpoint(folder, write, harm):
    write(folder / STATE_FILE, harm)
    load_checkpoint(folder)


def a_base_model(folder, write, harm):
    write(folder / "model.ckpt", harm)
    check_base_model(str(folder / "model.ckpt"))


def a_part_of_a_base_model(folder, write, harm):
    model = folder / "model"
    shutil.copytree(FOLDERS["sd1"], model)
    (weights,) = (model / "text_encoder").glob("*.safetensors")
    weights.unlink()
    write(model / "text_encoder" / "pytorch_model.bin", harm)
    load_components(str(model))


FOLDERS = {}
WAYS_IN = [
    an_embedding,
    an_embedding_of_a_program,
    our_own_checkpoint,
    a_base_model,
    a_part_of_a_base_model,
]


@pytest.mark.parametrize("way_in", WAYS_IN)
@pytest.mark.parametrize("write", [as_pickle, as_checkpoint, as_old_checkpoint])
def test_no_code_in_a_file_runs(way_in, write, families, tmp_path):
    FOLDERS.update(families)
    sign = tmp_path / "harmed"
    with pytest.raises(UserError, match=r"damaged|more than"):
        way_in(tmp_path, write, Harm(sign))
    assert not sign.exists()


def test_the_harm_is_real(tmp_path):
    as_pickle(tmp_path / "any", Harm(tmp_path / "harmed"))
    pickle.loads((tmp_path / "any").read_bytes())
    assert (tmp_path / "harmed").exists()
