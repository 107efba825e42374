"""The base model's pipeline with a learned word in it, and drawing with it."""

import re
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from textwrap import shorten
from typing import Any

import torch

from ..common.errors import UserError, memory_is_full
from ..common.progress import progress_bar
from ..common.sheets import counted
from ..concept.concept import Concept, normalized, row_names, settings_in_words
from ..concept.embedding import concept_with_rows, hash_rows, read_rows
from ..model.base_model import load_pipeline
from ..model.machine import diffusers, pick_dtype, quiet_loading
from ..model.tokens import check_length, encoders, learned_tokens, put_word, set_rows, unread
from .png import DEFAULT_SCHEDULER, SCHEDULERS, Picture, PictureSettings, read_settings
from .prompt_weights import Prompt, parse_prompt, weighted_embeddings

_PIXELS_AT_ONCE = 4 * 512 * 512
_MOST_AT_ONCE = 8
_drawing = threading.RLock()
LEARNED_AGAIN = (
    "The word is not what it was when this was drawn: it has been learned again since, so it would look "
    "different."
)
Hashes = Mapping[int | None, str]  # of a word's rows, by training step; None: the result


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Serialize drawings and changes of words: a form draws in a thread. Say it where memory runs out."""
    try:
        with _drawing, torch.no_grad():
            yield
    except (RuntimeError, MemoryError) as error:
        if not memory_is_full(error):
            raise
        raise UserError(
            "The memory is full: draw smaller pictures (size), or one at a time (batch_size=1)."
        ) from None


@dataclass(frozen=True)
class LearnedWord:
    """The word in a pipeline and which rows it has; kept as `pipeline.learned_word`."""

    concept: Concept
    step: int | None
    rows_hash: str


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
        safety_checker: keep the model's own, if it has one; it makes what it refuses black.
        base_model: another model of the same family instead, such as a Dreambooth checkpoint.

    Raises:
        UserError: nothing was learned, that step was not kept, or the word belongs to another base model.
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


@_one_at_a_time()
def add_word(pipeline: Any, word: str, rows: Sequence[torch.Tensor]) -> None:
    """Put a word into a pipeline, beside those that it has.

    `rows` has a tensor of shape (vectors, width) for each text encoder, as from `embedding.read_rows`. A
    `UserError` where the pipeline has the word already, or its encoders are not as wide.
    """
    _check_fit(pipeline, word, rows)
    put_word(pipeline, word, rows)


@_one_at_a_time()
def switch_step(pipeline: Any, concept: Concept, step: int | None) -> None:
    """Set the word in a pipeline to its rows at another training step; None: the result.

    A `UserError` where that step was not kept, or its rows are not as many or as wide as the pipeline's.
    """
    rows, word = read_rows(concept, step), concept.placeholder_token
    *names, one_more = row_names(word, len(rows[0]) + 1)
    _check_fit(pipeline, word, rows)
    learned = learned_tokens(pipeline.tokenizer)
    if not {*names} <= {*learned} or one_more in learned:
        vectors = counted(len(names), "vector")
        raise UserError(f"That step has {vectors}, and {word} here another number: load the pipeline again.")
    for (tokenizer, encoder), own in zip(encoders(pipeline), rows, strict=True):
        set_rows(encoder, tokenizer.convert_tokens_to_ids(names), own)
    pipeline.learned_word = LearnedWord(concept.model_copy(deep=True), step, hash_rows(rows))


@_one_at_a_time()
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
        steps: of denoising.
        guidance: classifier-free guidance scale: how much the prompt counts; 1: no guidance.
        scheduler: one of `SCHEDULERS`.
        size: side of the pictures in pixels, a multiple of 8; None: the model's own.
        batch_size: pictures at once; None: as many as suit their size.
        bar: a tqdm bar that counts each step of each picture; None: one is shown if it takes long.
        say: gets warnings: pictures that the safety checker made black, a word without its brackets.

    Raises:
        UserError: something of this can't be used; nothing was drawn then.
    """
    common = dict(steps=steps, guidance=guidance, scheduler=scheduler, negative_prompt=negative_prompt)
    chosen = {"size": size, "batch_size": batch_size or None}
    common |= pipeline_settings(pipeline) | {key: value for key, value in chosen.items() if value is not None}
    with settings_in_words():
        wanted = [PictureSettings(prompt=text, seed=seed, **common) for text, seed in _pairs(prompts, seeds)]
    return draw(pipeline, wanted, batch_size and wanted[0].batch_size, bar, say)


def pipeline_settings(pipeline: Any) -> dict[str, Any]:
    """The settings that a pipeline gives its pictures by default."""
    size = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    word = word_of(pipeline)
    if not word:
        return {"size": size}
    base_model = Path(word.concept.base_model).name
    return {"size": size, "base_model": base_model, "training_step": word.step}


def word_of(pipeline: Any) -> LearnedWord | None:
    """The word that `pipeline_with_word` put in, if it did."""
    return getattr(pipeline, "learned_word", None)


@_one_at_a_time()
def draw(
    pipeline: Any,
    wanted: Sequence[PictureSettings],
    batch_size: int | None = None,
    bar: Any = None,
    say: Callable[[str], Any] = print,
) -> list[Picture]:
    """Draw pictures with these settings; other arguments and errors as for `generate`.

    Each picture is drawn with the word at its training step; the pipeline is left with its own step.
    """
    check(pipeline, wanted)
    before, drawn = word_of(pipeline), {}
    steps = sum(one.steps for one in wanted)
    try:
        with progress_bar("drawing, in steps", steps) if bar is None else nullcontext(bar) as moved_on:
            for places in _batches(pipeline, wanted, batch_size):
                batch = [wanted[place] for place in places]
                drawn |= zip(places, _draw_batch(pipeline, batch, moved_on), strict=True)
    finally:
        if before:
            _use_step(pipeline, before.step)
    pictures = [drawn[place] for place in range(len(wanted))]
    if sentence := _remarks(pipeline, pictures):
        say(sentence)
    return pictures


def check(pipeline: Any, wanted: Sequence[PictureSettings]) -> None:
    """Check prompts, steps and training steps against the pipeline; a `UserError` for what it can't draw."""
    for prompt in dict.fromkeys(text for one in wanted for text in (one.prompt, one.negative_prompt)):
        check_prompt(pipeline, prompt)
    for scheduler, steps in dict.fromkeys((one.scheduler, one.steps) for one in wanted):
        _check_steps(pipeline, scheduler, steps)
    word = word_of(pipeline)
    for step in {one.training_step for one in wanted} - {word and word.step}:
        if word is None:
            raise UserError("Training steps need a learned word: load the pipeline by pipeline_with_word.")
        read_rows(word.concept, step)


def remake(path: Path | str, pipeline: Any = None) -> Picture:
    """Make a saved picture again from the settings in its PNG file; on the same CPU, bit for bit.

    Args:
        pipeline: one with the word in it, where there is one already.

    Raises:
        UserError: the file holds no settings, or the word has been learned again since.
    """
    settings = read_settings(path)
    hashes = {settings.training_step: settings.rows_hash} if settings.rows_hash else {}
    pipeline = pipeline_for(path, hashes, settings.base_model, pipeline)
    present = pipeline.learned_word.concept.with_present_word
    prompts = {"prompt": present(settings.prompt), "negative_prompt": present(settings.negative_prompt)}
    wanted = [settings.model_copy(update=prompts)] * settings.batch_size
    return draw(pipeline, wanted, settings.batch_size)[settings.position]


def pipeline_for(path: Path | str, hashes: Hashes, base_model: str, pipeline: Any = None) -> Any:
    """The given pipeline, or one for the word that a file was made with, found by the hashes of its rows.

    A `UserError` where the file or the pipeline has no word, or no concept has it as it was on the model that
    the file names as `base_model`.
    """
    if not hashes:
        raise UserError(f"{Path(path).name} was made without a concept: there is no word to load.")
    if pipeline is not None and word_of(pipeline) is None:
        raise UserError("There is no word in this pipeline: pass one of `pipeline_with_word`, or none.")
    if pipeline is None:
        found = ((concept_with_rows(hash_, step, Path(path)), step) for step, hash_ in hashes.items())
        concept, step = next(filter(lambda pair: pair[0], found), (None, None))
        if concept and (why := on_another_model(base_model, concept)):
            call = f"pipeline_with_word({concept.name!r}, base_model=…)"
            raise UserError(f"{why} Load that model by {call}, and give me the pipeline.")
        pipeline = concept and pipeline_with_word(concept, step)
    if pipeline is None or not has_rows(pipeline, hashes):
        raise UserError(LEARNED_AGAIN)
    return pipeline


def on_another_model(drawn_with: str, concept: Concept) -> str:
    """A sentence if a file names another base model than the concept's, as with Dreambooth; or nothing."""
    own = Path(concept.base_model).name
    if Path(drawn_with).name in (own, "unknown"):
        return ""
    return f"This was drawn with the base model “{drawn_with}”, and would look different with “{own}”."


def has_rows(pipeline: Any, hashes: Hashes) -> bool:
    """Whether a pipeline's word has the rows that a file was made with; a `UserError` if another's has.

    Of the training step that is in use those in the pipeline count: the files may have been written since.
    """
    word, has_all = pipeline.learned_word, True
    for step, hash_ in hashes.items():
        if (step, hash_) == (word.step, word.rows_hash):
            continue
        found = concept_with_rows(hash_, step, near=word.concept.embeds_path)
        if found and found.name != word.concept.name:
            raise UserError(f"This was drawn with the concept {found.name}: open notebook 5 with it.")
        has_all = has_all and found is not None and step != word.step
    return has_all


def _batches(
    pipeline: Any, wanted: Sequence[PictureSettings], batch_size: int | None
) -> Iterator[Sequence[int]]:
    """Indices of pictures that are drawn together, since they differ in prompt and seed only.

    Plain prompts are not mixed with weighted ones, so that they take the pipeline's usual path.
    """
    alike = defaultdict(list)
    for place, one in enumerate(wanted):
        is_weighted = _parsed(pipeline, one.prompt).is_weighted
        alike[one.model_copy(update={"prompt": "", "seed": 0}), is_weighted].append(place)
    for (common, _), places in alike.items():
        most = batch_size or max(1, min(_MOST_AT_ONCE, _PIXELS_AT_ONCE // common.size**2))
        yield from (places[first : first + most] for first in range(0, len(places), most))


def _draw_batch(pipeline: Any, wanted: Sequence[PictureSettings], bar: Any) -> list[Picture]:
    common = wanted[0]  # the others have another prompt and seed
    _use_step(pipeline, common.training_step)
    pipeline.scheduler = _make_scheduler(pipeline, common.scheduler)
    # On a CPU with bfloat16 arithmetic; on a GPU the pipeline was loaded in its fast format.
    is_fast = pipeline.device.type == "cpu" and pick_dtype("auto", "cpu") == torch.bfloat16
    # `_remarks` says in which prompts the end is not read; the libraries say it of some only.
    with torch.autocast("cpu", torch.bfloat16, enabled=is_fast), quiet_loading():
        drawn = pipeline(
            **_prompts(pipeline, wanted),
            num_inference_steps=common.steps,
            guidance_scale=common.guidance,
            width=common.size,
            height=common.size,
            generator=[torch.Generator().manual_seed(one.seed) for one in wanted],
            callback_on_step_end=_step_counter(bar, len(wanted), common.steps),
        )
    word = word_of(pipeline)
    made_with = {**pipeline_settings(pipeline), "size": common.size, "batch_size": len(wanted)}
    made_with["rows_hash"] = word and word.rows_hash
    # XL's pipeline, and one without a safety checker, refuse no pictures.
    refused = getattr(drawn, "nsfw_content_detected", None) or [False] * len(wanted)
    return [
        Picture(image, one.model_copy(update=made_with | {"position": position}), is_refused)
        for position, (image, one, is_refused) in enumerate(zip(drawn.images, wanted, refused, strict=True))
    ]


def _prompts(pipeline: Any, wanted: Sequence[PictureSettings]) -> dict[str, Any]:
    """The prompts, or where there are weights what compel makes of them."""
    prompts = [_parsed(pipeline, one.prompt) for one in wanted]
    negative = _parsed(pipeline, wanted[0].negative_prompt)
    if any(prompt.is_weighted for prompt in (*prompts, negative)):
        return weighted_embeddings(pipeline, prompts, negative)
    return {
        "prompt": [prompt.text for prompt in prompts],
        "negative_prompt": [negative.text] * len(prompts),
    }


def _parsed(pipeline: Any, prompt: str) -> Prompt:
    return parse_prompt(prompt, tuple(learned_tokens(pipeline.tokenizer)))


def _step_counter(bar: Any, pictures: int, steps: int) -> Callable:
    """A callback that moves the bar at each step; PLMS takes one more than it is asked for."""

    def step_ended(_pipeline, index, _timestep, given):
        if index < steps:
            bar.update(pictures)
        return given

    return step_ended


def _remarks(pipeline: Any, pictures: Sequence[Picture]) -> str:
    """Warnings: pictures that a safety checker made black, a word without its brackets, prompts too long.

    Where the letters are a word of the model itself, such as `cat` of `<cat>`, that is what is meant.
    """
    said, known = [], pipeline.tokenizer.get_vocab()
    if refused := sum(picture.refused for picture in pictures):
        black = counted(refused, "picture")
        said.append(f"The model's safety checker made {black} black: try another seed or prompt.")
    asked = [picture.settings for picture in pictures]
    for prompt in dict.fromkeys(text for one in asked for text in (one.prompt, one.negative_prompt)):
        for found, word in _without_brackets(pipeline.tokenizer, prompt):
            if f"{found.lower()}</w>" not in known:
                said.append(f"“{found}” has no brackets, so it is not your word, which is {word}.")
        if end := unread(pipeline.tokenizer, _parsed(pipeline, prompt).text):
            end = shorten(end, 60, placeholder=" …")
            said.append(f"The prompt is too long, its end was not read: “{end}”.")
    return " ".join(dict.fromkeys(said))


def _use_step(pipeline: Any, step: int | None) -> None:
    word = word_of(pipeline)
    if word and step != word.step:
        switch_step(pipeline, word.concept, step)


def _make_scheduler(pipeline: Any, name: str) -> Any:
    kind, settings = SCHEDULERS[name]
    return getattr(diffusers(), kind).from_config(pipeline.scheduler.config, **settings)


def _check_steps(pipeline: Any, name: str, steps: int) -> None:
    """Near the largest number, some schedulers leave the model's timesteps or repeat one."""
    scheduler = _make_scheduler(pipeline, name)
    most = scheduler.config.num_train_timesteps
    if steps <= most:
        scheduler.set_timesteps(steps)
        chosen = set(scheduler.timesteps.tolist())
        if len(chosen) >= steps and max(chosen) < most:
            return
    raise UserError(f"{name} can't take {steps} steps: this model has {most} levels of noise. Try 25.")


def _pairs(prompts: str | Sequence[str], seeds: int | Sequence[int]) -> Iterable[tuple[str, int]]:
    prompts, seeds = (
        list(given) if isinstance(given, Iterable) and not isinstance(given, str) else [given]
        for given in (prompts, seeds)
    )
    count = max(len(prompts), len(seeds))
    if not {len(prompts), len(seeds)} <= {1, count} - {0}:
        raise UserError(f"There are {len(prompts)} prompts and {len(seeds)} seeds: give as many, or one.")
    return zip(prompts * (count // len(prompts)), seeds * (count // len(seeds)), strict=True)


def check_prompt(pipeline: Any, prompt: str) -> None:
    """A `UserError` where a weight or bracket can't be read, a word was not learned, or it is too long."""
    text = _parsed(pipeline, prompt).text
    for found, own in _without_brackets(pipeline.tokenizer, text):
        if "<" in found or ">" in found:
            raise UserError(f"“{found}” in the prompt lacks a bracket: write {own}.")
    learned = {normalized(token) for token in learned_tokens(pipeline.tokenizer)}
    for word in re.findall(r"<[^<>\s]+>", text):
        if normalized(word) not in learned:
            here = word_of(pipeline)
            known = f"the word here is {here.concept.placeholder_token}" if here else "no word is loaded"
            raise UserError(f"The prompt contains {word}, which was not learned: {known}.")
    for tokenizer, _ in encoders(pipeline):
        check_length(tokenizer, text)


def _without_brackets(tokenizer: Any, text: str) -> Iterator[tuple[str, str]]:
    """Each learned word that lacks one or both of its angle brackets: as written, and as it should be."""
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
