"""Checking and keeping pictures: what ends in `images/`, what is refused, and with which sentence."""

import io
import json
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageDraw

from helpers.common import places
from helpers.common.errors import UserError
from helpers.common.files import locked
from helpers.concept.concept import Concept
from helpers.dataset import check as pictures
from helpers.dataset.fetch import Fetched
from helpers.dataset.images import (
    add_images,
    advice,
    default_sources,
    image_paths,
    load_images,
    remove_image,
    verdict_table,
)


@pytest.fixture(autouse=True)
def model(tmp_path, monkeypatch):
    """A miniature that draws 64 px; nothing but its settings is needed."""
    folder = tmp_path / "data" / "miniature"
    for part, settings in {"unet": {"sample_size": 8}, "vae": {"block_out_channels": [8, 8, 8, 8]}}.items():
        (folder / part).mkdir(parents=True)
        (folder / part / "config.json").write_text(json.dumps(settings))
    (folder / "model_index.json").write_text('{"_class_name": "StableDiffusionPipeline"}')
    monkeypatch.setattr(places, "data_folder", lambda: tmp_path / "data")


def drawing(number=0, size=(256, 200), mode="RGB"):
    """A toy at another place before another background, for each number."""
    width, height = size
    image = Image.new("RGB", (256, 200), ("skyblue", "khaki", "plum", "tan", "salmon")[number % 5])
    pen = ImageDraw.Draw(image)
    pen.ellipse((30 + 25 * number, 40, 100 + 25 * number, 180 - 20 * number), fill="saddlebrown")
    pen.rectangle((10, 10 + 30 * number, 50, 30 + 30 * number), fill="darkgreen")
    return image.resize((width, height)).convert(mode)


def encoded(image, form="PNG", **how):
    content = io.BytesIO()
    image.save(content, form, **how)
    return content.getvalue()


def png_that_claims(width, height):
    """A small picture whose header is changed: what a bomb looks like before it is unpacked."""
    content = bytearray(encoded(drawing()))
    content[16:24] = struct.pack(">II", width, height)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    return bytes(content)


def add(*contents, concept="toy"):
    return add_images(concept, [Fetched(f"{n}.jpg", data) for n, data in enumerate(contents)], "miniature")


def refusal(content):
    (verdict,) = add(content)
    assert verdict.outcome == "refused"
    assert not [*places.concepts_root().rglob("*.png")], "a refused picture must leave nothing behind"
    return verdict.why


def test_good_pictures_are_kept_under_names_that_sort(concepts):
    verdicts = add(*(encoded(drawing(number)) for number in range(5)))
    assert [verdict.outcome for verdict in verdicts] == ["kept"] * 5
    assert [path.name for path in image_paths("toy")] == [f"{n:03d}.png" for n in range(1, 6)]
    assert [image.tobytes() for image in load_images("toy")] == [drawing(n).tobytes() for n in range(5)]


def test_running_it_again_changes_nothing(concepts, tmp_path):
    for number in range(3):
        drawing(number).save(tmp_path / f"{number}.jpg")
    sources = [tmp_path / "gone.jpg", *sorted(tmp_path.glob("*.jpg"))]
    first = add_images("toy", sources, "miniature")
    before = {path: path.stat().st_mtime_ns for path in (concepts / "toy" / "images").rglob("*")}
    second = add_images("toy", sources, "miniature")
    assert [verdict.outcome for verdict in first] == ["refused"] + ["kept"] * 3
    assert [verdict.outcome for verdict in second] == ["refused"] + ["already kept"] * 3
    assert [verdict.path for verdict in second] == [verdict.path for verdict in first]
    assert {path: path.stat().st_mtime_ns for path in (concepts / "toy" / "images").rglob("*")} == before


def test_a_kept_picture_may_be_larger_than_a_download(concepts, monkeypatch):
    """A phone's 48 megapixels are a JPEG of 8 MB, and a PNG of 70."""
    add(encoded(drawing()))
    monkeypatch.setattr("helpers.dataset.fetch._MOST_BYTES", 100)
    (again,) = add_images("toy", default_sources("miniature", "toy"))
    assert again.outcome == "already kept", again.why


def test_while_another_process_adds_pictures_none_is_added(concepts):
    """Both would take the next number, and one picture would be lost."""
    add(encoded(drawing(0)))
    with locked(concepts / "toy" / ".images.lock", ""), pytest.raises(UserError, match="added by process"):
        add(encoded(drawing(1)))
    assert [verdict.path.name for verdict in add(encoded(drawing(1)))] == ["002.png"]


@pytest.mark.parametrize(
    "again",
    [
        encoded(drawing(), "JPEG", quality=40),
        encoded(drawing(size=(512, 400))),
        encoded(drawing(size=(128, 100)), "WEBP", quality=50),
        encoded(drawing(size=(64, 50)), "WEBP", quality=5),
        encoded(drawing(size=(300, 234)).quantize(64), "GIF"),
    ],
    ids=["poor jpeg", "larger", "small webp", "tiny webp", "gif"],
)
def test_the_same_picture_in_another_form_is_refused(concepts, again):
    first, second = add(encoded(drawing()), again)
    assert first.outcome == "kept"
    assert second.outcome == "refused" and "same picture as 001.png" in second.why
    (later,) = add(again)
    assert later.outcome == "refused", "also against pictures that were kept earlier"
    assert len(image_paths("toy")) == 1


def test_the_same_toy_before_another_colour_is_another_picture(concepts):
    """Grey values alone do not tell these two apart: luma of both backgrounds is the same."""
    red, purple = (drawing() for _ in range(2))
    red.paste((200, 50, 40), (0, 100, 256, 200))
    purple.paste((110, 80, 120), (0, 100, 256, 200))
    assert abs(int(red.convert("L").getpixel((5, 150))) - purple.convert("L").getpixel((5, 150))) < 10
    assert [verdict.outcome for verdict in add(encoded(red), encoded(purple))] == ["kept", "kept"]


def test_a_photo_is_turned_upright_by_its_exif(concepts):
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = drawing()
    add(encoded(upright.rotate(90, expand=True), "PNG", exif=exif))
    assert load_images("toy")[0].tobytes() == upright.tobytes()


def test_transparency_becomes_white(concepts):
    image = drawing(mode="RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 256, 100))
    add(encoded(image))
    kept = load_images("toy")[0]
    assert kept.getpixel((5, 5)) == (255, 255, 255)
    assert kept.getpixel((5, 190)) == drawing().getpixel((5, 190))


def test_a_palette_with_a_transparent_colour_becomes_white(concepts):
    image = drawing().quantize(8)
    hidden = image.getpixel((250, 5))
    add(encoded(image, "PNG", transparency=hidden))
    assert load_images("toy")[0].getpixel((250, 5)) == (255, 255, 255)


def test_cmyk_keeps_its_colours(concepts):
    add(encoded(drawing(mode="CMYK"), "JPEG", quality=95))
    difference = np.abs(np.asarray(load_images("toy")[0], int) - np.asarray(drawing(), int))
    assert difference.mean() < 5


def test_of_an_animation_the_first_frame_is_kept(concepts):
    frames = [drawing(number).quantize(64) for number in range(3)]
    (verdict,) = add(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert verdict.outcome == "kept"
    assert np.abs(np.asarray(load_images("toy")[0], int) - np.asarray(drawing(), int)).mean() < 8


def test_a_colour_profile_is_applied_before_it_goes(concepts):
    """A profile in which the first number is how blue a pixel is, and the last how red."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = profile.replace(b"rXYZ", b"tmp!").replace(b"bXYZ", b"rXYZ").replace(b"tmp!", b"bXYZ")
    red = Image.new("RGB", (64, 64), (250, 0, 0))
    add(encoded(red, icc_profile=swapped))
    r, g, b = load_images("toy")[0].getpixel((0, 0))
    assert r < 20 and g < 20 and b > 230


def test_a_broken_colour_profile_is_left_out(concepts):
    add(encoded(drawing(), icc_profile=b"no profile"))
    assert load_images("toy")[0].tobytes() == drawing().tobytes()


def test_nothing_but_pixels_is_saved(concepts):
    exif = Image.Exif()
    exif[0x010E] = "taken at home"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    add(encoded(drawing(), "JPEG", exif=exif, comment=b"taken at home", icc_profile=profile, dpi=(72, 72)))
    (path,) = image_paths("toy")
    assert b"taken at home" not in path.read_bytes()
    with Image.open(path) as kept:
        assert kept.format == "PNG" and kept.mode == "RGB" and not kept.info and not kept.getexif()


def test_a_cut_off_picture_is_refused(concepts):
    assert "cut off" in refusal(encoded(drawing(), "JPEG")[:-800])
    assert "cut off" in refusal(encoded(drawing())[:-200])


def test_a_web_page_named_like_a_picture_is_refused(concepts):
    assert "web page" in refusal(b"\n <!DOCTYPE html><html>")


def test_what_is_no_picture_is_refused(concepts):
    assert "opened as a picture" in refusal(b"%PDF-1.7 ...")
    assert "opened as a picture" in refusal(encoded(drawing(), "EPS"))
    assert "empty" in refusal(b"")
    assert "HEIC" in refusal(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")


def test_a_bomb_is_refused_before_it_is_unpacked(concepts, monkeypatch, recwarn):
    for side in (9_000, 12_000, 60_000):  # over our bound, over Pillow's warning, over its error
        assert "megapixels" in refusal(png_that_claims(side, side))
    monkeypatch.setattr(pictures, "_MOST_PIXELS", 100)
    assert "megapixels" in refusal(encoded(drawing()))
    assert not recwarn.list


def test_too_small_is_refused_and_small_is_said(concepts):
    assert "31 x 200" in refusal(encoded(drawing(size=(31, 200))))
    (verdict,) = add(encoded(drawing(size=(40, 40))))
    assert verdict.outcome == "kept" and "enlarged" in verdict.why


def test_how_large_is_asked_of_the_model(concepts):
    content = Fetched("a.png", encoded(drawing()))
    (verdict,) = add_images("toy", [content], "stable-diffusion-v1-5/stable-diffusion-v1-5")
    assert "at least 256" in verdict.why
    with pytest.raises(UserError, match="no base model"):
        add_images("toy", [content], "no such model")


def test_a_folder_that_is_no_model_is_named(concepts, tmp_path):
    with pytest.raises(UserError, match=r"model_index\.json is missing"):
        add_images("toy", [], str(tmp_path))


def test_the_concepts_own_model_counts(concepts):
    concept = Concept.make("toy", base_model="owner/model")
    (verdict,) = add_images(concept, [Fetched("a.png", encoded(drawing()))])
    assert "at least 256" in verdict.why


def test_a_kill_while_saving_leaves_no_half_picture(concepts, monkeypatch):
    def die(self, content):
        self.write_text("half")
        raise KeyboardInterrupt

    content, folder = encoded(drawing()), concepts / "toy" / "images"
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr("pathlib.Path.write_bytes", die)
        add(content)
    assert not list(folder.iterdir())
    (folder / "001.png.partial").write_bytes(b"half")  # as SIGKILL leaves it
    with pytest.raises(UserError, match="no pictures yet"):
        image_paths("toy")


def test_own_files_put_into_the_folder_count(concepts):
    folder = concepts / "toy" / "images"
    folder.mkdir(parents=True)
    drawing(1).save(folder / "by_hand.jpg")
    drawing(2).save(folder / "007.png")
    (folder / "notes.txt").write_text("no picture")
    (first, second) = add(encoded(drawing(1), "WEBP"), encoded(drawing(3)))
    assert first.outcome == "refused" and "by_hand.jpg" in first.why
    assert second.path.name == "008.png"
    assert len(load_images(concepts / "toy")) == 3


def test_a_damaged_picture_in_the_folder_is_named(concepts):
    add(encoded(drawing()))
    image_paths("toy")[0].write_bytes(b"broken")
    with pytest.raises(UserError, match=r"images/001\.png"):
        load_images("toy")


def test_a_name_that_leads_elsewhere_is_refused(concepts):
    with pytest.raises(UserError, match="letters, digits"):
        add(encoded(drawing()), concept="../elsewhere")
    assert not list(concepts.iterdir())


def test_remove_takes_one_and_no_other(concepts):
    add(*(encoded(drawing(number)) for number in range(3)))
    remove_image("toy", "002.png")
    assert [path.name for path in image_paths("toy")] == ["001.png", "003.png"]
    (concepts / "toy" / "concept.json").write_text("{}")
    with pytest.raises(UserError, match=r"001\.png, 003\.png"):
        remove_image("toy", "../concept.json")
    (verdict,) = add(encoded(drawing(4)))
    assert verdict.path.name == "004.png"


@pytest.mark.parametrize(
    ("count", "words"),
    [(0, "add some"), (2, "add more"), (3, "good"), (5, "good"), (6, "three to five"), (11, "remove")],
)
def test_advice_on_the_number(concepts, count, words):
    folder = concepts / "toy" / "images"
    folder.mkdir(parents=True)
    for number in range(count):
        drawing().save(folder / f"{number:03d}.png")
    assert words in advice("toy")


def test_the_table_shows_each_verdict_and_no_path_of_the_machine(concepts, tmp_path):
    drawing().save(tmp_path / "<b>.png")
    (tmp_path / "notes.txt").write_text("")
    table = verdict_table(add_images("toy", [tmp_path, "no/such.png"], "miniature"))
    page = table._repr_html_()
    assert "&lt;b&gt;.png" in page and "<b>" not in page
    assert page.count("<tr>") == 4
    for text in (page, repr(table)):
        assert "001.png" in text and "left alone" in text and "No file or folder" in text
        assert str(tmp_path) not in text


def test_default_sources(concepts, tmp_path):
    folder = tmp_path / "data" / "grooty"
    folder.mkdir()
    for number in range(5):
        drawing(number).save(folder / f"{number}.png")
    assert default_sources("miniature") == [str(folder / f"{number}.png") for number in range(5)]
    assert default_sources("owner/model") == ["dataset:diffusers/cat_toy_example"]
    add_images("grooty", [folder / "0.png", folder / "1.png"], "miniature")
    assert len(default_sources("miniature", "grooty")) == 5
    add_images("grooty", folder, "miniature")
    [own] = default_sources("miniature", "grooty")
    assert {verdict.outcome for verdict in add_images("grooty", [own], "miniature")} == {"already kept"}


def test_another_concept_gets_no_pictures_of_ours(concepts, tmp_path):
    assert default_sources("miniature", "robo") == [] == default_sources("owner/model", "robo")
    table = verdict_table(add_images("robo", [], "miniature"))
    assert "add pictures below" in table._repr_html_() and "<table>" not in table._repr_html_()
    drawing().save(tmp_path / "own.png")
    add_images("robo", tmp_path / "own.png", "miniature")
    [own] = default_sources("miniature", "robo")
    assert Path(own) == Concept.make("robo").images_folder


def test_shipped_pictures_that_are_gone_are_a_sentence(concepts, tmp_path):
    folder = tmp_path / "data" / "grooty"
    folder.mkdir()
    shutil.rmtree(folder)
    with pytest.raises(UserError, match="data/grooty"):
        default_sources("miniature")


# Files that open though something of them can't be used or is gone.


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_grey_in_more_than_eight_bits_is_refused(kind, concepts):
    ramp = np.linspace(0, 4095, 128)[None].repeat(100, 0).astype(kind)
    assert "save it again with 8 bits" in refusal(encoded(Image.fromarray(ramp), "TIFF"))


def test_a_black_picture_is_refused(concepts):
    assert "almost all black" in refusal(encoded(Image.new("RGB", (128, 100), (9, 9, 9))))


@pytest.mark.parametrize("form", ["PNG", "TIFF"])
def test_a_palettes_colour_profile_is_applied(form, concepts):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    swapped = profile.replace(b"rXYZ", b"tmp!").replace(b"bXYZ", b"rXYZ").replace(b"tmp!", b"bXYZ")
    add(encoded(Image.new("RGB", (64, 64), (250, 0, 0)).quantize(4), form, icc_profile=swapped))
    r, _, b = load_images("toy")[0].getpixel((0, 0))
    assert r < 20 and b > 230


def torn(quality=75, **how):
    """A JPEG of which half came, with a clean end put to it, as some servers do."""
    whole = encoded(drawing(), "JPEG", quality=quality, **how)
    return whole[: len(whole) // 2] + b"\xff\xd9"


@pytest.mark.parametrize(
    "content",
    [torn(), torn(95), torn(progressive=True), torn(restart_marker_rows=1), torn(exif=b"Exif\0\0" + torn())],
    ids=["usual", "fine", "progressive", "restart markers", "with a small picture in it"],
)
def test_a_jpeg_that_stops_halfway_is_refused(content, concepts):
    assert "cut off" in refusal(content)


FORMS = {
    "PNG": {},
    "JPEG": {},
    "WEBP": {"lossless": True},
    "webp": {},
    "AVIF": {},
    "GIF": {},
    "BMP": {},
    "TIFF": {"compression": "tiff_lzw"},
    "tiff": {},
}


@pytest.mark.parametrize("share", [0.4, 0.95])
@pytest.mark.parametrize("form", FORMS)
def test_a_picture_whose_end_never_came_is_refused(form, share, concepts, recwarn):
    """Also where its place was kept by zeros, as a download does that takes the whole length at first."""
    whole = encoded(drawing(), form, **FORMS[form])
    begun = whole[: int(len(whole) * share)]
    for torn_one in (begun, begun.ljust(len(whole), b"\0")):
        assert "cut off" in refusal(torn_one)
    (verdict,) = add(whole)
    assert verdict.outcome == "kept" and not recwarn.list


def test_a_picture_that_is_transparent_all_over_is_refused(concepts):
    image = drawing(mode="RGBA")
    image.putalpha(0)
    assert "transparent all over" in refusal(encoded(image))


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"progressive": True},
        {"restart_marker_rows": 1},
        {"exif": b"Exif\0\0" + encoded(drawing(), "JPEG")},
        {"subsampling": 0, "optimize": True},
    ],
)
def test_a_whole_jpeg_of_any_kind_is_kept(how, concepts):
    (verdict,) = add(encoded(drawing(), "JPEG", **how) + b"what a phone puts behind it")
    assert verdict.outcome == "kept"


def product(shape, colour, place=108, side=40):
    """A small thing in the middle of a white page."""
    page = Image.new("RGB", (256, 256), "white")
    box = (place, place, place + side, place + side)
    getattr(ImageDraw.Draw(page), shape)(box, fill=colour, outline="black")
    return page


def test_small_things_on_a_white_page_are_pictures_of_their_own(concepts):
    things = [
        product("ellipse", "red"),
        product("ellipse", "blue"),
        product("rectangle", "grey"),
        product("ellipse", "red", 100, 56),
        product("ellipse", "green", 118, 20),
    ]
    assert [verdict.outcome for verdict in add(*map(encoded, things))] == ["kept"] * 5


@pytest.mark.parametrize("size", [(256, 1), (40, 40)], ids=["shaded page", "busy page"])
def test_small_things_of_other_colours_on_any_page_are_pictures_of_their_own(size, concepts):
    shades = np.random.default_rng(0).integers(0, 255, (*size[::-1], 3), dtype=np.uint8)
    page = Image.fromarray(np.sort(shades, axis=1)).resize((256, 256))
    red, blue = page.copy(), page.copy()
    ImageDraw.Draw(red).ellipse((108, 108, 148, 148), fill="red")
    ImageDraw.Draw(blue).ellipse((108, 108, 148, 148), fill="blue")
    poor = encoded(blue, "JPEG", quality=10)
    assert [verdict.outcome for verdict in add(encoded(red), encoded(blue), poor)] == ["kept"] * 2 + [
        "refused"
    ]


def test_a_product_picture_in_another_size_is_the_same(concepts):
    page = product("ellipse", "red")
    add(encoded(page))
    for again in (page.resize((512, 512)), page.resize((128, 128))):
        (verdict,) = add(encoded(again))
        assert verdict.outcome == "refused" and "same picture" in verdict.why
