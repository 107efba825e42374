"""From a name to the parts of a model, for every family and every form."""

import contextlib
import json
import shutil
import subprocess
import sys

import pytest
import torch
from families import FAMILIES
from safetensors.torch import load_file

from helpers.common import places
from helpers.common.errors import UserError
from helpers.model import base_model
from helpers.model.base_model import load_components, load_pipeline, load_tokenizers, resolve
from helpers.model.tokens import initializer_ids, install_rows


def test_the_miniature_opens_frozen_and_in_eval_mode():
    components = load_components("miniature")
    for model in (*components.text_encoders, components.vae, components.unet):
        assert not model.training
        assert not any(parameter.requires_grad for parameter in model.parameters())
        assert next(model.parameters()).dtype == torch.float32
    assert components.resolution == base_model.load_resolution("miniature")


@pytest.mark.parametrize(
    ("family", "resolution", "prediction", "encoders"),
    [("sd1", 512, "epsilon", 1), ("sd2", 768, "v_prediction", 1), ("sdxl", 1024, "epsilon", 2)],
)
def test_each_family_is_known_from_its_own_settings(families, family, resolution, prediction, encoders):
    components = load_components(str(families[family]))
    assert components.family == family
    assert components.resolution == resolution
    assert len(components.tokenizers) == len(components.text_encoders) == encoders
    assert components.scheduler.config.prediction_type == prediction
    assert type(components.scheduler).__name__ == "DDPMScheduler"


def test_the_training_schedule_has_the_model_s_own_betas(families):
    betas = load_components(str(families["sd1"])).scheduler.betas
    assert (betas[0].item(), betas[-1].item(), len(betas)) == pytest.approx((0.00085, 0.012, 1000))


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_s_pipeline_draws(families, family):
    pipeline = load_pipeline(str(families[family]))
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline("a toy", num_inference_steps=1, height=64, width=64).images[0].size == (64, 64)
    assert (getattr(pipeline, "safety_checker", None) is not None) == (family == "sd1")


@pytest.mark.parametrize("family", FAMILIES)
def test_what_is_saved_has_the_names_that_older_libraries_read(families, family, tmp_path):
    """Under others, transformers before 5.6 draws with random weights, silently."""
    pipeline = load_pipeline(str(families[family]))
    base_model.save_parts(pipeline, tmp_path)
    again = load_pipeline(str(tmp_path))
    beginnings = {
        "text_encoder": ("text_model.embeddings.", "text_model.encoder.", "text_model.final_"),
        "text_encoder_2": ("text_model.embeddings.", "text_model.encoder.", "text_model.final_", "text_proj"),
        "safety_checker": ("vision_model.vision_model.", "visual_projection.", "concept_", "special_"),
    }
    for name in beginnings.keys() & {path.name for path in tmp_path.iterdir()}:
        written = load_file(tmp_path / name / "model.safetensors")
        assert not [key for key in written if not key.startswith(beginnings[name])], name
        own, read = (getattr(one, name).state_dict() for one in (pipeline, again))
        assert own.keys() == read.keys() and all(torch.equal(own[key], read[key]) for key in own), name
    index = json.loads((tmp_path / "model_index.json").read_text())
    assert index["feature_extractor"][1] == ("CLIPImageProcessor" if family == "sd1" else None)
    vocabulary = json.loads((tmp_path / "tokenizer" / "vocab.json").read_text())
    assert vocabulary == pipeline.tokenizer.get_vocab()
    assert (tmp_path / "tokenizer" / "merges.txt").read_text().startswith("#version")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_new_word_does_not_move_the_place_where_the_sentence_is_pooled(families, family):
    components = load_components(str(families[family]))
    tokenizer, encoder = components.tokenizers[-1], components.text_encoders[-1]
    install_rows(tokenizer, encoder, ["<new>"], initializer_ids(tokenizer, "toy", 1))
    new, old = (
        encoder(
            tokenizer(f"a photo of a {word} on a table", return_tensors="pt", padding="max_length").input_ids
        )
        for word in ("<new>", "toy")
    )
    pooled = "text_embeds" if "text_embeds" in new else "pooler_output"
    assert torch.equal(new[pooled], old[pooled])


def test_loading_imports_no_bitsandbytes_and_starts_no_cuda():
    """accelerate's notebook_launcher refuses several processes after either."""
    code = """
import sys, torch
from helpers.model import base_model
from helpers.miniature import judge
base_model.default_base_model()
base_model.load_components("miniature")
base_model.load_pipeline("miniature")
print("bitsandbytes" in sys.modules, torch.cuda.is_initialized())
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=places.repository_folder()
    )
    assert done.stdout.split() == ["False", "False"], done.stderr


def test_the_default_is_found_by_looking(monkeypatch):
    for gpu, name in ((False, "miniature"), (True, base_model.STABLE_DIFFUSION)):
        monkeypatch.setattr(base_model, "is_cuda_available", lambda gpu=gpu: gpu)
        assert base_model.default_base_model() == name


def test_a_large_model_without_a_gpu_gets_a_sentence(monkeypatch):
    monkeypatch.setattr(base_model.torch.backends.mps, "is_available", lambda: False)
    for gpu in (True, False):
        monkeypatch.setattr(base_model, "is_cuda_available", lambda gpu=gpu: gpu)
        assert base_model.without_gpu(base_model.MINIATURE) == ""
        assert ("choose a runtime with a GPU" in base_model.without_gpu("owner/name")) == (not gpu)


def test_a_relative_folder_counts_from_the_working_folder(families, monkeypatch):
    monkeypatch.chdir(families["sd1"].parent / "sd2")
    assert resolve("../sd1").location == str(families["sd1"])


@pytest.mark.parametrize(
    "name",
    [
        *("minature", "../no/such/folder", "/tmp/no-such.safetensors", "a/b.ckpt"),
        *("", " ", "x" * 300, "~no-such-user/model", "a\0b"),
    ],
)
def test_what_is_not_there_is_said_in_one_sentence(name):
    with pytest.raises(UserError, match=r"There is no base model at “.*”: set BASE_MODEL .*\.$"):
        resolve(name)


def test_a_file_of_another_kind_is_not_taken_for_a_hub_s_id(tmp_path, monkeypatch):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "notes.txt").write_text("buy milk")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"notes\.txt is not a base model: give a \.safetensors or \.ckpt"):
        resolve("notes/notes.txt")


def test_a_hub_s_id_is_recognised_without_asking_the_hub():
    assert resolve("owner/some-model.v2") == base_model.Source("hub", "owner/some-model.v2")


def test_a_folder_that_is_no_model_says_what_it_should_hold(tmp_path):
    with pytest.raises(UserError, match=r"model_index\.json is missing or damaged"):
        load_tokenizers(str(tmp_path))


def test_a_folder_of_another_kind_of_model_is_refused(tmp_path):
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    with pytest.raises(UserError, match="made for FluxPipeline: choose"):
        load_tokenizers(str(tmp_path))


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_damaged_part_is_named(families, tmp_path, damage):
    folder = tmp_path / "model"
    shutil.copytree(families["sd1"], folder)
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    weights.unlink() if damage == "missing" else weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(UserError, match="vae is missing or damaged"):
        load_components(str(folder))


@pytest.mark.parametrize("content", ["[]", "null", "{}", '{"_class_name"', ""])
@pytest.mark.parametrize(
    "part", ["model_index", "unet/config", "vae/config", "text_encoder/config", "tokenizer/tokenizer"]
)
def test_settings_of_another_shape_are_a_sentence(part, content, families, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(families["sd1"], folder)
    (folder / f"{part}.json").write_text(content)
    for opens in (base_model.load_resolution, load_components):
        with contextlib.suppress(UserError):
            opens(str(folder))


def test_half_precision_files_are_taken_where_they_are(families, tmp_path):
    folder = _halved(families["sd1"], tmp_path / "model", "*/*.safetensors")
    assert load_components(str(folder), torch.float16).unet.dtype == torch.float16
    assert load_components(str(folder)).unet.dtype == torch.float32


@pytest.mark.parametrize("halved", ["*/*.safetensors", "safety_checker/*.safetensors", "unet/*.safetensors"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_pipeline_opens_whichever_files_are_in_half_precision(families, tmp_path, halved, dtype):
    """A GPU fetches the checker of Stable Diffusion 1.5 in half precision only."""
    pipeline = load_pipeline(str(_halved(families["sd1"], tmp_path / "model", halved)), dtype)
    for part in (pipeline.unet, pipeline.text_encoder, pipeline.safety_checker):
        assert {parameter.dtype for parameter in part.parameters()} == {dtype}


def _halved(family, folder, pattern):
    """A copy of a model in which some weight files are those of the variant `fp16`."""
    shutil.copytree(family, folder)
    for path in folder.glob(pattern):
        path.rename(path.with_suffix(".fp16.safetensors"))
    return folder


@pytest.mark.parametrize("name", [".", ".."])
def test_a_folder_named_by_dots_is_named_in_full(name, tmp_path, monkeypatch):
    folder = tmp_path / "models" / "mine"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    with pytest.raises(UserError, match=r"models.*model_index\.json is missing or damaged: .* give"):
        base_model.check_base_model(name)


@pytest.mark.parametrize("in_index", [True, False])
def test_an_inpainting_folder_is_refused_before_it_is_loaded(families, tmp_path, in_index):
    folder = tmp_path / "painter"
    shutil.copytree(families["sd1"], folder, ignore=shutil.ignore_patterns("*.safetensors"))
    file, old, new = (
        ("model_index.json", '"StableDiffusionPipeline"', '"StableDiffusionInpaintPipeline"')
        if in_index
        else ("unet/config.json", '"in_channels": 4', '"in_channels": 9')
    )
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new))
    with pytest.raises(UserError, match="painter is made for inpainting"):
        base_model.check_base_model(str(folder))
