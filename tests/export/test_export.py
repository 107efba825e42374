import io

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save, save_file

from helpers.common.errors import UserError
from helpers.concept.concept import Concept
from helpers.concept.embedding import read_rows, save_result
from helpers.export.files import export_for
from helpers.export.formats import PROGRAMS, read_back, word_in

WIDTHS = {"sd1": [768], "sd2": [1024], "sdxl": [768, 1280]}


@pytest.fixture
def learned(concepts):
    """Make a concept whose word has random rows."""

    def make(family="sd1", vectors=1):
        concept = Concept.make("grooty", placeholder_token="<my-grooty>", vectors=vectors)
        torch.manual_seed(vectors)
        rows = [torch.randn(vectors, width) for width in WIDTHS[family]]
        save_result(concept, rows)
        return concept, rows

    return make


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("family", WIDTHS)
@pytest.mark.parametrize("vectors", [1, 4])
def test_each_program_reads_the_word_and_its_rows(program, family, vectors, learned):
    concept, rows = learned(family, vectors)
    found = read_back(export_for(concept, program), program, WIDTHS[family])
    assert found.word in (word_in(concept, program), None)
    assert all(torch.equal(read, own) for read, own in zip(found.rows, rows, strict=True))


def test_the_words_are_those_that_people_type(learned):
    concept, _ = learned()
    words = {program: word_in(concept, program) for program in PROGRAMS}
    assert words == {
        "automatic1111": "grooty",
        "forge": "grooty",
        "sdnext": "grooty",
        "comfyui": "embedding:grooty",
        "invokeai": "<grooty>",
        "diffusers": "<my-grooty>",
    }


def test_half_precision_is_half_the_rows_and_still_reads(learned):
    concept, rows = learned()
    full = export_for(concept, "comfyui").stat().st_size
    path = export_for(concept, "comfyui", half=True)
    assert path.stat().st_size == full - 2 * rows[0].numel()
    assert torch.equal(read_back(path, "comfyui", [768]).rows[0], rows[0].half())


def test_an_unknown_program_and_a_word_not_learned_are_named(learned, grooty):
    with pytest.raises(UserError, match="run notebook 4 first"):
        export_for(grooty, "comfyui")
    concept, _ = learned()
    with pytest.raises(UserError, match="no export for “Photoshop”"):
        export_for(concept, "Photoshop")
    with pytest.raises(UserError, match="no export for “Photoshop”"):
        read_back(concept.embeds_path, "Photoshop", [768])


ROWS = torch.ones(1, 768)
WIDE_ROWS = torch.ones(1, 1280)
MISTAKES = {
    "emp_params for emb_params": ({"emp_params": ROWS}, "invokeai", [768]),
    "the word as the key, for InvokeAI": ({"<grooty>": ROWS}, "invokeai", [768]),
    "two words in one file": ({"<a>": ROWS, "<b>": ROWS + 1}, "automatic1111", [768]),
    "one of two placeholder-keyed files for XL": ({"<grooty>": ROWS}, "automatic1111", [768, 1280]),
    "the same for ComfyUI": ({"<grooty>": ROWS}, "comfyui", [768, 1280]),
    "an XL file for one encoder": ({"clip_l": ROWS, "clip_g": WIDE_ROWS}, "forge", [768]),
    "t5 where ComfyUI looks for t5xxl": ({"t5": torch.ones(1, 4096)}, "comfyui", [768]),
    "XL's two tensors under the words": ({"<a>": ROWS, "<a>_g": WIDE_ROWS}, "diffusers", [768, 1280]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_known_mistakes_of_others_are_refused(mistake, tmp_path):
    tensors, program, widths = MISTAKES[mistake]
    save_file(tensors, tmp_path / "grooty.safetensors")
    with pytest.raises(UserError):
        read_back(tmp_path / "grooty.safetensors", program, widths)


@pytest.mark.parametrize("program", ["automatic1111", "comfyui", "invokeai"])
def test_an_automatic1111_pickle_is_read_too(program, tmp_path):
    path = tmp_path / "grooty.pt"
    torch.save({"string_to_param": {"*": ROWS}, "string_to_token": {"*": 265}, "name": "another"}, path)
    found = read_back(path, program, [768])
    assert torch.equal(found.rows[0], ROWS) and "grooty" in found.word


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_same_word_is_the_same_file_to_the_byte(program, learned):
    concept, _ = learned("sdxl", 4)
    assert len({export_for(concept, program).read_bytes() for _ in range(6)}) == 1
    with safe_open(export_for(concept, program), framework="pt") as file:
        about = file.metadata()
    assert about["word"] == "<my-grooty>" and about["base_model"] == "miniature"


def test_a_word_with_capitals_is_written_for_diffusers_in_lower_case(concepts):
    """diffusers finds the other rows of a word in a prompt in lower case alone."""
    concept = Concept.make("Grooty", vectors=2)
    save_result(concept, [torch.randn(2, 768)])
    path = export_for(concept, "diffusers")
    assert read_back(path, "diffusers", [768]).word == word_in(concept, "diffusers") == "<grooty>"


def pickled(content):
    packed = io.BytesIO()
    torch.save(content, packed)
    return packed.getvalue()


class RunsCode:
    def __reduce__(self):
        return print, ("run",)


NAN = torch.full((1, 768), float("nan"))
ODD_FILES = {
    "pointer.safetensors": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "Git LFS pointer"),
    "pointer.pt": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1", "Git LFS pointer"),
    "empty.safetensors": (b"", "is empty or damaged"),
    "empty.bin": (b"", "is empty or damaged"),
    "page.bin": (b"<html>" * 99, "is empty or damaged"),
    "code.pt": (pickled({"emb_params": RunsCode()}), "never loaded"),
    "nothing.safetensors": (save({}), "holds no rows|holds 0 tensors"),
    "number.pt": (pickled({"emb_params": 3}), "holds no rows"),
    "a list.pt": (pickled([ROWS]), "is empty or damaged"),
    "whole numbers.safetensors": (save({"emb_params": ROWS.int()}), "holds no rows"),
    "a picture.safetensors": (save({"emb_params": ROWS[None]}), "holds no rows"),
    "half a dictionary.pt": (pickled({"string_to_param": {}}), "."),
    "nan.safetensors": (save({"emb_params": NAN}), "NaN or infinity"),
    "wide.safetensors": (save({"emb_params": ROWS[:, :700]}), r"rows of width \[700\]"),
}


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("name", ODD_FILES)
def test_a_file_that_is_no_embedding_is_named(name, program, tmp_path, capsys):
    content, sentence = ODD_FILES[name]
    (tmp_path / name).write_bytes(content)
    if name.endswith(".bin") and program == "sdnext":
        sentence = "does not read"
    with pytest.raises(UserError, match=sentence) as caught:
        read_back(tmp_path / name, program, [768])
    assert name in str(caught.value)
    assert capsys.readouterr().out == ""


def test_rows_in_other_forms_are_read(tmp_path):
    """One row alone, sixteen bits, and the dictionaries of parameters of the first programs."""
    param = torch.nn.ParameterDict({"*": torch.nn.Parameter(ROWS)})
    for name, content in {
        "a.safetensors": save({"emb_params": ROWS[0]}),
        "b.safetensors": save({"emb_params": ROWS.bfloat16()}),
        "c.pt": pickled({"string_to_param": param, "name": "c", "string_to_token": {"*": torch.tensor(265)}}),
    }.items():
        (tmp_path / name).write_bytes(content)
        (rows,) = read_back(tmp_path / name, "automatic1111", [768]).rows
        assert torch.equal(rows.float(), ROWS) and not rows.requires_grad


@pytest.mark.parametrize("name", [name for name in ODD_FILES if name.endswith(".safetensors")])
def test_the_concept_s_own_file_gives_rows_or_a_sentence(name, learned):
    concept, _ = learned()
    concept.embeds_path.write_bytes(ODD_FILES[name][0])
    if name.startswith("wide"):
        assert read_rows(concept)[0].shape == (1, 700), "the model says so, where it is loaded"
    else:
        with pytest.raises(UserError, match=ODD_FILES[name][1]):
            read_rows(concept)
