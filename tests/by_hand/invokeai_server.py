"""`python -m tests.by_hand.invokeai_server VENV`: the whole InvokeAI server draws with an exported word.

VENV is an environment of its own, of 7 GB, which InvokeAI's requirements need:

    python3 -m venv VENV
    VENV/bin/pip install invokeai==6.14.2 torch==2.7.1 torchvision==0.22.1

No GPU and no network are asked for. A Stable Diffusion 1.5 of random weights, in the real sizes, is put
into the server through its API, then the word. One prompt is drawn from one seed before the word is there,
with it, and after it was taken out again: only the second picture may be another. They are saved side by
side. It takes some minutes on one core, 10 GB of memory and 3 GB in the temporary folder.
"""

import argparse
import io
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import requests
import torch
from PIL import Image
from safetensors.torch import save_file

from helpers.common.sheets import image_grid
from helpers.export.__main__ import main as export
from helpers.export.web_ui import StartedProgram, start_web_ui, web_ui_at
from helpers.model.base_model import save_parts
from helpers.model.machine import diffusers
from tests.bench.geometry import sd15_components

PICTURE = Path(__file__).with_name("invokeai_server.webp")
PROMPT, SEED, SIZE, STEPS = "a photo of <grooty>", 1, 256, 4
GUIDANCE = 7.5
VECTORS = 2
_SETTINGS = "schema_version: 4.0.3\ndevice: cpu\nprecision: float32\n"
_LONGEST = 900  # seconds that the server has for one thing


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="tests.by_hand.invokeai_server", description=__doc__.splitlines()[0]
    )
    parser.add_argument("venv", type=Path, help="an environment with InvokeAI")
    venv = parser.parse_args().venv.resolve()
    with tempfile.TemporaryDirectory() as folder:
        model, word = make_model(Path(folder) / "random-sd15"), make_word(Path(folder))
        program = start_server(Path(folder) / "root", venv)
        try:
            pictures = draw_with_and_without(Server(address_of(program)), model, word)
        except (RuntimeError, requests.RequestException):
            print(program.output)
            raise
        finally:
            program.stop()
    return report(pictures)


def make_model(folder: Path) -> Path:
    """Stable Diffusion 1.5 with random weights, in diffusers' layout and half precision."""
    parts = sd15_components()
    pipeline = diffusers().StableDiffusionPipeline(
        vae=parts.vae,
        text_encoder=parts.text_encoders[0],
        tokenizer=parts.tokenizers[0],
        unet=parts.unet,
        scheduler=parts.scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    save_parts(pipeline.to(torch.float16), folder)
    return folder


def make_word(folder: Path) -> Path:
    """A file as diffusers writes it, with rows like those of the random model, made one for InvokeAI."""
    rows = 0.02 * torch.randn(VECTORS, 768, generator=torch.Generator().manual_seed(0))
    save_file({"<grooty>": rows}, folder / "grooty.safetensors")
    if export([str(folder / "grooty.safetensors"), "--to", "invokeai", "--out", str(folder / "exported")]):
        raise RuntimeError("The word was not exported.")
    return folder / "exported" / "grooty.safetensors"


def start_server(root: Path, venv: Path) -> StartedProgram:
    """As notebook 6 starts it: in a fresh folder, by the command in that folder's own environment."""
    root.mkdir()
    (root / "invokeai.yaml").write_text(_SETTINGS, encoding="utf-8")
    (root / ".venv").symlink_to(venv)
    return start_web_ui(web_ui_at(root))


def address_of(program: StartedProgram) -> str:
    """Where it answers, as soon as it does.

    Raises:
        RuntimeError: it ended before that.
    """
    wait_for(lambda: program.end or program.addresses)
    if program.end:
        raise RuntimeError(program.end)
    return program.addresses[0]


def wait_for(answer: Callable[[], Any]) -> Any:
    """Ask until there is an answer.

    Raises:
        RuntimeError: there was none in time.
    """
    deadline = time.monotonic() + _LONGEST
    while time.monotonic() < deadline:
        if found := answer():
            return found
        time.sleep(1)
    raise RuntimeError(f"No answer in {_LONGEST} seconds.")


class Server:
    """What of InvokeAI's API is needed here."""

    def __init__(self, address: str):
        self.address = f"{address}/api"

    def ask(self, method: str, path: str, **given: Any) -> requests.Response:
        """Raises requests.HTTPError where the server refuses."""
        answer = requests.request(method, self.address + path, timeout=60, **given)
        answer.raise_for_status()
        return answer

    def install(self, path: Path) -> dict[str, Any]:
        """Put a model, or a word, into the server's list; its entry there."""
        source = {"source": str(path), "inplace": True}
        job = self.ask("POST", "/v2/models/install", params=source, json={}).json()["id"]
        return self._finished(f"/v2/models/install/{job}")["config_out"]

    def remove(self, entry: dict[str, Any]) -> None:
        """Take one out of the list. (The call for one model answers 500 in 6.14.2, though it does it.)"""
        self.ask("POST", "/v2/models/i/bulk_delete", json={"keys": [entry["key"]]})

    def draw(self, model: dict[str, Any]) -> Image.Image:
        """Draw `PROMPT` from `SEED`."""
        batch = {"batch": {"graph": graph(model), "runs": 1}}
        (item,) = self.ask("POST", "/v1/queue/default/enqueue_batch", json=batch).json()["item_ids"]
        results = self._finished(f"/v1/queue/default/i/{item}")["session"]["results"].values()
        (name,) = [result["image"]["image_name"] for result in results if "image" in result]
        content = self.ask("GET", f"/v1/images/i/{name}/full").content
        return Image.open(io.BytesIO(content)).convert("RGB")

    def _finished(self, path: str) -> dict[str, Any]:
        """A job when it is done.

        Raises:
            RuntimeError: it failed.
        """

        def ended() -> dict[str, Any] | None:
            job = self.ask("GET", path).json()
            if job["status"] in ("error", "failed", "canceled", "cancelled"):
                raise RuntimeError({key: value for key, value in job.items() if "error" in key})
            return job if job["status"] == "completed" else None

        return wait_for(ended)


def graph(model: dict[str, Any]) -> dict[str, Any]:
    """The nodes from a prompt to a picture; none of their results is taken from an earlier picture."""
    base = {name: model[name] for name in ("key", "hash", "name", "base", "type")}
    drawing = {"steps": STEPS, "cfg_scale": GUIDANCE, "scheduler": "euler"}
    nodes = {
        "model": {"type": "main_model_loader", "model": base},
        "prompt": {"type": "compel", "prompt": PROMPT},
        "nothing": {"type": "compel", "prompt": ""},
        "noise": {"type": "noise", "seed": SEED, "width": SIZE, "height": SIZE},
        "latents": {"type": "denoise_latents", **drawing},
        "picture": {"type": "l2i"},
    }
    edges = [
        ("model.clip", "prompt.clip"),
        ("model.clip", "nothing.clip"),
        ("prompt.conditioning", "latents.positive_conditioning"),
        ("nothing.conditioning", "latents.negative_conditioning"),
        ("noise.noise", "latents.noise"),
        ("model.unet", "latents.unet"),
        ("latents.latents", "picture.latents"),
        ("model.vae", "picture.vae"),
    ]
    ends = [[dict(zip(("node_id", "field"), end.split("."), strict=True)) for end in edge] for edge in edges]
    return {
        "id": "grooty",
        "nodes": {name: {**node, "id": name, "use_cache": False} for name, node in nodes.items()},
        "edges": [{"source": source, "destination": destination} for source, destination in ends],
    }


def draw_with_and_without(server: Server, model_folder: Path, word_file: Path) -> list[Image.Image]:
    model = server.install(model_folder)
    without = server.draw(model)
    word = server.install(word_file)
    print(f"InvokeAI takes the word for “{word['name']}”, {word['type']}, {word['base']}")
    with_word = server.draw(model)
    server.remove(word)
    return [without, with_word, server.draw(model)]


def report(pictures: list[Image.Image]) -> int:
    """Say how much they differ, and save them; 1 if the word made no difference, or something else did."""
    without, with_word, after = (np.asarray(picture).astype(int) for picture in pictures)
    by_word, by_nothing = abs(with_word - without), abs(after - without)
    print(f"With the word, {(by_word > 0).mean():.1%} of the values differ, by {by_word.mean():.2f} of 255.")
    print(f"After it was taken out, {(by_nothing > 0).mean():.1%} differ from what was before it.")
    image_grid(pictures, columns=3, cell=SIZE).save(PICTURE, quality=80)
    return int(by_word.max() == 0 or by_nothing.max() > 0)


if __name__ == "__main__":
    sys.exit(main())
