"""How good a learned word is: is it the same toy, and did it go where the prompt said?

Only for the miniature, whose world has a judge. The word is scored beside the two things that one could
say without it: the initializer alone, and the fullest description of the toy that captions know.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from IPython.display import HTML
from PIL import Image

from ..common.errors import UserError
from ..common.files import write_json
from ..common.sheets import Described, finish, html_table, new_figure
from ..concept.concept import Concept
from ..dataset.images import load_images
from ..inference.examples import examples_for
from ..inference.grid import Sheet
from ..inference.pipeline import generate, pipeline_with_word
from ..model.base_model import MINIATURE
from .judge import Judge, Reading, fraction_right
from .world import (
    SCENES,
    STYLES,
    TRAITS,
    Drawing,
    Toy,
    describe,
    prompt,
    readable,
    value_of,
)

PICTURES = 64
STEPS = 25
_PROMPT = ("scene", "style")
_SUBJECTS = ("word", "initializer", "description")


def evaluation_surroundings(toy: Toy, pictures: int = PICTURES) -> list[Drawing]:
    """Where the toy is asked to go, and in which style: 64 pairs, none of which a template names.

    Every scene occurs four or five times; half of the pictures are photos, the rest in the five styles.
    """
    surroundings = []
    for number in range(pictures):
        round_, place = divmod(number, len(SCENES))
        photo = (round_ + place) % 2 == 0
        style = STYLES[0] if photo else STYLES[1 + number // 2 % 5]
        surroundings.append(Drawing(toy, scene=SCENES[place], style=style))
    return surroundings


def toy_in(images: list[Image.Image], judge: Judge) -> Toy:
    """The toy that pictures show, by what the judge sees in most of them."""
    readings = judge.read(images)
    traits = (*TRAITS, "second_color")
    seen = {trait: Counter(reading.values[trait] for reading in readings) for trait in traits}
    return Toy(**{trait: counts.most_common(1)[0][0] for trait, counts in seen.items()})


def read_subject(
    pipeline: Any, subject: str, wanted: list[Drawing], judge: Judge, guidance: float
) -> list[Reading]:
    """Draw `subject` in each of the surroundings and read the pictures."""
    prompts = [prompt(subject, drawing) for drawing in wanted]
    pictures = generate(pipeline, prompts, list(range(len(wanted))), STEPS, guidance)
    return judge.read([picture.image for picture in pictures])


def score_readings(readings: list[Reading], wanted: list[Drawing]) -> dict:
    """How much of what was wanted is in pictures.

    Returns:
        `identity`, the mean over the toy's traits, with `identity_error`, its standard error;
        `prompt`, the mean over scene and style; the fraction for each under `traits` and `asked`.
    """
    traits = {name: fraction_right(readings, wanted, name) for name in TRAITS}
    asked = {name: fraction_right(readings, wanted, name) for name in _PROMPT}
    return {
        "identity": _mean(traits.values()),
        "identity_error": _identity_error(readings, wanted),
        "prompt": _mean(asked.values()),
        "traits": traits,
        "asked": asked,
    }


def _identity_error(readings: list[Reading], wanted: list[Drawing]) -> float:
    """The standard error of identity over pictures: what a mean of as many others would differ by."""
    each = [
        np.mean(
            [reading.values[name] == value_of(drawing, name) for name in TRAITS if readable(name, drawing)]
        )
        for reading, drawing in zip(readings, wanted, strict=True)
    ]
    return round(float(np.std(each)) / math.sqrt(len(each)), 4)


def has_judge(concept: Concept) -> bool:
    """Whether pictures of this kind of concept can be judged: drawn toys alone."""
    return concept.base_model == MINIATURE and concept.what_to_teach == "object"


def fullest_description(concept: Concept) -> str:
    """All that a caption can say of the toy in a concept's pictures; empty where there is no judge for them.

    Raises:
        UserError: the concept has no pictures, or one of them is damaged.
    """
    return describe(toy_in(load_images(concept), Judge.load())) if has_judge(concept) else ""


def worth_in_words(scores: dict) -> str:
    """Whether the word says more than the fullest description, by what `score_word` returned.

    A difference in identity counts where it is more than twice its standard error.
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
    """Saved scores as a table's rows: first what was said, then a fraction for each of the three."""
    said = scores["said"] | {"word": word}
    columns = [_fractions(scores[name]) for name in _SUBJECTS]
    rows = [(name, *(f"{column[name]:.2f}" for column in columns)) for name in columns[0]]
    return [("", *(f"{name}: {said[name]}" for name in _SUBJECTS)), *rows]


def score_table(scores: dict, word: str) -> HTML:
    """The rows of `score_rows` as a table for a notebook."""
    head, *rows = score_rows(scores, word)
    return HTML(html_table(rows, head, named_rows=True))


def _fractions(score: dict) -> dict[str, float]:
    """Identity and its traits, prompt and its parts, in this order."""
    return {"identity": score["identity"], **score["traits"], "prompt": score["prompt"], **score["asked"]}


def score_word(concept: Concept | str, pictures: int = PICTURES) -> dict:
    """Score a learned word, and write `scores.json` into the concept's folder.

    Args:
        concept: an object that was learned on the miniature.
        pictures: how many are drawn for each of the three.

    Returns:
        `identity` and `prompt` (fractions, 0 to 1) of the word; the same with details for `word`,
        `initializer` and `description`.

    Raises:
        UserError: there is no judge for this kind of concept.
    """
    concept = Concept.load(concept) if isinstance(concept, str) else concept
    if not has_judge(concept):
        raise UserError("Only objects on the miniature can be scored: the judge reads drawn toys.")
    judge = Judge.load()
    toy = toy_in(load_images(concept), judge)
    pipeline = pipeline_with_word(concept)
    words = (concept.placeholder_token, concept.initializer_token, describe(toy))
    subjects = dict(zip(_SUBJECTS, words, strict=True))
    guidance, wanted = examples_for(concept).guidance, evaluation_surroundings(toy, pictures)
    scores = {
        name: score_readings(read_subject(pipeline, subject, wanted, judge, guidance), wanted)
        for name, subject in subjects.items()
    }
    first = {name: scores["word"][name] for name in ("identity", "prompt")}
    said = {**subjects, "word": "{}"}  # whatever it is named by now
    everything = {**first, "pictures": pictures, "said": said, **scores}
    write_json(concept.folder / "scores.json", everything)
    return everything


def _mean(values: Iterable[float]) -> float:
    return round(float(np.mean(list(values))), 4)


# Two toys in one picture: how much of each is there?


def share_of(toy: Toy, others: Iterable[Toy], readings: Iterable[Reading]) -> float:
    """The fraction of a toy's traits that pictures show, of those traits that none of the others has."""
    own = [name for name in TRAITS if all(getattr(toy, name) != getattr(other, name) for other in others)]
    return _mean(reading.values[name] == getattr(toy, name) for reading in readings for name in own)


def plot_shares(sheets: Sequence[Sheet], toys: Mapping[str, Toy], weights: Sequence[float]) -> Described:
    """How much of two toys is in each cell of a grid over two weights, as two tables in colour.

    Args:
        sheets: the same grid with several seeds; the weight of the first toy's word differs in `x`.
        toys: by their words; each is read by the traits that the other has not.
        weights: of the second toy's word, one a row.
    """
    judge, columns = Judge.load(), len(sheets[0].plan.x.values)
    cells = zip(*(judge.read([picture.image for picture in sheet.pictures]) for sheet in sheets), strict=True)
    cells, said = list(cells), []
    axes = new_figure(columns=2, size=(9, 3.6))
    for one, (word, toy) in zip(axes, toys.items(), strict=True):
        others = [other for other in toys.values() if other is not toy]
        shares = np.reshape([share_of(toy, others, cell) for cell in cells], (len(weights), columns))
        _draw_table(one, shares, sheets[0].plan.x.values, weights)
        first, second = toys
        one.set(title=f"how much of {word}", xlabel=f"weight of {first}", ylabel=f"weight of {second}")
        said.append(f"of {word} row by row {shares.round(2).tolist()}")
    return finish(axes[0], f"How much of each toy there is as two weights grow: {'; '.join(said)}.")


def _draw_table(axes: Any, values: np.ndarray, columns: Sequence[Any], rows: Sequence[Any]) -> None:
    """Numbers from 0 to 1, each on a square in its shade."""
    axes.imshow(values, vmin=0, vmax=1, cmap="Blues", aspect="auto")
    axes.set_xticks(range(len(columns)), map(str, columns))
    axes.set_yticks(range(len(rows)), map(str, rows))
    axes.grid(False)
    for (row, column), value in np.ndenumerate(values):
        axes.text(column, row, f"{value:.2f}", ha="center", va="center", color="w" if value > 0.6 else "k")
