"""A concept on a hub: put there with a card that says what it is, and brought from there by its id.

The files are those of the concept library there (`sd-concepts-library`), so that its readers open ours.
"""

import contextlib
import tempfile
from pathlib import Path

import huggingface_hub
from huggingface_hub import CommitOperationAdd, ModelCard, ModelCardData

from ..common.errors import UserError
from ..concept.concept import Concept
from ..concept.embedding import read_rows
from ..concept.overview import overview, scores_in_words
from ..model.base_model import resolve
from ..model.hub import clear_sentences
from .files import import_word
from .formats import PROGRAMS, diffusers_word, prompt_for

_SHEETS = 3  # pictures on the card
_WORDS_FILE = ("*learned_embeds.safetensors", "*learned_embeds.bin", "token_identifier.txt")


def push_concept(concept: Concept, repository: str, public: bool = False, licence: str | None = None) -> str:
    """Put a learned word on the hub, with the newest grids that were drawn with it.

    The pictures that it was learned from stay here. The token is the one of `HF_TOKEN`, of Colab's secrets
    or of the login that is there.

    Args:
        repository: `owner/name`; it is made where there is none.
        public: for everybody to see. Else it is private.
        licence: what you allow others to do with it, by the hub's short name, for example `cc-by-4.0`.

    Returns:
        Its address.

    Raises:
        UserError: nothing was learned yet, no token was found or it may not write there, the hub does not
            know the licence, the repository is public though that was not chosen, or the connection broke.
            Nothing is sent then.
    """
    files = _files(concept, licence)
    if not huggingface_hub.get_token():
        raise UserError("The hub needs a login: set HF_TOKEN to a token that may write.")
    with clear_sentences(repository):
        _check_card(files["README.md"].decode())
        address = huggingface_hub.create_repo(repository, private=not public, exist_ok=True)
        if not public and not huggingface_hub.model_info(repository).private:
            raise UserError(f"{repository} is public already: pass public=True, or choose another name.")
        operations = [CommitOperationAdd(path, content) for path, content in files.items()]
        huggingface_hub.HfApi().create_commit(
            repository, operations, commit_message=f"The word {concept.placeholder_token}"
        )
    return str(address)


def pull_concept(repository: str, name: str) -> Concept:
    """Make a concept of a word on the hub: ours, or any of the concept library.

    Args:
        repository: `owner/name`.
        name: of the new concept.

    Raises:
        UserError: there is none, it holds no word or one that can't be read, or there is a concept of
            that name. Nothing was made then.
    """
    with tempfile.TemporaryDirectory() as folder:
        with clear_sentences(repository):
            huggingface_hub.snapshot_download(repository, allow_patterns=_WORDS_FILE, local_dir=folder)
        found = [path for pattern in _WORDS_FILE[:2] for path in sorted(Path(folder).glob(pattern))]
        if not found:
            raise UserError(f"{repository} holds no learned_embeds file: choose the repository of a word.")
        return import_word(found[0], name)


def _check_card(text: str) -> None:
    """Ask the hub, before anything is made there, whether it takes the card. Raises UserError if not."""
    try:
        ModelCard(text).validate()
    except ValueError as error:
        raise UserError(
            "The hub does not take the card: give the licence by its short name there, such as cc-by-4.0."
        ) from error


def _files(concept: Concept, licence: str | None) -> dict[str, bytes]:
    """What is sent, by its path there."""
    read_rows(concept)  # a sentence where nothing was learned yet
    word_files = (concept.embeds_path, concept.embeds_path.with_suffix(".bin"))
    files = {path.name: path.read_bytes() for path in word_files if path.is_file()}
    newest = sorted(concept.grids_folder.glob("*.png"), key=lambda path: path.stat().st_mtime)[-_SHEETS:]
    pictures = {f"grids/{path.name}": path.read_bytes() for path in newest}
    card = model_card(concept, list(pictures), licence)
    texts = {
        "README.md": str(card),
        "token_identifier.txt": diffusers_word(concept),
        "type_of_concept.txt": concept.what_to_teach,
    }
    return files | pictures | {name: text.encode() for name, text in texts.items()}


def model_card(concept: Concept, pictures: list[str], licence: str | None = None) -> ModelCard:
    """What a word is, for its page on the hub: how to write it, how it was learned, how it looks.

    Args:
        pictures: paths in the repository.
    """
    about = ModelCardData(
        base_model=concept.base_model if _is_on_hub(concept.base_model) else None,
        license=licence,
        library_name="diffusers",
        tags=["textual_inversion", "stable-diffusion"],
    )
    prompt = f"a photo of a {concept.placeholder_token}"
    prompts = "\n".join(f"| {program} | `{prompt_for(concept, program, prompt)}` |" for program in PROGRAMS)
    settings = {"base model": Path(concept.base_model).name, **_learned(concept)}
    rows = "\n".join(f"| {name} | {value} |" for name, value in settings.items())
    shown = "\n\n".join(f"![Drawn with {concept.placeholder_token}]({path})" for path in pictures)
    return ModelCard(
        f"---\n{about.to_yaml()}\n---\n\n# {concept.placeholder_token}\n\n"
        "A word for Stable Diffusion, learned by textual inversion.\n\n"
        f"{shown}\n\n| program | prompt |\n| --- | --- |\n{prompts}\n\n| | |\n| --- | --- |\n{rows}\n"
    )


def _is_on_hub(base_model: str) -> bool:
    """A folder or file of this machine has no place in the card: the hub refuses it, and it tells of you."""
    with contextlib.suppress(UserError):
        return resolve(base_model).kind == "hub"
    return False


def _learned(concept: Concept) -> dict[str, object]:
    """How it was learned; of a word from elsewhere, whence."""
    if concept.learned_elsewhere:
        return {"learned elsewhere": concept.learned_elsewhere}
    training = concept.training
    return {
        "initializer": concept.initializer_token,
        "vectors": concept.vectors,
        "learning rate": training.learning_rate,
        "steps at most": training.max_train_steps,
        "seed": training.seed,
        "scores": scores_in_words(overview(concept.name).scores) or "not scored",
    }
