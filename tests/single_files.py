"""A model folder written as one file, with the names that the original checkpoints have."""

import re
from pathlib import Path

import torch
from safetensors.torch import save_file

from helpers.model.base_model import load_components

_UNET_ENDS = {
    "time_embedding.linear_1.": "time_embed.0.",
    "time_embedding.linear_2.": "time_embed.2.",
    "add_embedding.linear_1.": "label_emb.0.0.",
    "add_embedding.linear_2.": "label_emb.0.2.",
    "conv_in.": "input_blocks.0.0.",
    "conv_norm_out.": "out.0.",
    "conv_out.": "out.2.",
    "mid_block.resnets.0.": "middle_block.0.",
    "mid_block.attentions.0.": "middle_block.1.",
    "mid_block.resnets.1.": "middle_block.2.",
}
_UNET_RESNET = {
    "norm1.": "in_layers.0.",
    "conv1.": "in_layers.2.",
    "time_emb_proj.": "emb_layers.1.",
    "norm2.": "out_layers.0.",
    "conv2.": "out_layers.3.",
    "conv_shortcut.": "skip_connection.",
}
_VAE = {
    "mid_block.resnets.0.": "mid.block_1.",
    "mid_block.resnets.1.": "mid.block_2.",
    "mid_block.attentions.0.": "mid.attn_1.",
    "conv_norm_out.": "norm_out.",
    "conv_shortcut.": "nin_shortcut.",
    "group_norm.": "norm.",
    "to_q.": "q.",
    "to_k.": "k.",
    "to_v.": "v.",
    "to_out.0.": "proj_out.",
}
_OPEN_CLIP = {
    "embeddings.token_embedding.": "token_embedding.",
    "embeddings.position_embedding.weight": "positional_embedding",
    "encoder.layers.": "transformer.resblocks.",
    "layer_norm1.": "ln_1.",
    "layer_norm2.": "ln_2.",
    "mlp.fc1.": "mlp.c_fc.",
    "mlp.fc2.": "mlp.c_proj.",
    "self_attn.": "attn.",
    "final_layer_norm.": "ln_final.",
}


def write_single_file(folder: Path, file: Path) -> Path:
    """Write the weights of `folder` into `file`, a `.safetensors` or a `.ckpt`."""
    parts = load_components(str(folder))
    weights = {
        **_prefixed("model.diffusion_model.", _unet(parts.unet)),
        **_prefixed("first_stage_model.", _vae(parts.vae)),
    }
    first, *second = (_text(encoder) for encoder in parts.text_encoders)
    if parts.family == "sd1":
        weights |= _prefixed("cond_stage_model.transformer.text_model.", first)
    elif parts.family == "sd2":
        weights |= _prefixed("cond_stage_model.model.", _open_clip(first))
    else:
        weights |= _prefixed("conditioner.embedders.0.transformer.text_model.", first)
        weights |= _prefixed("conditioner.embedders.1.model.", _open_clip(second[0]))
    weights = {name: value.contiguous() for name, value in weights.items()}
    if file.suffix == ".ckpt":
        torch.save({"state_dict": weights}, file)
    else:
        save_file(weights, file)
    return file


def _prefixed(prefix, weights):
    return {prefix + name: value for name, value in weights.items()}


def _replaced(name, replacements):
    for old, new in replacements.items():
        name = re.sub(rf"(^|\.){re.escape(old)}", rf"\g<1>{new}", name)
    return name


def _unet(unet):
    blocks = _block_names(unet)
    weights = {}
    for name, value in unet.state_dict().items():
        block = next((old for old in blocks if name.startswith(old)), "")
        rest = name.removeprefix(block)
        if ".resnets." in name:
            rest = _replaced(rest, _UNET_RESNET)
        weights[blocks.get(block, "") + rest] = value
    return weights


def _block_names(unet):
    """For each block of diffusers' UNet the original's: those are numbered through, in order of use."""
    names, number = dict(_UNET_ENDS), 1
    for index, block in enumerate(unet.down_blocks):
        for place in range(len(block.resnets)):
            names[f"down_blocks.{index}.resnets.{place}."] = f"input_blocks.{number}.0."
            names[f"down_blocks.{index}.attentions.{place}."] = f"input_blocks.{number}.1."
            number += 1
        if block.downsamplers:
            names[f"down_blocks.{index}.downsamplers.0.conv."] = f"input_blocks.{number}.0.op."
            number += 1
    number = 0
    for index, block in enumerate(unet.up_blocks):
        for place in range(len(block.resnets)):
            names[f"up_blocks.{index}.resnets.{place}."] = f"output_blocks.{number}.0."
            names[f"up_blocks.{index}.attentions.{place}."] = f"output_blocks.{number}.1."
            number += 1
        last = 2 if hasattr(block, "attentions") else 1
        names[f"up_blocks.{index}.upsamplers.0.conv."] = f"output_blocks.{number - 1}.{last}.conv."
    return names


def _vae(vae):
    last = len(vae.decoder.up_blocks) - 1
    weights = {}
    for name, value in vae.state_dict().items():
        name = _replaced(name, _VAE)
        name = re.sub(r"down_blocks\.(\d)\.resnets\.(\d)", r"down.\1.block.\2", name)
        name = re.sub(r"down_blocks\.(\d)\.downsamplers\.0", r"down.\1.downsample", name)
        name = re.sub(
            r"up_blocks\.(\d)\.resnets\.(\d)", lambda m: f"up.{last - int(m[1])}.block.{m[2]}", name
        )
        name = re.sub(r"up_blocks\.(\d)\.upsamplers\.0", lambda m: f"up.{last - int(m[1])}.upsample", name)
        is_attention_matrix = "attn_1" in name and value.ndim == 2
        weights[name] = value[:, :, None, None] if is_attention_matrix else value
    return weights


def _text(encoder):
    return {name.removeprefix("text_model."): value for name, value in encoder.state_dict().items()}


def _open_clip(text):
    width = text["final_layer_norm.weight"].shape[0]
    weights = {"text_projection": text.pop("text_projection.weight", torch.eye(width)).T}
    for name in [name for name in text if ".q_proj." in name]:
        joined = [text.pop(name.replace("q_proj", part)) for part in ("q_proj", "k_proj", "v_proj")]
        text[name.replace("q_proj.", "in_proj_")] = torch.cat(joined)
    return weights | {_replaced(name, _OPEN_CLIP): value for name, value in text.items()}
