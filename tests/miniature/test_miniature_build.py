"""The recipe as a whole, with few pictures: killed twice in the middle, it goes on; then it draws."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import redirect_stderr
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from helpers.common.places import data_folder, repository_folder
from helpers.miniature import __main__ as command
from helpers.miniature import build, fit, networks, report

SHIPPED = ("miniature", "grooty")


class Killed(BaseException):
    """In place of a signal: nothing in the recipe catches it."""


def _kill_for_good(arguments: list[str], path: Path) -> None:
    """Run the command in a process of its own, and kill that as soon as a file is there."""
    process = subprocess.Popen(
        [sys.executable, "-m", "helpers.miniature", *arguments],
        cwd=repository_folder(),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with pytest.raises(ProcessLookupError):  # it leaves no process behind
        os.killpg(process.pid, 0)


def _kill_after_a_step(patch: pytest.MonkeyPatch, part: str) -> None:
    save = fit._save

    def save_and_die(checkpoint, *given):
        save(checkpoint, *given)
        if checkpoint.stem == part:
            raise Killed

    patch.setattr(fit, "_save", save_and_die)
    with pytest.raises(Killed):
        command.main()
    patch.setattr(fit, "_save", save)


def _times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}


def _step(folder: Path, part: str) -> int:
    return torch.load(folder / "build" / f"{part}.pt", weights_only=True)["step"]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder that two killed runs and a third made; what lay there at the kills; what was said."""
    folder = tmp_path_factory.mktemp("built")
    arguments = ["build", "--share", "0.0001", "--into", str(folder)]
    shipped = [_times(data_folder() / name) for name in SHIPPED]
    _kill_for_good(arguments, folder / "build" / "vae.pt")
    steps, kills, said = {"vae": _step(folder, "vae")}, [_times(folder)], io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stderr(said):
        patch.setattr(sys, "argv", ["helpers.miniature", *arguments])
        patch.setattr(report, "STEPS", 2)
        _kill_after_a_step(patch, "diffusion-2")
        steps["diffusion-2"] = _step(folder, "diffusion-2")
        kills.append(_times(folder))
        command.main()
    assert [_times(data_folder() / name) for name in SHIPPED] == shipped, "what ships was touched"
    return folder, kills, steps, said.getvalue()


def test_a_killed_build_goes_on_where_it_was(built):
    folder, kills, steps, said = built
    assert not any("miniature" in path.relative_to(folder).parts[0] for kill in kills for path in kill)
    first, second = (
        {path for path in kill if part not in path.name and "partial" not in path.name}
        for kill, part in zip(kills, steps, strict=True)
    )
    assert {path.name for path in first} == {"recipe.json", "captioned-000.npz"}
    parts = {"vae.pt", "tokenizer.json", "diffusion-1.pt"}
    names = {path.name for path in second}
    assert parts <= names and any(re.fullmatch(r"latents-\w{8}-captioned-000\.npz", name) for name in names)
    for done, kill in ((first, kills[0]), (second, kills[1])):
        assert {path: _times(folder)[path] for path in done} == {path: kill[path] for path in done}
    for part, step in steps.items():
        assert re.search(rf"{part}: [^\r]*? ([1-3])/3 ", said).group(1) == str(step)


def test_what_was_drawn_before_a_kill_is_whole(built):
    shards = list((built[0] / "build" / "pictures").glob("captioned-*.npz"))
    assert {np.load(shard)["pixels"].shape for shard in shards} == {(10, 64, 64, 3)}


def test_latents_of_another_autoencoder_are_not_taken(tmp_path):
    shard = tmp_path / "sharp-000.npz"
    np.savez(shard, pixels=np.zeros((2, 64, 64, 3), np.uint8))
    first, second, again = (build._latents([shard], _autoencoder(seed))[0] for seed in (1, 2, 1))
    assert first == again != second
    assert not np.array_equal(np.load(first)["latents"], np.load(second)["latents"])


def _autoencoder(seed: int) -> torch.nn.Module:
    torch.manual_seed(seed)
    return networks.new_autoencoder((8, 8, 8), 64)


def test_every_stage_shows_its_progress(built):
    stages = (
        "captioned drawings",
        "latents",
        "diffusion-3",
        "sharp drawings",
        "sharp",
        "round trips",
        "judge",
        "pictures",
    )
    assert [stage for stage in stages if f"{stage}: 100%" not in built[3]] == []


def test_what_was_built_opens_and_draws(built):
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(built[0] / "miniature", torch_dtype=torch.float32)
    seed = torch.Generator().manual_seed(1)
    image = pipeline("a photo of a red toy", num_inference_steps=2, generator=seed).images[0]
    assert image.size == (128, 128) and np.isfinite(np.asarray(image)).all()
    names = load_file(built[0] / "miniature" / "text_encoder" / "model.safetensors")
    assert all(name.startswith("text_model.") for name in names), "older libraries need the long names"


def test_its_card_tells_what_it_was_trained_on(built):
    folder = built[0] / "miniature"
    card = (folder / "README.md").read_text()
    training = json.loads((folder / "training.json").read_text())
    assert [part["pictures"] for part in training["parts"]] == [12, 12, 27, 60, 144, 15, 48]
    assert "UNet\nsaw 243 pictures in 4 sessions" in card and "draws pictures\nof 128 x 128" in card
    assert "| autoencoder of 64 pixels, whose latents the UNet learns | 12 |" in card
    assert "| text encoder and UNet, session 3 | 60 |" in card
    assert "| autoencoder of 128 pixels, on the latents of the other | 15 |" in card
    assert "35% of them say" in card and "| 10 drawings |" in card
    assert "No person has labelled its pictures" in card
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", card):
        assert (folder / picture).stat().st_size > 1_000
    report = json.loads((folder / "report.json").read_text())
    assert report["pictures_trained"] == 243
    for name, share in report["agreement"].items():
        assert f"\n| {name.replace('_', ' ')} | {share:.1%} |" in card, "a zero is said, too"


def test_the_example_pictures_are_drawn_too(built):
    for path in sorted((data_folder() / "grooty").glob("*.png")):
        assert (built[0] / "grooty" / path.name).read_bytes() == path.read_bytes()
