"""The base model with the learned word in it, saved as a whole: `save_pipeline`."""

import shutil
from pathlib import Path
from typing import Any

from ..base_model import load_pipeline
from ..concept import Concept
from ..progress import LARGE, progress
from .result import load_rows


def save_pipeline(concept: Concept) -> Path:
    """Write `pipeline/` into the concept's folder, as `StableDiffusionPipeline.from_pretrained` reads it.

    It is as large as the base model; for drawing pictures the small file is enough.
    """
    pipeline = load_pipeline(concept.base_model)
    for suffix, rows in zip(("", "_2"), load_rows(concept.embeds_path), strict=False):
        pipeline.load_textual_inversion(
            rows,
            token=concept.placeholder_token,
            text_encoder=getattr(pipeline, f"text_encoder{suffix}"),
            tokenizer=getattr(pipeline, f"tokenizer{suffix}"),
        )
    folder = concept.folder / "pipeline"
    partial = folder.with_name("pipeline.partial")
    shutil.rmtree(partial, ignore_errors=True)
    _save_parts(pipeline, partial)
    shutil.rmtree(folder, ignore_errors=True)
    return partial.rename(folder)


def _save_parts(pipeline: Any, folder: Path) -> None:
    """What `pipeline.save_pretrained` does, with a bar over the parts."""
    parts = {name: part for name, part in pipeline.components.items() if part is not None}
    is_large = pipeline.unet.get_memory_footprint() > LARGE
    for name in progress(parts, "saving pipeline/", at_once=is_large):
        parts[name].save_pretrained(folder / name)
    pipeline.save_config(folder)
