"""`python -m tests.export.table`: which program reads our files equal to the bit, and by whose code.

The table in the README. Needs what `programs.txt` lists.
"""

import itertools
import os
import tempfile
from pathlib import Path
from types import SimpleNamespace

import torch
from safetensors.torch import save_file

from helpers.export.files import KINDS, convert
from helpers.export.formats import PROGRAMS, SUFFIXES, read_back

FAMILIES = {"1.x": {"clip_l": 768}, "2.x": {"clip_h": 1024}, "XL": {"clip_l": 768, "clip_g": 1280}}
VECTORS = (1, 2, 8)


def main() -> None:
    print("| program | kinds | equal, by its rule | equal, by its own code |\n| --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["INVOKEAI_ROOT"] = folder
        for program in PROGRAMS:
            kinds = [kind for kind in KINDS if f".{kind}" in SUFFIXES[program]]
            by_rule, by_code = _counts(program, kinds, Path(folder))
            print(f"| {program} | {', '.join(kinds)} | {by_rule} | {by_code} |")


def _counts(program: str, kinds: list[str], folder: Path) -> tuple[str, str]:
    read = {"invokeai": _invokeai, "diffusers": _diffusers}.get(program)
    by_rule, by_code = [], []
    for kind, family, vectors in itertools.product(kinds, FAMILIES, VECTORS):
        rows = {name: torch.randn(vectors, width) for name, width in FAMILIES[family].items()}
        source = folder / "word.safetensors"
        save_file(rows, source)
        path, _ = convert(source, program, folder / program, kind=kind, replace=True)
        wanted = list(rows.values())
        by_rule.append(_equal(read_back(path, program, list(FAMILIES[family].values())).rows, wanted))
        if read and not (program == "diffusers" and family == "XL"):  # there a person hands over each tensor
            by_code.append(_equal(read(path), wanted))
    return _share(by_rule), _share(by_code) if by_code else "-"


def _share(results: list[bool]) -> str:
    return f"{sum(results)} of {len(results)}"


def _equal(read: list[torch.Tensor], wanted: list[torch.Tensor]) -> bool:
    return len(read) == len(wanted) and all(map(torch.equal, read, wanted))


def _invokeai(path: Path) -> list[torch.Tensor]:
    from invokeai.backend.textual_inversion import TextualInversionModelRaw

    word = TextualInversionModelRaw.from_checkpoint(path)
    return [word.embedding] if word.embedding_2 is None else [word.embedding_2, word.embedding]


def _diffusers(path: Path) -> list[torch.Tensor]:
    from diffusers.loaders.textual_inversion import (
        TextualInversionLoaderMixin,
        load_textual_inversion_state_dicts,
    )

    untaught = SimpleNamespace(get_vocab=dict)  # a tokenizer that knows no word yet
    states = load_textual_inversion_state_dicts([str(path)])
    _, rows = TextualInversionLoaderMixin._retrieve_tokens_and_embeddings([None], states, untaught)
    return [torch.atleast_2d(rows[0])]


if __name__ == "__main__":
    main()
