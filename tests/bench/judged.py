"""What the judge says of the rows on their way."""

from collections.abc import Sequence
from functools import cache

import torch
from safetensors.torch import load_file

from helpers.dataset.images import load_images
from helpers.inference.examples import examples_for
from helpers.inference.pipeline import add_word
from helpers.miniature.judge import Judge
from helpers.miniature.scores import evaluation_surroundings, read_subject, score_readings, toy_in
from helpers.model.base_model import MINIATURE, load_pipeline

from .gain import measure_gain, measured
from .ledger import Ledger, Measurement
from .plan import OUR_LOOKS, OWN_RATE, OWN_STEPS, SEEDS, THEIR_LOOKS, Run, our_run, seeds_of, their_run
from .readings import best_rate
from .rivals import RIVALS
from .setting import INITIALIZER, WORD, make_concept, rows_path


def measure_scores(ledger: Ledger) -> None:
    """Our rows and the source's at its best rate on their way; of the others only the result.

    Raises:
        UserError: the miniature has no judge.
    """
    Judge.load()
    measure_gain(ledger)
    ledger.once("scores/initializer", lambda: score(INITIALIZER))
    for seed in SEEDS:
        score_rows(ledger, our_run(seed), [*OUR_LOOKS, "result"])
    for kind in RIVALS:
        best = best_rate(ledger.measurements, kind)
        for seed in seeds_of(kind):
            score_rows(ledger, their_run(kind, OWN_RATE, seed), [OWN_STEPS])
            looks = THEIR_LOOKS if kind == "source" else [OWN_STEPS]
            score_rows(ledger, their_run(kind, best, seed), looks)


def score_rows(ledger: Ledger, run: Run, looks: Sequence[int | str]) -> None:
    """Judge the rows that a run left; where they are lost, it is carried out again."""
    paths = {run.score(look): rows_path(run.name, look) for look in looks}
    if not all(path.is_file() for path in paths.values()):
        ledger.forget(run.measurement)
    measured(ledger, run)
    for name, path in paths.items():
        ledger.once(name, lambda path=path: score(WORD, load_file(path)["rows"]))


def score(subject: str, rows: torch.Tensor | None = None) -> Measurement:
    """`identity` and `prompt` of a subject; `rows`, (1, width), are put in the place of the word's."""
    pipeline, wanted, judge, guidance = _scene()
    if rows is not None:
        [word] = pipeline.tokenizer.convert_tokens_to_ids([WORD])
        _table(pipeline).data[word] = rows[0]
    result = score_readings(read_subject(pipeline, subject, wanted, judge, guidance), wanted)
    return {name: result[name] for name in ("identity", "prompt")}


@cache
def _scene():
    """Pipeline with a place for the word, pictures to be drawn, the judge, and the guidance."""
    concept, judge = make_concept("bench-judged"), Judge.load()
    pipeline = load_pipeline(MINIATURE)
    pipeline.set_progress_bar_config(disable=True)
    add_word(pipeline, WORD, [_table(pipeline)[:1].clone()])
    wanted = evaluation_surroundings(toy_in(load_images(concept), judge))
    return pipeline, wanted, judge, examples_for(concept).guidance


def _table(pipeline) -> torch.nn.Parameter:
    return pipeline.text_encoder.get_input_embeddings().weight
