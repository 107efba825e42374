"""The judge, a small classifier of toy pictures; and scores of learned words by it.

A word is compared with what one could write without it: the initializer alone, and the fullest description
that captions can give of the toy. There is a judge for the miniature's world only.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from IPython.display import HTML
from matplotlib.axes import Axes
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import nn

from ..common.errors import UserError
from ..common.files import write_json
from ..common.places import miniature_folder
from ..common.sheets import Described, finish, html_table, new_figure
from ..concept.concept import Concept
from ..dataset.images import load_images
from ..inference.examples import examples_for
from ..inference.grid import Sheet
from ..inference.pipeline import generate, pipeline_with_word
from ..model.base_model import MINIATURE
from ..model.vae import to_pixel_values
from .drawing import PICTURE_SIDE
from .world import ATTRIBUTES, SCENES, STYLES, TRAITS, Drawing, Toy, describe, prompt, shown_values

PICTURES = 64
STEPS = 25
_ASKED = ("scene", "style")
_SUBJECTS = ("word", "initializer", "description")

Reading = dict[str, str]  # the judge's prediction for a picture: for each attribute the likeliest value


class Judge(nn.Module):
    """Four strided convolutions, then a linear classifier for each attribute."""

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

    @classmethod
    def load(cls, folder: Path | None = None) -> "Judge":
        """Load the judge from a miniature's folder, by default the one that ships.

        Raises:
            UserError: the folder has no judge.
        """
        path = (folder or miniature_folder()) / "judge" / "model.safetensors"
        if not path.is_file():
            raise UserError(f"There is no judge in {path.parent.parent}: run `make miniature`.")
        judge = cls()
        judge.load_state_dict({name: value.float() for name, value in load_file(path).items()})
        return judge.eval()

    def save(self, folder: Path) -> None:
        """Save the judge in half precision as `folder/judge/model.safetensors`."""
        path = folder / "judge" / "model.safetensors"
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: one.half().contiguous() for name, one in self.state_dict().items()}, path)

    @torch.no_grad()
    def read(self, images: list[Image.Image]) -> list[Reading]:
        """Classify pictures of any size, one `Reading` each."""
        side = (PICTURE_SIDE, PICTURE_SIDE)
        seen = [to_pixel_values(one.convert("RGB").resize(side, Image.Resampling.BOX)) for one in images]
        logits = self(torch.stack(seen))
        likeliest = {name: values.argmax(-1).tolist() for name, values in logits.items()}
        return [
            {name: ATTRIBUTES[name][best[number]] for name, best in likeliest.items()}
            for number in range(len(images))
        ]


def agreement(readings: list[Reading], wanted: list[Reading], by_value: bool = False) -> dict[str, float]:
    """For each attribute the fraction of pictures that show what was wanted, among those where it is known.

    Args:
        by_value: average over the attribute's values, so that rare ones count as much as others.
    """
    hits = defaultdict(lambda: defaultdict(list))
    for seen, one in zip(readings, wanted, strict=True):
        for name, value in one.items():
            hits[name][value if by_value else None].append(seen[name] == value)
    return {name: _mean(map(np.mean, of_values.values())) for name, of_values in hits.items()}


def _mean(values: Iterable[float]) -> float:
    return round(float(np.mean(list(values))), 4)


# The scores of a word.


def evaluation_surroundings(toy: Toy, pictures: int = PICTURES) -> list[Drawing]:
    """The scenes and styles to draw the toy in; no training template names them.

    Of 64, each scene occurs four or five times; half are photos, the rest are in the five styles.
    """
    surroundings = []
    for number in range(pictures):
        round_, place = divmod(number, len(SCENES))
        photo = (round_ + place) % 2 == 0
        style = STYLES[0] if photo else STYLES[1 + number // 2 % 5]
        surroundings.append(Drawing(toy, scene=SCENES[place], style=style))
    return surroundings


def toy_in(images: list[Image.Image], judge: Judge) -> Toy:
    """The toy in pictures: for each trait what the judge sees most often."""
    readings = judge.read(images)
    seen = {name: Counter(reading[name] for reading in readings) for name in (*TRAITS, "second_color")}
    return Toy(**{name: counts.most_common(1)[0][0] for name, counts in seen.items()})


def read_subject(
    pipeline: Any, subject: str, wanted: list[Drawing], judge: Judge, guidance: float
) -> list[Reading]:
    """Draw `subject` in each of the surroundings and classify the pictures."""
    prompts = [prompt(subject, drawing) for drawing in wanted]
    pictures = generate(pipeline, prompts, list(range(len(wanted))), STEPS, guidance)
    return judge.read([picture.image for picture in pictures])


def score_readings(readings: list[Reading], wanted: list[Drawing]) -> dict:
    """How much of what was wanted the pictures show.

    Returns:
        `identity`, the mean accuracy over the toy's traits, with `identity_error`, its standard error over
        pictures; `prompt`, the mean over scene and style; `traits` and `asked`, the accuracy of each.
    """
    traits, asked = ([shown_values(one, names) for one in wanted] for names in (TRAITS, _ASKED))
    pairs = zip(readings, traits, strict=True)
    of_each_picture = [np.mean([seen[name] == one[name] for name in one]) for seen, one in pairs]
    traits, asked = agreement(readings, traits), agreement(readings, asked)
    return {
        "identity": _mean(traits.values()),
        "identity_error": round(float(np.std(of_each_picture)) / math.sqrt(len(wanted)), 4),
        "prompt": _mean(asked.values()),
        "traits": traits,
        "asked": asked,
    }


def score_word(concept: Concept | str, pictures: int = PICTURES) -> dict:
    """Score a learned word and write `scores.json` into the concept's folder.

    Args:
        pictures: how many to draw for each of the three subjects.

    Returns:
        `identity` and `prompt` (0 to 1) of the word; the same with details for `word`, `initializer` and
        `description`.

    Raises:
        UserError: there is no judge for this kind of concept.
    """
    concept = Concept.load(concept) if isinstance(concept, str) else concept
    if not _has_judge(concept):
        raise UserError("Only objects on the miniature can be scored: the judge reads drawn toys.")
    judge = Judge.load()
    toy = toy_in(load_images(concept), judge)
    pipeline = pipeline_with_word(concept)
    words = (concept.placeholder_token, concept.initializer_token, describe(toy))
    said = dict(zip(_SUBJECTS, words, strict=True))
    guidance, wanted = examples_for(concept).guidance, evaluation_surroundings(toy, pictures)
    scores = {
        name: score_readings(read_subject(pipeline, subject, wanted, judge, guidance), wanted)
        for name, subject in said.items()
    }
    first = {name: scores["word"][name] for name in ("identity", "prompt")}
    said["word"] = "{}"  # it may be renamed
    everything = {**first, "pictures": pictures, "said": said, **scores}
    write_json(concept.folder / "scores.json", everything)
    return everything


def _has_judge(concept: Concept) -> bool:
    return concept.base_model == MINIATURE and concept.what_to_teach == "object"


def fullest_description(concept: Concept) -> str:
    """All that a caption can say about the toy in a concept's pictures; empty where there is no judge.

    Raises:
        UserError: the concept has no pictures, or one of them is damaged.
    """
    return describe(toy_in(load_images(concept), Judge.load())) if _has_judge(concept) else ""


def worth_in_words(scores: dict) -> str:
    """Whether the word does better than the fullest description, by the scores of `score_word`.

    A difference in identity counts if it is more than twice its standard error.
    """
    word, described = scores["word"], scores["description"]
    gain = word["identity"] - described["identity"]
    error = math.hypot(word["identity_error"], described["identity_error"])
    if abs(gain) <= 2 * error:
        verdict = "On these pictures the word and the description can't be told apart"
    elif gain > 0:
        verdict = "The word is worth it"
    else:
        verdict = "The description does better than the word"
    most = max(TRAITS, key=lambda trait: word["traits"][trait] - described["traits"][trait])
    return (
        f"{verdict}: identity {word['identity']:.2f} with the word and {described['identity']:.2f} with the "
        f"description, prompt {word['prompt']:.2f} and {described['prompt']:.2f}. The word gains most on the "
        f"{most}: {word['traits'][most]:.2f} and {described['traits'][most]:.2f}."
    )


def score_rows(scores: dict, word: str) -> list[tuple[str, ...]]:
    """Saved scores as a table's rows: the three subjects, then a fraction for each."""
    said = scores["said"] | {"word": word}
    columns = []
    for name in _SUBJECTS:
        score = scores[name]
        named = {"identity": score["identity"], **score["traits"], "prompt": score["prompt"]}
        columns.append(named | score["asked"])
    rows = [(name, *(f"{column[name]:.2f}" for column in columns)) for name in columns[0]]
    return [("", *(f"{name}: {said[name]}" for name in _SUBJECTS)), *rows]


def score_table(scores: dict, word: str) -> HTML:
    """The rows of `score_rows` as a table for a notebook."""
    head, *rows = score_rows(scores, word)
    return HTML(html_table(rows, head, named_rows=True))


# Two toys in one picture: how much is there of each?


def fraction_shown(toy: Toy, other: Toy, readings: Iterable[Reading]) -> float:
    """The fraction of a toy's traits that pictures show, among those in which the other toy differs."""
    own = [name for name in TRAITS if getattr(toy, name) != getattr(other, name)]
    return _mean(reading[name] == getattr(toy, name) for reading in readings for name in own)


def plot_shares(sheets: Sequence[Sheet], toys: Mapping[str, Toy], weights: Sequence[float]) -> Described:
    """How much there is of two toys in each cell of a grid over two weights, as two heat maps.

    Args:
        sheets: the same grid with several seeds; along `x` the weight of the first toy's word differs.
        toys: by their words; only the traits in which they differ count.
        weights: of the second toy's word, one for each row.
    """
    judge, columns = Judge.load(), sheets[0].plan.x.values
    read = [judge.read([picture.image for picture in sheet.pictures]) for sheet in sheets]
    cells, said = list(zip(*read, strict=True)), []
    axes = new_figure(columns=2, size=(9, 3.6))
    first, second = toys
    for one, word, other in zip(axes, (first, second), (second, first), strict=True):
        shares = np.reshape(
            [fraction_shown(toys[word], toys[other], cell) for cell in cells], (len(weights), -1)
        )
        _heat_map(one, shares, columns, weights)
        one.set(title=f"how much of {word}", xlabel=f"weight of {first}", ylabel=f"weight of {second}")
        said.append(f"of {word} row by row {shares.round(2).tolist()}")
    return finish(axes[0], f"How much of each toy there is as two weights grow: {'; '.join(said)}.")


def _heat_map(axes: Axes, values: np.ndarray, columns: Sequence[Any], rows: Sequence[Any]) -> None:
    """A heat map of numbers from 0 to 1, with the numbers on it."""
    axes.imshow(values, vmin=0, vmax=1, cmap="Blues", aspect="auto")
    axes.set_xticks(range(len(columns)), map(str, columns))
    axes.set_yticks(range(len(rows)), map(str, rows))
    axes.grid(False)
    for (row, column), value in np.ndenumerate(values):
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", color="w" if value > 0.6 else "k")
