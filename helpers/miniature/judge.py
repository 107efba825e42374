"""The judge: a small classifier that reads a toy picture's attributes.

It is trained on drawings and on their round trips through the autoencoder, never on pictures that the
model made, and so does not share their mistakes.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional

from ..common.errors import UserError
from ..common.places import miniature_folder
from .drawing import PICTURE_SIDE
from .fit import Plan, autocast, fit, generator_of, to_tensor
from .world import ATTRIBUTES, UNREADABLE, Drawing, readable, value_of

_FARTHEST = 2  # pixels
_WEIGHTS = {"pattern": 4.0, "second_color": 4.0}  # the others are read rightly soon, these two late


class JudgeNetwork(nn.Module):
    """Four convolutions that halve the picture, then one linear layer for each attribute."""

    def __init__(self):
        super().__init__()
        widths = (3, 32, 80, 128, 160)
        self.convolutions = nn.ModuleList(
            nn.Sequential(nn.Conv2d(wide, wider, 3, 2, 1), nn.GroupNorm(8, wider), nn.SiLU())
            for wide, wider in pairwise(widths)
        )
        self.shared = nn.Sequential(nn.Linear(widths[-1] * (PICTURE_SIDE // 16) ** 2, 256), nn.SiLU())
        self.readers = nn.ModuleDict(
            {name: nn.Linear(256, len(values)) for name, values in ATTRIBUTES.items()}
        )

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Images (N, 3, 64, 64) in -1 to 1; for each attribute the values' logits (N, values)."""
        features = images
        for convolution in self.convolutions:
            features = convolution(features)
        features = self.shared(features.flatten(1))
        return {name: reader(features) for name, reader in self.readers.items()}


@dataclass(frozen=True)
class Reading:
    """What the judge sees in one picture: for each attribute the likeliest value."""

    values: dict[str, str]


class Judge:
    """Reads pictures. `Judge.load()` gives the one that ships with the miniature."""

    def __init__(self, network: JudgeNetwork):
        self.network = network.eval()

    @classmethod
    def load(cls, folder: Path | None = None) -> "Judge":
        """Read the judge from a folder of the miniature.

        Raises:
            UserError: the folder has no judge: only the miniature's world has one.
        """
        path = (folder or miniature_folder()) / "judge" / "model.safetensors"
        if not path.is_file():
            raise UserError(f"There is no judge in {path.parent.parent}: run `make miniature`.")
        network = JudgeNetwork()
        network.load_state_dict({name: value.float() for name, value in load_file(path).items()})
        return cls(network)

    def save(self, folder: Path) -> Path:
        """Write the judge, in half precision, to `folder/judge/model.safetensors`."""
        path = folder / "judge" / "model.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(
            {name: value.half().contiguous() for name, value in self.network.state_dict().items()}, path
        )
        return path

    @torch.no_grad()
    def read(self, images: list[Image.Image]) -> list[Reading]:
        """Read pictures of any size, one `Reading` each."""
        pixels = [np.asarray(_at_size(image), np.float32) / 127.5 - 1 for image in images]
        logits = self.network(torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2))
        likeliest = {name: values.argmax(-1) for name, values in logits.items()}
        return [
            Reading({name: ATTRIBUTES[name][best[row]] for name, best in likeliest.items()})
            for row in range(len(images))
        ]


def _at_size(image: Image.Image) -> Image.Image:
    return image.convert("RGB").resize((PICTURE_SIDE, PICTURE_SIDE), Image.Resampling.BOX)


def train_judge(
    sources: list[tuple[np.ndarray, np.ndarray]], folder: Path, device: torch.device, plan: Plan
) -> Judge:
    """Train on pictures from several sources, in turn.

    Args:
        sources: for each (N, 64, 64, 3) uint8 pictures, and (N, attributes) labels as
            `world.labels_of` gives them.
        folder: for the checkpoint.
    """
    torch.manual_seed(0)
    network = JudgeNetwork().to(device, memory_format=torch.channels_last).train()

    def loss_of(step: int) -> torch.Tensor:
        draw = generator_of(step)
        pictures, labels = sources[step % len(sources)]
        chosen = torch.randint(len(pictures), (plan.batch,), generator=draw).numpy()
        images = _moved(to_tensor(pictures[chosen], device), draw)
        with autocast(device):
            logits = network(images)
        truth = torch.from_numpy(labels[chosen]).long().to(device)
        losses = {name: _cross_entropy(logits[name], truth[:, k]) for k, name in enumerate(ATTRIBUTES)}
        return sum(_WEIGHTS.get(name, 1.0) * loss for name, loss in losses.items())

    return Judge(fit(plan, network, loss_of, folder).cpu())


def _moved(images: torch.Tensor, draw: torch.Generator) -> torch.Tensor:
    """All of them up to two pixels off, their edges drawn out: so that no picture is learned by heart."""
    top, left = torch.randint(2 * _FARTHEST + 1, (2,), generator=draw).tolist()
    wide = functional.pad(images, (_FARTHEST,) * 4, mode="replicate")
    moved = wide[:, :, top : top + PICTURE_SIDE, left : left + PICTURE_SIDE]
    return moved.contiguous(memory_format=torch.channels_last)


def _cross_entropy(logits: torch.Tensor, truth: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(logits.float(), truth, ignore_index=UNREADABLE, label_smoothing=0.02)


def fraction_right(readings: list[Reading], wanted: list[Drawing], attribute: str) -> float:
    """The fraction of pictures that show what was wanted, of those whose style can show it."""
    right = [
        reading.values[attribute] == value_of(drawing, attribute)
        for reading, drawing in zip(readings, wanted, strict=True)
        if readable(attribute, drawing)
    ]
    return round(float(np.mean(right)), 4)
