"""A concept put on a hub and brought back, on a hub on the loopback."""

import json
import os
import subprocess
import sys

import hub_server
import huggingface_hub
import pytest
import torch
from known_words import known_rows
from packaging.version import Version
from PIL import Image

from helpers.common import places
from helpers.concept.concept import Concept
from helpers.concept.embedding import read_rows, save_result
from helpers.export.files import model_card

# huggingface_hub reads its settings once, when it is imported: so a process of its own asks.
_CLIENT = """
import sys
from helpers.common.errors import UserError
from helpers.concept import Concept
from helpers.export.files import pull_concept, push_concept
try:
    print(eval(sys.argv[1]))
except UserError as error:
    print(error)
"""


@pytest.fixture
def hub(tmp_path):
    (tmp_path / "hub").mkdir()
    with hub_server.serve(tmp_path / "hub") as server:
        yield server


@pytest.fixture
def concept(concepts):
    """A word for `red toy` with one grid; its pictures to learn from are there, too."""
    concept = Concept.make("grooty", vectors=2)
    concept.save()
    save_result(concept, known_rows("miniature", "red toy"))
    concept.grids_folder.mkdir(parents=True)
    Image.new("RGB", (8, 8)).save(concept.grids_folder / "prompt.png")
    concept.images_folder.mkdir()
    Image.new("RGB", (8, 8)).save(concept.images_folder / "my_home.png")
    return concept


def ask(hub, expression, home, token=hub_server.TOKEN):
    clean = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    settings = {"HF_ENDPOINT": hub.address, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", _CLIENT, expression],
        env=clean | settings | ({"HF_TOKEN": token} if token else {}),
        cwd=places.repository_folder(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert hub_server.TOKEN not in done.stdout + done.stderr
    return done.stdout.strip()


CHECKS_THERE = (
    "before version 2, huggingface_hub has a card checked at its own address, whatever HF_ENDPOINT says"
)
checks_cards = pytest.mark.skipif(Version(huggingface_hub.__version__) < Version("2"), reason=CHECKS_THERE)
PUSH = f"push_concept(Concept.load('grooty'), {hub_server.OPEN!r}, licence={hub_server.LICENCE!r})"


@checks_cards
def test_a_word_goes_there_and_comes_back_the_same(hub, concept, tmp_path):
    assert ask(hub, PUSH, tmp_path / "home").endswith(hub_server.OPEN)
    card = hub.files["README.md"].decode()
    for said in ("license: cc-by-4.0", "textual_inversion", "](grids/prompt.png)", "embedding:grooty"):
        assert said in card
    assert not [name for name in hub.files if "my_home" in name]
    written = [*hub.files.values(), *(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())]
    assert not [data for data in written if hub_server.TOKEN.encode() in data], "the token was written down"

    ask(hub, f"pull_concept({hub_server.OPEN!r}, 'again')", tmp_path / "home")
    pulled = Concept.load("again")
    assert pulled.base_model == "miniature" and pulled.learned_elsewhere
    pairs = zip(read_rows(pulled), read_rows(concept), strict=True)
    assert all(torch.equal(again, own) for again, own in pairs)


@checks_cards
def test_without_a_token_and_into_a_public_repository_nothing_is_sent(hub, concept, tmp_path):
    assert "set HF_TOKEN" in ask(hub, PUSH, tmp_path / "home", token=None)
    hub.private = False
    assert "is public already: pass public=True" in ask(hub, PUSH, tmp_path / "home")
    assert not hub.files
    ask(hub, PUSH.replace("licence", "public=True, licence"), tmp_path / "home")
    assert "learned_embeds.safetensors" in hub.files


@checks_cards
def test_a_licence_that_the_hub_does_not_know_is_said_before_anything_is_made(hub, concept, tmp_path):
    said = ask(hub, PUSH.replace(hub_server.LICENCE, "CC BY 4.0"), tmp_path / "home")
    assert "licence by its short name there, such as cc-by-4.0" in said and not hub.files


def test_a_card_names_a_base_model_of_the_hub_and_none_of_this_machine(concept, families):
    on_hub, here = "someone/open-model", str(families["sd1"])
    cards = [str(model_card(concept.changed(base_model=name), [])) for name in (on_hub, here)]
    assert f"base_model: {on_hub}" in cards[0] and here not in cards[1]


def test_a_repository_without_a_word_is_named(hub, concepts, tmp_path):
    hub.files["config.json"] = json.dumps({}).encode()
    said = ask(hub, f"pull_concept({hub_server.OPEN!r}, 'again')", tmp_path / "home")
    assert "holds no learned_embeds file" in said and not (concepts / "again").exists()
