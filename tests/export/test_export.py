import pytest
import torch
from safetensors.torch import save_file

from helpers.common.errors import UserError
from helpers.concept.concept import Concept
from helpers.concept.embedding import save_result
from helpers.export.files import PROGRAMS, export_for, word_in
from helpers.export.formats import read_back

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
    torch.save({"string_to_param": {"*": ROWS}, "name": "another"}, path)
    found = read_back(path, program, [768])
    assert torch.equal(found.rows[0], ROWS) and "grooty" in found.word
