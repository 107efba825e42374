"""One file, as Web UIs keep it, opens as the folder that it was made from."""

import shutil
import sys

import pytest
import torch
from families import FAMILIES
from single_files import write_single_file

from helpers.common.errors import UserError
from helpers.model import base_model as single_file
from helpers.model.base_model import check_base_model, load_components, load_pipeline, load_vae


def settings_only(folder, target):
    return shutil.copytree(folder, target, ignore=shutil.ignore_patterns("*.safetensors"))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_weight_arrives(families, family, tmp_path):
    file = write_single_file(families[family], tmp_path / "model.safetensors")
    settings_only(families[family], tmp_path / "model")
    ours, theirs = load_components(str(file)), load_components(str(families[family]))
    assert ours.family == family
    pairs = zip(
        (*ours.text_encoders, ours.vae, ours.unet),
        (*theirs.text_encoders, theirs.vae, theirs.unet),
        strict=True,
    )
    for mine, other in pairs:
        expected = other.state_dict()
        assert mine.state_dict().keys() == expected.keys()
        assert all(torch.equal(value, expected[name]) for name, value in mine.state_dict().items())
        assert not any(parameter.requires_grad for parameter in mine.parameters())


def test_the_settings_may_lie_in_the_file_s_own_folder(families, tmp_path):
    folder = settings_only(families["sd1"], tmp_path / "model")
    file = write_single_file(families["sd1"], folder / "v1-5-pruned.ckpt")
    pipeline = load_pipeline(str(file))
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline("a toy", num_inference_steps=1, height=64, width=64).images[0].size == (64, 64)
    assert load_vae(str(file)).config.latent_channels == 4


@pytest.mark.parametrize("family", FAMILIES)
def test_without_settings_it_says_where_to_put_which(families, family, tmp_path):
    file = write_single_file(families[family], tmp_path / "model.safetensors")
    repository = {"sd1": "v1-5", "sd2": "2-1", "sdxl": "xl-base"}[family]
    with pytest.raises(UserError, match=f"put a folder model/ with those of .*{repository}"):
        load_components(str(file))


def test_a_large_file_says_that_it_is_loaded(families, tmp_path, monkeypatch, capsys):
    file = write_single_file(families["sd1"], tmp_path / "model.safetensors")
    settings_only(families["sd1"], tmp_path / "model")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(single_file, "LARGE", 0)
    load_components(str(file))
    assert "loading model.safetensors" in capsys.readouterr().err


class RunsCode:
    def __reduce__(self):
        return print, ("run",)


@pytest.mark.parametrize("content", ["code", "noise"])
def test_a_pickle_that_would_run_code_is_refused(tmp_path, content, capsys):
    file = tmp_path / "model.ckpt"
    torch.save({"state_dict": RunsCode()}, file) if content == "code" else file.write_bytes(b"noise" * 99)
    for use in (load_components, check_base_model):
        with pytest.raises(UserError, match=r"choose its \.safetensors version"):
            use(str(file))
    assert "run" not in capsys.readouterr().out


def test_a_file_of_another_kind_is_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"lora.weight": torch.zeros(1)}, tmp_path / "lora.safetensors")
    for use in (load_components, check_base_model):
        with pytest.raises(UserError, match="not a Stable Diffusion"):
            use(str(tmp_path / "lora.safetensors"))


@pytest.mark.parametrize("suffix", [".safetensors", ".ckpt"])
def test_an_inpainting_checkpoint_is_refused(suffix, tmp_path):
    """Its first layer takes nine channels: latents, a mask, and the latents of the masked picture."""
    from safetensors.torch import save_file

    file = tmp_path / f"sd-v1-5-inpainting{suffix}"
    weights = {
        "model.diffusion_model.input_blocks.0.0.weight": torch.zeros(8, 9, 3, 3),
        "cond_stage_model.transformer.text_model.final_layer_norm.weight": torch.zeros(8),
    }
    save_file(weights, file) if suffix == ".safetensors" else torch.save({"state_dict": weights}, file)
    for use in (load_components, check_base_model):
        with pytest.raises(UserError, match=r"inpainting\..* is made for inpainting"):
            use(str(file))
