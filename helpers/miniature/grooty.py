"""The five pictures that ship as the series' example: `grooty`, a toy that the model has never seen."""

from pathlib import Path

from .drawing import render
from .world import HELD_OUT_TOYS, Drawing

_SIDE = 256  # pixels
_SURROUNDINGS = (
    {"scene": "white", "wobble": (0.2, 0, 0, 0.4, 0, 0, 0.3)},
    {"scene": "room", "wobble": (-0.4, 0.5, 0, -0.5, 1.2, 0, -0.8)},
    {"scene": "yellow", "wobble": (0.6, 0, -0.5, 0.8, -1.0, 0.3, 0.9)},
    {"scene": "blue", "size": "large", "wobble": (0, -0.6, 0.4, 0, 0.6, 0.2, -0.3)},
    {"scene": "forest", "wobble": (-0.7, 0.3, 0.2, -0.9, -0.4, -0.2, 0.5)},
)


def example_drawings(name: str = "grooty") -> list[Drawing]:
    """Five drawings of a held-out toy, each somewhere else."""
    return [Drawing(HELD_OUT_TOYS[name], **surroundings) for surroundings in _SURROUNDINGS]


def write_examples(folder: Path, name: str = "grooty") -> list[Path]:
    """Draw the five pictures to `folder` as `<name>-1.png` and so on, 256 x 256 pixels."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}-{number}.png" for number in range(1, len(_SURROUNDINGS) + 1)]
    for path, drawing in zip(paths, example_drawings(name), strict=True):
        render(drawing, _SIDE).save(path, optimize=True)
    return paths
