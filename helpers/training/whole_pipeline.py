"""The base model with the learned word in it, saved as a whole: `save_pipeline`."""

import shutil
from pathlib import Path

from ..base_model import load_pipeline
from ..concept import Concept
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
    pipeline.save_pretrained(partial)
    shutil.rmtree(folder, ignore_errors=True)
    return partial.rename(folder)
