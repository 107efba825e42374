import pytest
from known_words import SETTINGS
from PIL import Image, PngImagePlugin

from helpers.common.errors import UserError
from helpers.inference.png import Picture, read_settings, save_picture


@pytest.fixture
def picture():
    return Picture(Image.new("RGB", (64, 64), "teal"), SETTINGS)


def test_settings_come_back_as_they_were(picture, tmp_path):
    assert read_settings(save_picture(picture, tmp_path / "new")) == SETTINGS


def test_web_uis_find_their_own_convention(picture, tmp_path):
    text = Image.open(save_picture(picture, tmp_path)).text["parameters"]
    prompt, negative, rest = text.splitlines()
    assert prompt == SETTINGS.prompt and negative == "Negative prompt: blurry"
    pairs = dict(pair.split(": ") for pair in rest.split(", "))
    assert pairs["Seed"] == "7" and pairs["CFG scale"] == "7.5" and pairs["Size"] == "64x64"


def test_the_same_picture_keeps_one_file_and_another_gets_its_own(picture, tmp_path):
    other = Picture(picture.image, SETTINGS.model_copy(update={"guidance": 4.0}))
    paths = {save_picture(shown, tmp_path) for shown in (picture, picture, other)}
    assert len(paths) == 2 == len(list(tmp_path.iterdir()))


def test_a_prompt_of_signs_only_and_a_long_one_make_file_names(picture, tmp_path):
    for prompt in ("/../?", "a " * 500):
        settings = SETTINGS.model_copy(update={"prompt": prompt})
        path = save_picture(Picture(picture.image, settings), tmp_path)
        assert path.parent == tmp_path and len(path.name) < 100


def test_a_file_without_settings_is_named(picture, tmp_path):
    bare, text = tmp_path / "bare.png", tmp_path / "text.png"
    picture.image.save(bare)
    text.write_text("no picture")
    for path in (bare, text):
        with pytest.raises(UserError, match=path.name):
            read_settings(path)
    with pytest.raises(UserError, match="no picture at"):
        read_settings(tmp_path / "absent.png")


def test_a_picture_of_another_program_is_named(picture, tmp_path, monkeypatch):
    """Pillow refuses long compressed texts, as some programs write them, and pictures of too many pixels."""
    texts = PngImagePlugin.PngInfo()
    texts.add_text("workflow", " " * 2_000_000, zip=True)
    path = tmp_path / "foreign.png"
    picture.image.save(path, pnginfo=texts)
    with pytest.raises(UserError, match="holds no settings"):
        read_settings(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(UserError, match="holds no settings"):
        read_settings(path)


def test_a_file_of_the_version_before_is_read(picture, tmp_path):
    """It called the hash `rows`."""
    texts = PngImagePlugin.PngInfo()
    texts.add_text("settings", SETTINGS.model_dump_json().replace("rows_hash", "rows"))
    picture.image.save(tmp_path / "old.png", pnginfo=texts)
    assert read_settings(tmp_path / "old.png") == SETTINGS
