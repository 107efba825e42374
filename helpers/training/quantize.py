"""The frozen UNet in 8 or 4 bit, with bitsandbytes: less memory, a little less exact, slower.

Only `nn.Linear` is quantised, since that is what bitsandbytes has. Convolutions stay as they are: in 4
bit Stable Diffusion 1.5's UNet goes from 1.72 to 1.33 GB, XL's from 5.13 to 1.93 GB.
"""

import torch
from torch import nn

from ..quiet import bitsandbytes


def quantize_linears(module: nn.Module, bits: str, device: torch.device) -> None:
    """Replace every `nn.Linear` in a frozen module, in place, by one of 8 or 4 bit on the device.

    Args:
        bits: `8bit` (LLM.int8(), Dettmers et al. 2022) or `4bit` (NF4, Dettmers et al. 2023).
    """
    convert = {"8bit": _eight_bit, "4bit": _four_bit}[bits]
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            # In eval mode on a CPU, bitsandbytes packs 4-bit weights for a kernel that has no gradient,
            # and never unpacks them. A linear layer does the same in training mode otherwise.
            setattr(module, name, convert(child).to(device).train())
        else:
            quantize_linears(child, bits, device)


def _eight_bit(linear: nn.Linear) -> nn.Module:
    bnb = bitsandbytes()
    layer = bnb.nn.Linear8bitLt(
        linear.in_features,
        linear.out_features,
        linear.bias is not None,
        has_fp16_weights=False,
        threshold=6.0,
    )
    layer.weight = bnb.nn.Int8Params(linear.weight.data, requires_grad=False, has_fp16_weights=False)
    layer.bias = linear.bias
    return layer


def _four_bit(linear: nn.Linear) -> nn.Module:
    bnb = bitsandbytes()
    layer = bnb.nn.Linear4bit(
        linear.in_features,
        linear.out_features,
        linear.bias is not None,
        compute_dtype=linear.weight.dtype,
        quant_type="nf4",
    )
    layer.weight = bnb.nn.Params4bit(linear.weight.data, requires_grad=False, quant_type="nf4", module=layer)
    layer.bias = linear.bias
    return layer
