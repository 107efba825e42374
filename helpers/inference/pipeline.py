"""Pictures of a learned word: the pipeline with the word in it, and a call that draws."""

import contextlib
import math
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ..common.errors import UserError, memory_is_full
from ..common.progress import counting_bar
from ..common.sheets import counted
from ..concept.concept import Concept, row_names
from ..concept.embedding import concept_with_rows, hash_rows, read_rows
from ..model.base_model import load_pipeline
from ..model.machine import diffusers, pick_dtype
from ..model.tokens import check_length, encoders, learned_tokens, plain, put_word, set_rows
from .png import Picture, PictureSettings, read_settings
from .prompt_weights import Prompt, parse_prompt, weighted_embeddings

DEFAULT_SCHEDULER = "DPM++ 2M"
# The names are AUTOMATIC1111's, so that settings can be carried over; the values make each class
# take the steps that Stable Diffusion's own configuration takes.
SCHEDULERS = {
    DEFAULT_SCHEDULER: ("DPMSolverMultistepScheduler", {}),
    "DDIM": ("DDIMScheduler", {"clip_sample": False, "set_alpha_to_one": False}),
    "PLMS": ("PNDMScheduler", {"skip_prk_steps": True, "set_alpha_to_one": False}),
    "Euler a": ("EulerAncestralDiscreteScheduler", {}),
}
_PIXELS_AT_ONCE = 4 * 512 * 512
_MOST_AT_ONCE = 8
_drawing = threading.RLock()


class Sampling(NamedTuple):
    """What pictures have in common that are drawn together; see `generate`."""

    steps: int = 25
    guidance: float = 7.5
    scheduler: str = DEFAULT_SCHEDULER
    negative_prompt: str = ""


@contextlib.contextmanager
def one_at_a_time() -> Iterator[None]:
    """Serialize calls: a form draws in a thread of its own, beside the cells.

    Each may give the pipeline another scheduler, and the word of another training step.
    """
    with _drawing:
        yield


@contextlib.contextmanager
def _room_to_draw() -> Iterator[None]:
    """Turn a full memory into a sentence."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not memory_is_full(error):
            raise
        advice = "draw smaller pictures (size), or one at a time (batch_size=1)"
        raise UserError(f"The memory is full: {advice}.") from None


@dataclass(frozen=True)
class LearnedWord:
    """Which rows a pipeline has been given: kept on it as `pipeline.learned_word`."""

    concept: Concept
    step: int | None
    rows_hash: str

    @property
    def placeholder_token(self) -> str:
        return self.concept.placeholder_token


def pipeline_with_word(
    concept: Concept | str,
    step: int | None = None,
    safety_checker: bool = True,
    base_model: str | None = None,
) -> Any:
    """The base model's pipeline with a concept's word in it, on the GPU where there is one.

    Args:
        concept: a concept or its name.
        step: a training step whose rows are used instead of the result.
        safety_checker: leave on the one that the model brings, if any; it blackens what it refuses.
        base_model: another model of the same family in its place, such as a Dreambooth checkpoint.

    Returns:
        A `StableDiffusionPipeline`; for XL a `StableDiffusionXLPipeline`.

    Raises:
        UserError: nothing was learned yet, that step was not kept, or the word belongs to
            another base model.
    """
    concept = Concept.load(concept) if isinstance(concept, str) else concept
    rows = read_rows(concept, step)
    if base_model:
        concept = concept.changed(base_model=base_model)
    pipeline = drawing_pipeline(concept.base_model, safety_checker)
    pipeline.unet.to(memory_format=torch.channels_last)
    pipeline.vae.enable_slicing()
    add_word(pipeline, concept.placeholder_token, rows)
    pipeline.learned_word = LearnedWord(concept.model_copy(deep=True), step, hash_rows(rows))
    return pipeline


def drawing_pipeline(base_model: str, safety_checker: bool = True) -> Any:
    """A base model's pipeline as it is, on the GPU where there is one; arguments as above."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.float32 if device == "cpu" else pick_dtype("auto", device)
    pipeline = load_pipeline(base_model, dtype=dtype, device=device)
    if not safety_checker:
        pipeline.safety_checker = None
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def add_word(pipeline: Any, word: str, rows: Sequence[torch.Tensor]) -> None:
    """Put a word into a pipeline, beside those that it has.

    Args:
        rows: for each text encoder a tensor of shape (vectors, width), as `embedding.read_rows` gives.

    Raises:
        UserError: the pipeline has the word already, or the rows are not as wide as its encoders.
    """
    _check_fit(pipeline, word, rows)
    put_word(pipeline, word, rows)


def switch_step(pipeline: Any, concept: Concept, step: int | None) -> None:
    """Give a pipeline the word as it was at another training step; None: the result.

    Raises:
        UserError: that step was not kept, or its rows are not as many or as wide as the pipeline's.
    """
    rows, word = read_rows(concept, step), concept.placeholder_token
    names = row_names(word, len(rows[0]))
    _check_fit(pipeline, word, rows)
    if not {*names} <= {*learned_tokens(pipeline.tokenizer)}:
        raise UserError(f"That step has {len(names)} vectors and {word} has not: load the pipeline again.")
    for (tokenizer, encoder), own in zip(encoders(pipeline), rows, strict=True):
        set_rows(encoder, tokenizer.convert_tokens_to_ids(names), own)
    pipeline.learned_word = LearnedWord(concept.model_copy(deep=True), step, hash_rows(rows))


@one_at_a_time()
def generate(
    pipeline: Any,
    prompts: str | Sequence[str],
    seeds: int | Sequence[int] = 0,
    steps: int = 25,
    guidance: float = 7.5,
    scheduler: str = DEFAULT_SCHEDULER,
    negative_prompt: str = "",
    size: int | None = None,
    batch_size: int | None = None,
    bar: Any = None,
    say: Callable[[str], Any] = print,
) -> list[Picture]:
    """Draw one picture for each pair of prompt and seed.

    Each picture has a random generator of its own, so that it is the same alone and in a grid.

    Args:
        prompts: one a picture; a single one is used for all seeds. `(word:1.3)` gives a word a weight.
        seeds: one a picture; a single one is used for all prompts.
        steps: how many times the network is asked.
        guidance: how much the prompt counts (classifier-free guidance); 1: no more than it does by itself.
        scheduler: one of `SCHEDULERS`.
        size: side of the pictures in pixels, a multiple of 8; None: the model's own.
        batch_size: pictures at once; None: as many as suit their size.
        bar: a tqdm bar to move on by one for each step of each picture; None: one is shown if it takes long.
        say: gets a sentence where the model's safety checker made pictures black.

    Raises:
        UserError: a prompt holds a word in angle brackets that the pipeline does not have or a weight that
            can't be read, the scheduler is not one of ours, a number can't be used, or there are not as
            many prompts as seeds.
    """
    prompts, seeds = _pairs(prompts, seeds)
    sampling = Sampling(steps, guidance, scheduler, negative_prompt)
    check_settings(pipeline, prompts, seeds, sampling, size)
    pictures = draw(pipeline, prompts, seeds, sampling, size or own_size(pipeline), batch_size, bar)
    if sentence := remark(pipeline, pictures):
        say(sentence)
    return pictures


@torch.no_grad()
@_room_to_draw()
def draw(
    pipeline: Any,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sampling: Sampling,
    size: int,
    batch_size: int | None = None,
    bar: Any = None,
) -> list[Picture]:
    """What `generate` does when all is checked."""
    pipeline.scheduler = _make_scheduler(pipeline, sampling.scheduler)
    batch_size = batch_size or max(1, min(_MOST_AT_ONCE, _PIXELS_AT_ONCE // size**2))
    parsed = [_parsed(pipeline, prompt) for prompt in prompts]
    drawn = {}
    with drawing_bar(len(prompts) * sampling.steps, bar) as bar:
        for places in _batches(parsed, batch_size):
            batch, own_seeds = [parsed[place] for place in places], [seeds[place] for place in places]
            drawn |= zip(places, _draw_batch(pipeline, batch, own_seeds, sampling, size, bar), strict=True)
    return [drawn[place] for place in range(len(prompts))]


def remark(pipeline: Any, pictures: Sequence[Picture]) -> str:
    """Sentences where a safety checker made pictures black, or a prompt has a word without its brackets.

    Where its letters are a word that the model knows, as those of `<cat>`, they are what is meant.
    """
    said, known = [], pipeline.tokenizer.get_vocab()
    if refused := sum(picture.refused for picture in pictures):
        black = counted(refused, "picture")
        said.append(f"The model's safety checker made {black} black: try another seed or prompt.")
    for prompt in dict.fromkeys(picture.settings.prompt for picture in pictures):
        for found, word in _without_brackets(pipeline.tokenizer, prompt):
            if f"{found.lower()}</w>" not in known:
                said.append(f"“{found}” has no brackets, so it is not your word, which is {word}.")
    return " ".join(dict.fromkeys(said))


def drawing_bar(total: int, bar: Any = None) -> AbstractContextManager:
    """The bar that was given, or one over the steps of all pictures, shown where it takes long."""
    return contextlib.nullcontext(bar) if bar is not None else counting_bar("drawing, in steps", total)


def own_size(pipeline: Any) -> int:
    """Side, in pixels, of the pictures that the model was made for."""
    return pipeline.unet.config.sample_size * pipeline.vae_scale_factor


def check_settings(
    pipeline: Any,
    prompts: Sequence[str],
    seeds: Sequence[int],
    sampling: Sampling,
    size: int | None = None,
) -> None:
    """Check everything that a person can mistype, before anything is drawn.

    Raises:
        UserError: as for `generate`.
    """
    _check_kinds((*prompts, sampling.negative_prompt), sampling, size, seeds)
    _check_numbers(pipeline, sampling.steps, sampling.guidance, size)
    for seed in seeds:
        _check_seed(seed)
    for prompt in dict.fromkeys((*prompts, sampling.negative_prompt)):
        _check_prompt(pipeline, _parsed(pipeline, prompt).text)
    _check_steps(_make_scheduler(pipeline, sampling.scheduler), sampling.scheduler, sampling.steps)


def remake(path: Path | str, pipeline: Any = None) -> Picture:
    """Make a saved picture again from the settings in its PNG file; on the same CPU, bit for bit.

    Args:
        pipeline: one with the word in it, where there is one already.

    Raises:
        UserError: the file holds no settings, or the word has been learned anew since.
    """
    settings = read_settings(path)
    if settings.rows_hash is None:
        raise UserError(f"{Path(path).name} was made without a concept: there is no word to load.")
    if pipeline:
        concept, found = pipeline.learned_word.concept, pipeline.learned_word.rows_hash == settings.rows_hash
    else:
        concept = concept_with_rows(settings.rows_hash, settings.training_step, near=Path(path))
        found = concept is not None
    if not found:
        raise UserError(
            f"{concept.placeholder_token if concept else 'The word'} is not what it was when "
            f"{Path(path).name} was made: it has been learned again since, or another step is in use."
        )
    pipeline = pipeline or pipeline_with_word(concept, settings.training_step)
    copies = generate(
        pipeline,
        [concept.with_present_word(settings.prompt)] * settings.batch_size,
        settings.seed,
        settings.steps,
        settings.guidance,
        settings.scheduler,
        concept.with_present_word(settings.negative_prompt),
        settings.size,
        settings.batch_size,
    )
    return copies[settings.position]


def _draw_batch(
    pipeline: Any, prompts: list[Prompt], seeds: list[int], sampling: Sampling, size: int, bar: Any
) -> list[Picture]:
    negative = _parsed(pipeline, sampling.negative_prompt)
    # On a CPU that has bfloat16 arithmetic; a GPU's pipeline was loaded in its fast format.
    is_fast = pipeline.device.type == "cpu" and pick_dtype("auto", "cpu") == torch.bfloat16
    with torch.autocast("cpu", torch.bfloat16, enabled=is_fast):
        drawn = pipeline(
            **_asked(pipeline, prompts, negative),
            num_inference_steps=sampling.steps,
            guidance_scale=sampling.guidance,
            width=size,
            height=size,
            generator=[torch.Generator().manual_seed(seed) for seed in seeds],
            callback_on_step_end=_counts_on(bar, len(prompts), sampling.steps),
        )
    word = getattr(pipeline, "learned_word", None)
    common = {
        "size": size,
        "base_model": Path(word.concept.base_model).name if word else "unknown",
        "training_step": word and word.step,
        "rows_hash": word and word.rows_hash,
        "batch_size": len(prompts),
        **sampling._asdict(),
    }
    return [
        Picture(
            image, PictureSettings(prompt=prompt.written, seed=seed, position=position, **common), refused
        )
        for position, (image, prompt, seed, refused) in enumerate(
            zip(drawn.images, prompts, seeds, _refused(drawn), strict=True)
        )
    ]


def _batches(prompts: list[Prompt], batch_size: int) -> Iterator[list[int]]:
    """Which prompts are drawn together: plain ones apart, so that they take the pipeline's usual way."""
    for weighted in (False, True):
        places = [place for place, prompt in enumerate(prompts) if prompt.is_weighted == weighted]
        for first in range(0, len(places), batch_size):
            yield places[first : first + batch_size]


def _asked(pipeline: Any, prompts: list[Prompt], negative: Prompt) -> dict[str, Any]:
    """The prompts, or where there are weights what compel makes of them."""
    if any(prompt.is_weighted for prompt in (*prompts, negative)):
        return weighted_embeddings(pipeline, prompts, negative)
    return {
        "prompt": [prompt.text for prompt in prompts],
        "negative_prompt": [negative.text] * len(prompts),
    }


def _parsed(pipeline: Any, prompt: str) -> Prompt:
    return parse_prompt(prompt, tuple(learned_tokens(pipeline.tokenizer)))


def _counts_on(bar: Any, pictures: int, steps: int) -> Callable:
    """Moves the bar at each step; PLMS takes one more than it was asked for."""

    def step_ended(_pipeline, index, _timestep, given):
        if index < steps:
            bar.update(pictures)
        return given

    return step_ended


def _refused(drawn: Any) -> list[bool]:
    """Which pictures a safety checker made black; XL's pipeline, and one without a checker, know of none."""
    return getattr(drawn, "nsfw_content_detected", None) or [False] * len(drawn.images)


def _make_scheduler(pipeline: Any, name: str) -> Any:
    if name not in SCHEDULERS:
        raise UserError(f"There is no scheduler “{name}” here: choose one of these: {', '.join(SCHEDULERS)}.")
    kind, settings = SCHEDULERS[name]
    return getattr(diffusers(), kind).from_config(pipeline.scheduler.config, **settings)


def _check_kinds(texts: Sequence[str], sampling: Sampling, size: int | None, seeds: Sequence[int]) -> None:
    """Numbers in quotes, and `None` where a value has to be, before anything stumbles over them."""
    for text in texts:
        if not isinstance(text, str):
            raise UserError(f"A prompt is words in quotes: {text!r} can't be drawn.")
    numbers = [("steps", sampling.steps), ("guidance", sampling.guidance), ("size", size or 0)]
    for name, number in [*numbers, *(("seeds", seed) for seed in seeds)]:
        if not isinstance(number, Real):
            raise UserError(f"{name}: give a number, without quotes (you gave {number!r}).")
        if name != "guidance" and number != number // 1:
            raise UserError(f"{name}: give a whole number (you gave {number}).")


def _check_numbers(pipeline: Any, steps: int, guidance: float, size: int | None) -> None:
    if steps < 1:
        raise UserError(f"{steps} steps are too few: give at least 1, for example 25.")
    most = pipeline.scheduler.config.num_train_timesteps
    if steps > most:
        raise UserError(f"{steps} steps are more than the model's {most} levels of noise: try 25.")
    if not math.isfinite(guidance):
        raise UserError(f"A guidance of {guidance} can't be used: give a number, for example 7.5.")
    if size is not None and (size < 8 or size % 8):
        raise UserError(f"Pictures of {size} pixels can't be drawn: give a multiple of 8, for example 512.")


def _check_steps(scheduler: Any, name: str, steps: int) -> None:
    """Near the largest number, some schedulers leave the model's timesteps or repeat one."""
    scheduler.set_timesteps(steps)
    chosen = set(scheduler.timesteps.tolist())
    if len(chosen) < steps or max(chosen) >= scheduler.config.num_train_timesteps:
        raise UserError(f"{name} can't take {steps} steps with this model: try 25.")


def _check_seed(seed: int) -> None:
    if seed == -1:
        raise UserError("Unlike in AUTOMATIC1111, a seed of -1 does not mean “random”: give 0 or more.")
    if not -(2**63) <= seed < 2**63:
        raise UserError(f"The seed {seed} is too large: give a whole number of at most 18 digits.")


def _pairs(prompts: str | Sequence[str], seeds: int | Sequence[int]) -> tuple[list[str], list[int]]:
    prompts, seeds = (
        list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
        for given in (prompts, seeds)
    )
    if 1 not in (len(prompts), len(seeds)) and len(prompts) != len(seeds):
        raise UserError(f"There are {len(prompts)} prompts and {len(seeds)} seeds: give as many, or one.")
    if not prompts or not seeds:
        raise UserError("Give at least one prompt and one seed.")
    count = max(len(prompts), len(seeds))
    return prompts * (count // len(prompts)), seeds * (count // len(seeds))


def _check_prompt(pipeline: Any, text: str) -> None:
    learned = learned_tokens(pipeline.tokenizer)
    for found, own in _without_brackets(pipeline.tokenizer, text):
        if "<" in found or ">" in found:
            raise UserError(f"“{found}” in the prompt lacks a bracket: write {own}.")
    for word in re.findall(r"<[^<>\s]+>", text):
        if plain(word) not in {plain(token) for token in learned}:
            word_here = getattr(pipeline, "learned_word", None)
            known = f"the word here is {word_here.placeholder_token}" if word_here else "no word is loaded"
            raise UserError(f"The prompt contains {word}, which was not learned: {known}.")
    for tokenizer, _ in encoders(pipeline):
        check_length(tokenizer, text)


def _without_brackets(tokenizer: Any, text: str) -> Iterator[tuple[str, str]]:
    """Each word in angle brackets that a text has without one or both: as it stands there, and as it is."""
    learned = sorted(learned_tokens(tokenizer), key=len, reverse=True)
    for word in learned:
        text = re.sub(re.escape(word), " ", text, flags=re.IGNORECASE)
    for word in learned:
        letters = word.strip("<>")
        found = re.search(rf"<?(?<!\w){re.escape(letters)}(?!\w)>?", text, re.IGNORECASE)
        if found and word == f"<{letters}>":
            yield found[0], word


def _check_fit(pipeline: Any, word: str, rows: Sequence[torch.Tensor]) -> None:
    widths = [str(encoder.get_input_embeddings().weight.shape[1]) for _, encoder in encoders(pipeline)]
    learned = [str(own.shape[1]) for own in rows]
    if widths != learned:
        raise UserError(
            f"{word} was learned on another base model (its rows are {' and '.join(learned)} wide, those of "
            f"this model {' and '.join(widths)}): choose that model in notebook 2, or run notebook 4 again."
        )
