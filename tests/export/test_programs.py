"""What is written for other programs, read by their own code.

InvokeAI is installed without what it needs to draw: `programs.txt`.
"""

from types import SimpleNamespace

import pytest
import torch
from compel.prompt_parser import PromptParser
from known_words import SETTINGS
from PIL import Image

from helpers.concept.concept import Concept
from helpers.concept.embedding import save_result
from helpers.export.files import export_for
from helpers.export.formats import prompt_for, word_in
from helpers.inference.png import Picture, save_picture
from helpers.model.base_model import load_pipeline

WIDTHS = {"SD1": [768], "SD2": [1024], "SDXL": [768, 1280]}
ABSENT = "not installed: pip install --no-deps -r tests/export/programs.txt"


@pytest.fixture
def learned(concepts):
    """Make a concept whose word has random rows."""

    def make(widths, vectors):
        concept = Concept.make("grooty", vectors=vectors)
        rows = [torch.randn(vectors, width) for width in widths]
        save_result(concept, rows)
        return concept, rows

    return make


@pytest.fixture(scope="module")
def invokeai(tmp_path_factory):
    """The parts of InvokeAI that know an embedding's file and read it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INVOKEAI_ROOT", str(tmp_path_factory.mktemp("invokeai")))
        pytest.importorskip("invokeai", reason=ABSENT)
        from invokeai.backend.model_manager.configs import textual_inversion as configs
        from invokeai.backend.model_manager.model_on_disk import ModelOnDisk
        from invokeai.backend.textual_inversion import TextualInversionModelRaw

        yield SimpleNamespace(configs=configs, on_disk=ModelOnDisk, read=TextualInversionModelRaw)


@pytest.mark.parametrize("vectors", [1, 2, 8])
@pytest.mark.parametrize("kind", ["safetensors", "pt"])
@pytest.mark.parametrize("family", WIDTHS)
def test_invokeai_knows_the_family_and_reads_the_rows(family, kind, vectors, learned, invokeai):
    concept, rows = learned(WIDTHS[family], vectors)
    for half in (False, True):
        path = export_for(concept, "invokeai", half, kind)
        for other in WIDTHS:
            config = getattr(invokeai.configs, f"TI_File_{other}_Config")
            known = _is_known(config, invokeai.on_disk(path))
            assert known == (other == family), f"{other} for {family}"
        read = invokeai.read.from_checkpoint(path)
        found = [read.embedding] if len(rows) == 1 else [read.embedding_2, read.embedding]
        wanted = [own.half() if half else own for own in rows]
        assert all(torch.equal(one, own) for one, own in zip(found, wanted, strict=True))


def _is_known(config, model):
    from invokeai.backend.model_manager.configs.identification_utils import NotAMatchError

    about = {"hash": "x", "path": str(model.path), "name": "grooty", "source": "x", "source_type": "path"}
    try:
        config.from_model_on_disk(model, {**about, "file_size": 1})
    except NotAMatchError:
        return False
    return True


@pytest.mark.parametrize(("family", "widths"), [("sd1", [32]), ("sd2", [32])])
@pytest.mark.parametrize("kind", ["safetensors", "pt"])
def test_diffusers_own_loader_reads_the_rows(family, widths, kind, learned, families):
    concept, rows = learned(widths, 4)
    pipeline = load_pipeline(str(families[family]))
    pipeline.load_textual_inversion(str(export_for(concept, "diffusers", kind=kind)))
    table = pipeline.text_encoder.get_input_embeddings().weight
    ids = pipeline.tokenizer.convert_tokens_to_ids(concept.placeholder_tokens)
    assert torch.equal(table[ids], rows[0])
    prompt = pipeline.maybe_convert_prompt(f"a {word_in(concept, 'diffusers')}", pipeline.tokenizer)
    assert prompt == "a " + " ".join(concept.placeholder_tokens)


@pytest.mark.parametrize("program", ["invokeai", "diffusers"])
def test_compel_reads_the_weights_of_a_pasted_prompt(program, concepts):
    concept = Concept.make("grooty")
    pasted = prompt_for(concept, program, "a (<grooty>:1.3) on a close-up [beach] \\(ink\\)")
    (conjunction,) = [PromptParser().parse_conjunction(pasted)]
    parts = {part.text.strip(): part.weight for part in conjunction.prompts[0].children}
    assert parts["<grooty>"] == 1.3 and parts["beach"] == pytest.approx(1 / 1.1)
    assert parts["on a close-up"] == 1 and "(ink)" in {text.replace("\\", "") for text in parts}


def test_sd_parsers_reads_the_settings_of_a_saved_picture(tmp_path):
    sd_parsers = pytest.importorskip("sd_parsers", reason=ABSENT)
    settings = SETTINGS.model_copy(update={"prompt": "a photo of (<grooty>:1.2), snow"})
    path = save_picture(Picture(Image.new("RGB", (64, 64)), settings), tmp_path)
    found = sd_parsers.ParserManager().parse(path)
    assert found.generator.value == "AUTOMATIC1111"
    assert [one.value for one in found.prompts] == [settings.prompt]
    assert [one.value for one in found.negative_prompts] == ["blurry"]
    (sampler,) = found.samplers
    assert (sampler.name, sampler.parameters["seed"]) == ("DPM++ 2M", "7") or sampler.parameters["seed"] == 7
