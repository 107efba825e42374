"""Teach the model itself a thing under a rare word: Dreambooth (Ruiz et al. 2022, arXiv 2208.12242).

The step is that of textual inversion, but it trains a LoRA in the UNet (Hu et al. 2021, arXiv 2106.09685),
made by peft. Every picture of the thing is paired with one of its class, so that the class is not forgotten.
"""

import gc
import math
import re
import shutil
from contextlib import closing, nullcontext
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from pydantic import Field
from safetensors.torch import save
from torch.utils.data import Dataset

from ..common import places
from ..common.errors import UserError
from ..common.files import made_once, read_json, write_json, write_whole
from ..common.progress import progress_bar
from ..common.sheets import packed
from ..concept.concept import Concept, Settings, saved_concepts, settings_in_words
from ..dataset.dataset import TextualInversionDataset, preprocess, token_ids, training_templates
from ..inference.examples import examples_for
from ..inference.pipeline import drawing_pipeline, generate
from ..model.base_model import IN_FULL, MINIATURE, load_pipeline, save_parts
from ..model.machine import quiet_loading
from ..model.vae import encode
from .batches import Draws, DrawsTogether, LatentCache
from .learner import Run, open_run, take_step
from .model import Model
from .processes import Interrupts, Processes, in_sentences
from .records import (
    INPUTS_FILE,
    Log,
    clear_request,
    put_aside,
    resume_from,
    run_inputs,
    save_checkpoint,
    stop_requested,
)
from .step import all_the_same, training_step
from .train import as_concept, run_processes
from .watch import STOPPED

TOO_LARGE = (
    "The loss was not a finite number at step {step}: set learning_rate to a third of what it was, and train "
    "again."
)
# Learning rates. Stable Diffusion's is that of diffusers' train_dreambooth_lora.py; the miniature's was tuned
# on toys with seeds from 100 on.
_RATE, _RATES = 1e-4, {MINIATURE: 2e-3}
_MAX_GRAD_NORM = 1.0
_AT_ONCE = 8  # pictures of the class drawn in one batch
_LAYERS = {  # of each attention, as in train_dreambooth_lora.py
    "unet": ["to_q", "to_k", "to_v", "to_out.0"],
    "text_encoder": ["q_proj", "k_proj", "v_proj", "out_proj"],
}


class DreamboothSettings(Settings):
    """Settings of Dreambooth beside the concept's own, such as the batch size, seed and number format.

    Attributes:
        steps: of the optimizer; the learning rate falls to 0 at the last one.
        learning_rate: peak rate of AdamW; None: one that suits the base model.
        rank: of the LoRA; a higher one holds more detail.
        text_encoder: whether the text encoder(s) learn, too.
        prior_pictures: pictures of the class, drawn by the unchanged base model.
        prior_weight: their weight in the loss; that of the thing's own pictures is 1.
        checkpoint_every: steps between two checkpoints.
    """

    steps: int = Field(300, ge=1)
    learning_rate: float | None = Field(None, gt=0, lt=1)
    rank: int = Field(16, ge=1)
    text_encoder: bool = False
    prior_pictures: int = Field(32, ge=0)
    prior_weight: float = Field(1.0, ge=0)
    checkpoint_every: int = Field(50, ge=1)

    def __init__(self, **given: Any):
        """Raises UserError where a setting can't be used."""
        with settings_in_words():
            super().__init__(**given)


def dreambooth_concept(name: str, word: Concept, rare_word: str, class_word: str, **training: Any) -> Concept:
    """Make and save the concept of a thing that a copy of another concept's base model will learn.

    Args:
        word: the concept whose word will be used beside it in prompts.
        rare_word, class_word: `sks` and `toy` in “a photo of a sks toy”.
        training: settings of the run; the others are those of `word`.

    Raises:
        UserError: the name is that of a concept with a word of its own, or a setting can't be used.
    """
    old = Concept.load(name) if name in saved_concepts() else None
    if name == word.name or (old and old.embeds_path.is_file()):
        raise UserError(f"“{name}” is a concept with a learned word: give the thing another name.")
    concept = Concept.open(
        name,
        base_model=word.base_model,
        placeholder_token=rare_word,
        initializer_token=class_word,
        training=word.training.model_dump() | training,
    )
    concept.save()
    return concept


def dreambooth_folder(concept: Concept) -> Path:
    """Where `train_dreambooth` writes `model/`, in diffusers' layout, and the LoRA `<name>.safetensors`."""
    return concept.folder / "dreambooth"


def _is_trained(concept: Concept) -> bool:
    return (dreambooth_folder(concept) / "model").is_dir()


@in_sentences
def train_dreambooth(
    concept: Concept | str, settings: DreamboothSettings | None = None, fresh: bool = False
) -> None:
    """Teach a copy of the base model what a concept's pictures show, and save it in `dreambooth_folder`.

    The concept's placeholder is the rare word, its initializer the class. Resuming, arguments and errors are
    as for `train`.
    """
    concept, settings = as_concept(concept), settings or DreamboothSettings()
    with run_processes([concept]) as processes:
        if processes.is_main:
            _prepare(concept, settings, fresh)
        processes.wait()
        interrupted = not _is_trained(concept) and _run(concept, settings, processes)
    gc.collect()
    if interrupted:
        raise KeyboardInterrupt


def _prepare(concept: Concept, settings: DreamboothSettings, fresh: bool) -> None:
    if concept.training.quantize != "no":
        raise UserError("Dreambooth changes the UNet, so set quantize to “no”.")
    folder = dreambooth_folder(concept)
    inputs = run_inputs(concept) | {"subject": subject(concept), "dreambooth": settings.model_dump()}
    path = folder / INPUTS_FILE
    is_other = path.is_file() and read_json(path) != inputs
    if folder.is_dir() and (fresh or is_other):
        print(f"The last run is now in {put_aside(folder).name}/.")
    clear_request(folder)  # an old one; one that is made from now on counts
    write_json(path, inputs)
    if not _is_trained(concept):
        draw_prior(concept, settings.prior_pictures)


# The prior: what the base model draws for the class, before it learns anything.


def draw_prior(concept: Concept, count: int) -> list[Path]:
    """Draw the pictures of the class that are missing in `prior/`, with the unchanged base model.

    Picture n, `000.png` and so on, is drawn for sentence n of `prior_sentences`. Pictures that another base
    model drew, or for other sentences, are deleted first.
    """
    folder, sentences = concept.folder / "prior", prior_sentences(concept, count)
    about = {"base_model": concept.base_model, "class": concept.initializer_token}
    about["templates"] = list(training_templates(concept))
    if concept.base_model == MINIATURE:
        about["weights"] = places.miniature_hash()
    if read_json(folder / INPUTS_FILE) != about:
        shutil.rmtree(folder, ignore_errors=True)
        write_json(folder / INPUTS_FILE, about)
    paths = [folder / f"{number:03}.png" for number in range(count)]
    missing = [number for number, path in enumerate(paths) if not path.is_file()]
    if missing:
        # Without a checker: its black pictures would be learned.
        pipeline = drawing_pipeline(concept.base_model, safety_checker=False)
        what = f"{len(missing)} pictures of “{concept.initializer_token}”"
        print(f"{concept.name}: the base model draws {what}.")
    for first in range(0, len(missing), _AT_ONCE):
        seeds = missing[first : first + _AT_ONCE]
        prompts, guidance = [sentences[seed] for seed in seeds], examples_for(concept).guidance
        for seed, picture in zip(seeds, generate(pipeline, prompts, seeds, guidance=guidance), strict=True):
            write_whole(paths[seed], packed(picture.image))
    return paths


def prior_sentences(concept: Concept, count: int) -> list[str]:
    """The concept's training sentences in turn, with the class for the word."""
    turn = islice(cycle(training_templates(concept)), count)
    return [template.replace("{}", concept.initializer_token) for template in turn]


class PriorPictures(Dataset):
    """Samples of the class, in turn without end: `mean` and `deviation` of the latents, and `input_ids`."""

    def __init__(self, concept: Concept, model: Model, count: int):
        images = [Image.open(path) for path in draw_prior(concept, count)]
        pixels = [preprocess(image, concept.training, model.resolution) for image in images]
        latents = encode(model.vae, torch.stack(pixels), model.device)
        input_ids = token_ids(model.components.tokenizers, prior_sentences(concept, count))
        self.samples = [
            {"mean": mean, "deviation": deviation, "input_ids": ids}
            for mean, deviation, *ids in zip(latents.mean, latents.deviation, *input_ids, strict=True)
        ]

    def __getitem__(self, number: int) -> dict[str, Any]:
        return self.samples[number % len(self.samples)]


# The run.


class LoraLearner:
    """A LoRA in each part that learns (`parts`, by their names in diffusers), and the batches it sees."""

    def __init__(self, concept: Concept, settings: DreamboothSettings, model: Model, processes: Processes):
        from diffusers.optimization import get_cosine_schedule_with_warmup

        self.concept, self.settings, training = concept, settings, concept.training
        self.parts = add_lora(model, settings, training.seed)
        rate = settings.learning_rate or _RATES.get(concept.base_model, _RATE)
        self.optimizer = torch.optim.AdamW(self.parameters(), rate, weight_decay=1e-2)
        warmup = settings.steps // 20
        self.schedule = get_cosine_schedule_with_warmup(self.optimizer, warmup, settings.steps)
        own = _own_pictures(concept, model)
        self.draws = [Draws(own, training, processes, all_the_same, model.device)]
        if settings.prior_pictures:
            prior = PriorPictures(concept, model, settings.prior_pictures)
            self.draws.append(Draws(prior, training, processes, self._prior_weights, model.device))
            self.draws[1].generator.manual_seed(training.seed + 1)
        self.step = 0

    def parameters(self) -> list[torch.nn.Parameter]:
        return [value for part in self.parts.values() for value in part.parameters() if value.requires_grad]

    def update(self, run: Run) -> float:
        """Take one step; its loss is the mean over the thing's pictures plus the prior's weighted mean."""
        batches, total = self.concept.training.gradient_accumulation_steps, 0.0
        for _ in range(batches):
            losses = training_step(run.model, DrawsTogether(self.draws))
            loss = losses.sum() / (len(losses) // len(self.draws)) / batches
            run.scaler.scale(loss).backward()
            total += loss.item()
        take_step(run, self, _MAX_GRAD_NORM)
        run.scaler.update()
        self.step += 1
        return total

    def weights(self) -> dict[str, dict[str, torch.Tensor]]:
        """The LoRA of each part, under peft's names."""
        from peft import get_peft_model_state_dict

        return {
            name: get_peft_model_state_dict(part, save_embedding_layers=False)
            for name, part in self.parts.items()
        }

    def state_dict(self) -> dict[str, Any]:
        """All that the next step depends on."""
        return {
            "weights": self.weights(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "draws": [draws.state_dict() for draws in self.draws],
            "step": self.step,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        from peft import set_peft_model_state_dict

        for name, part in self.parts.items():
            set_peft_model_state_dict(part, state["weights"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        for draws, own in zip(self.draws, state["draws"], strict=True):
            draws.load_state_dict(own)
        self.step = state["step"]

    def _prior_weights(self, timesteps: torch.Tensor) -> torch.Tensor:
        return self.settings.prior_weight * all_the_same(timesteps)


def add_lora(model: Model, settings: DreamboothSettings, seed: int) -> dict[str, Any]:
    """Add a float32 LoRA to the attentions of the parts that learn, and return these by their names."""
    from diffusers.training_utils import cast_training_params
    from peft import LoraConfig, inject_adapter_in_model

    parts = {"unet": model.unet}
    if settings.text_encoder:
        encoders = model.components.text_encoders
        parts |= dict(zip(("text_encoder", "text_encoder_2"), encoders, strict=False))
    torch.manual_seed(seed)
    for name, part in parts.items():
        layers = _LAYERS[name.removesuffix("_2")]
        # The parts' own `add_adapter` may refuse the installed peft: transformers 5.24 wants 0.22.
        config = LoraConfig(r=settings.rank, lora_alpha=settings.rank, target_modules=layers)
        inject_adapter_in_model(config, part)
    cast_training_params(list(parts.values()))
    return parts


def _own_pictures(concept: Concept, model: Model) -> TextualInversionDataset:
    """The concept's pictures as latents, with sentences that name the rare word and its class."""
    tokenizers = model.components.tokenizers
    dataset = TextualInversionDataset(concept, tokenizers, model.resolution)
    dataset.prompts = [template.replace("{}", subject(concept)) for template in dataset.templates]
    dataset.input_ids = token_ids(tokenizers, dataset.prompts)
    dataset.transform = LatentCache(dataset, model)
    return dataset


def subject(concept: Concept) -> str:
    """The thing's name in a prompt: the rare word and its class, `sks toy`."""
    return f"{concept.placeholder_token} {concept.initializer_token}"


def _run(concept: Concept, settings: DreamboothSettings, processes: Processes) -> bool:
    """Load the model, resume, train, and save the result at the last step; True if it was interrupted."""
    with open_run(concept, processes) as run:
        learner = LoraLearner(concept, settings, run.model, processes)
        resume_from(dreambooth_folder(concept), learner, run.scaler)
        interrupted = _step_to_the_end(run, learner)
        if processes.is_main and learner.step == settings.steps:
            half = run.model.dtype != torch.float32
            save_model(concept, learner.weights(), torch.float16 if half else torch.float32)
    return interrupted


def _step_to_the_end(run: Run, learner: LoraLearner) -> bool:
    """Train to the last step or until asked to stop, with checkpoints; True if it was interrupted."""
    settings, folder, asked = learner.settings, dreambooth_folder(learner.concept), False
    opened = closing(Log(folder, learner.step)) if run.processes.is_main else nullcontext()
    bar = progress_bar("Dreambooth, in steps", settings.steps)
    with Interrupts() as interrupts, opened as log, bar:
        bar.update(learner.step)
        while learner.step < settings.steps and not asked:
            loss = learner.update(run)
            if not math.isfinite(loss):
                raise UserError(TOO_LARGE.format(step=learner.step))
            bar.update()
            asked = run.processes.any(interrupts.asked or stop_requested(folder))
            if log:
                log.write(learner.step, loss=loss, learning_rate=learner.schedule.get_last_lr()[0])
                if asked or learner.step % settings.checkpoint_every == 0 or learner.step == settings.steps:
                    state = {"learner": learner.state_dict(), "scaler": run.scaler.state_dict()}
                    save_checkpoint(folder, state)
            if learner.step % 10 == 0:
                run.cores.adjust()
    if asked and run.processes.is_main:
        print(f"{learner.concept.name}: {STOPPED}")
    return interrupts.asked


# The result.


def save_model(concept: Concept, weights: dict[str, dict[str, torch.Tensor]], dtype: torch.dtype) -> None:
    """Write the LoRA as a file for Web UIs, and the base model with the LoRA merged in; both in float16.

    Args:
        weights: as from `LoraLearner.weights`.
        dtype: format in which the base model is read.
    """
    folder = dreambooth_folder(concept)
    path = write_whole(folder / f"{concept.name}.safetensors", save(as_kohya(weights)))
    pipeline = load_pipeline(concept.base_model, dtype)
    with quiet_loading():
        pipeline.load_lora_weights(path)
        pipeline.fuse_lora()
        pipeline.unload_lora_weights()
        with made_once(folder / "model") as unfinished:
            save_parts(pipeline.to(dtype=torch.float16), unfinished)


def as_kohya(weights: dict[str, dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """A LoRA in float16 under kohya's names, which Web UIs and diffusers read.

    Those of a text encoder have the `text_model.` that transformers 5 leaves out.
    """
    from diffusers.utils import convert_state_dict_to_kohya

    named = {}
    for part, own in weights.items():
        for key, value in own.items():
            full = re.sub(*IN_FULL["text_encoder"], key) if part.startswith("text_encoder") else key
            named[f"{part}.{full}"] = value
    first = "lora_te1_" if "text_encoder_2" in weights else "lora_te_"  # the converter has XL's alone
    return {
        key.replace("lora_te1_", first): value.half().contiguous()
        for key, value in convert_state_dict_to_kohya(named).items()
    }
