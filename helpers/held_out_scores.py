"""`make held-out-scores`: is a word for a toy that the miniature has never seen as good as a description?

Each of the three held-out toys is taught with three seeds, with the series' own settings, under
`build/held_out_scores/`; what is there already is kept, so that a killed run goes on.
"""

import json
import os
from pathlib import Path

import numpy as np

from . import places
from .base_model import MINIATURE
from .concept import Concept
from .images import add_images
from .miniature.grooty import write_examples
from .miniature.world import HELD_OUT_TOYS
from .scores import score_word
from .training import train

SEEDS = (42, 43, 44)
_SUBJECTS = ("word", "initializer", "description")


def teach_and_score(toy: str, seed: int, known: dict[str, dict]) -> dict:
    """Teach a held-out toy from five drawings of it, and score the word; `known` as for `score_word`."""
    concept = Concept.make(f"{toy}-{seed}", base_model=MINIATURE, training={"seed": seed})
    path = concept.folder / "scores.json"
    if path.is_file():
        return json.loads(path.read_text(encoding="utf-8"))
    concept.save()
    add_images(concept, [str(picture) for picture in write_examples(concept.folder / "drawn", toy)])
    train(concept)
    return score_word(concept, HELD_OUT_TOYS[toy], known)


def scores_of(toy: str) -> list[dict]:
    """A toy's scores, one a seed; what is no learned word is the same for all seeds, and drawn once."""
    scores, known = [], {}
    for seed in SEEDS:
        scores.append(teach_and_score(toy, seed, known))
        known = {scores[0]["said"][name]: scores[0][name] for name in _SUBJECTS[1:]}
    return scores


def summary(scores: list[dict]) -> dict:
    """For each subject the means over runs of identity, prompt and every trait, and identity's deviation."""
    means = {}
    for subject in _SUBJECTS:
        runs = [score[subject] for score in scores]
        means[subject] = {
            "identity": _mean([run["identity"] for run in runs]),
            "identity_deviation": round(float(np.std([run["identity"] for run in runs])), 4),
            "prompt": _mean([run["prompt"] for run in runs]),
            "traits": {trait: _mean([run["traits"][trait] for run in runs]) for trait in runs[0]["traits"]},
        }
    return means


def _mean(values: list[float]) -> float:
    return round(float(np.mean(values)), 4)


def main() -> None:
    root = places.repository_folder() / "build" / "held_out_scores" / places.miniature_mark()
    os.environ[places.ROOT_VARIABLE] = str(root)
    scores = {toy: scores_of(toy) for toy in HELD_OUT_TOYS}
    everything = [score for runs in scores.values() for score in runs]
    result = {
        "seeds": SEEDS,
        "all": summary(everything),
        **{toy: summary(runs) for toy, runs in scores.items()},
    }
    path: Path = places.miniature_folder() / "held_out_scores.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result["all"], indent=1), f"\nAll of it: {path}")


if __name__ == "__main__":
    main()
