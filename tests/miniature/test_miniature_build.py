"""The recipe as a whole, with few pictures: killed in the middle, it goes on; then it draws."""

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from helpers.common.places import data_folder, environment, repository_folder

SHIPPED = ("miniature", "grooty")


def _start(folder: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "helpers.miniature", "build", "--share", "0.0001", "--into", str(folder)]
    return subprocess.Popen(
        command, cwd=repository_folder(), env=environment(), stderr=subprocess.PIPE, text=True
    )


def _kill_once_there(process: subprocess.Popen, path: Path) -> None:
    while not path.exists():
        assert process.poll() is None, process.stderr.read()
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()


def _times(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The folder that a killed and a second run made; what lay there at the kill; what the second said."""
    folder = tmp_path_factory.mktemp("built")
    shipped = [_times(data_folder() / name) for name in SHIPPED]
    _kill_once_there(_start(folder), folder / "build" / "diffusion-2.pt")
    at_the_kill = _times(folder)
    step = torch.load(folder / "build" / "diffusion-2.pt", weights_only=True)["step"]
    second = _start(folder)
    said = second.communicate()[1]
    assert second.returncode == 0, said
    assert [_times(data_folder() / name) for name in SHIPPED] == shipped, "what ships was touched"
    return folder, at_the_kill, step, said


def test_a_killed_build_goes_on_where_it_was(built):
    folder, at_the_kill, step, said = built
    assert not any("miniature" in path.relative_to(folder).parts[0] for path in at_the_kill)
    done = [path for path in at_the_kill if "diffusion-2" not in path.name and "partial" not in path.name]
    assert {"captioned-024.npz", "vocab.json", "vae.pt", "diffusion-1.pt"} <= {path.name for path in done}
    assert {path: _times(folder)[path] for path in done} == {path: at_the_kill[path] for path in done}
    assert re.search(r"diffusion-2: [^\r]*? (\d+)/3 ", said).group(1) == str(step) != "0"


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
    assert "35% of them say" in card and "| 200 drawings |" in card
    assert "No person has labelled its pictures" in card
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", card):
        assert (folder / picture).stat().st_size > 1_000
    assert json.loads((folder / "report.json").read_text())["pictures_trained"] == 243


def test_the_example_pictures_are_drawn_too(built):
    for path in sorted((data_folder() / "grooty").glob("*.png")):
        assert (built[0] / "grooty" / path.name).read_bytes() == path.read_bytes()
