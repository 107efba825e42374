"""The gallery as a person uses it: buttons are clicked, sliders moved, and the files looked at."""

import base64
import datetime
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import ipywidgets
import numpy as np
import pytest
from ipywidgets.widgets.widget import _instances
from PIL import Image, ImageEnhance

from helpers.common.errors import UserError
from helpers.dataset.fetch import Fetched
from helpers.dataset.images import (
    add_images,
    crop_image,
    image_paths,
    load_image,
    load_images,
    remove_image,
    rotate_image,
    square_box,
)
from helpers.widgets.gallery import DropArea, Gallery

MODEL = "owner/model"  # draws 512 px, so that 256 are asked for; nothing of it is fetched


def photo(number=0, size=(400, 300)):
    """Soft patches of colour: every turn and every cut looks different."""
    colours = np.random.default_rng(number).integers(0, 256, (5, 5, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC)


def encoded(image, form="PNG", **how):
    content = io.BytesIO()
    image.save(content, form, **how)
    return content.getvalue()


def add(*images, concept="toy"):
    return add_images(concept, [Fetched(f"{n}.png", encoded(one)) for n, one in enumerate(images)], MODEL)


def kept_as(name="001.png"):
    return np.asarray(load_image("toy", name))


def everything_in(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from everything_in(child)


def control(gallery, description, about=""):
    """The one control on the page with this text on it and `about` in its tooltip."""
    (found,) = (
        widget
        for widget in everything_in(gallery)
        if getattr(widget, "description", None) == description and about in (widget.tooltip or "")
    )
    return found


def has(gallery, description):
    return any(getattr(widget, "description", None) == description for widget in everything_in(gallery))


def text_of(gallery):
    shown = (widget.value for widget in everything_in(gallery) if isinstance(widget, ipywidgets.HTML))
    return re.sub(r"<[^>]*>", " ", " ".join(shown))


class _Pictures(HTMLParser):
    def __init__(self, page):
        super().__init__()
        self.found = {}
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag == "img":
            data = base64.b64decode(values["src"].removeprefix("data:image/png;base64,"))
            assert values["alt"] not in self.found, "two pictures with one text tell a screen reader nothing"
            self.found[values["alt"]] = Image.open(io.BytesIO(data))


def thumbnails(gallery):
    """The pictures on the page by their alt text."""
    pages = (widget.value for widget in everything_in(gallery) if isinstance(widget, ipywidgets.HTML))
    return _Pictures("".join(pages)).found


def same(shown, kept):
    """Whether a thumbnail is that picture, made smaller."""
    small = Image.fromarray(kept).resize(shown.size, Image.Resampling.BICUBIC)
    return np.abs(np.asarray(shown.convert("RGB"), int) - np.asarray(small, int)).mean() < 3


def upload(gallery, *files):
    now = datetime.datetime.now()
    control(gallery, "Add pictures").value = [
        {"name": name, "type": "", "size": len(data), "content": memoryview(data), "last_modified": now}
        for name, data in files
    ]


# Without widgets


def test_a_turn_is_clockwise_and_four_of_them_change_nothing(concepts):
    add(photo())
    before = kept_as()
    rotate_image("toy", "001.png")
    assert kept_as().shape == (400, 300, 3)
    assert (kept_as()[0, -1] == before[0, 0]).all(), "what was at the top left is at the top right"
    for _ in range(3):
        rotate_image("toy", "001.png")
    assert (kept_as() == before).all()


@pytest.mark.parametrize("size", [(400, 300), (300, 401)])
@pytest.mark.parametrize("place", [0, 0.25, 1])
def test_a_crop_keeps_the_shorter_side_and_goes_where_it_is_told(concepts, size, place):
    add(photo(size=size))
    before = kept_as()
    crop_image("toy", "001.png", place)
    start = round(place * (max(size) - 300))
    axis = 1 if size[0] > size[1] else 0
    assert (kept_as() == before.take(range(start, start + 300), axis)).all()


def test_a_square_picture_is_not_written_again(concepts):
    add(photo(size=(300, 300)))
    (path,) = image_paths("toy")
    before = path.stat()
    crop_image("toy", "001.png", 0.9)
    assert path.stat() == before


def test_the_other_pictures_and_the_names_stay(concepts):
    add(photo(0), photo(1), photo(2))
    contents = {path.name: path.read_bytes() for path in image_paths("toy")}
    rotate_image("toy", "002.png")
    crop_image("toy", "002.png")
    after = {path.name: path.read_bytes() for path in image_paths("toy")}
    assert [*after] == [*contents]
    assert [name for name in after if after[name] != contents[name]] == ["002.png"]


@pytest.mark.parametrize("change", [rotate_image, crop_image])
def test_a_name_that_is_not_there_is_refused(concepts, change):
    add(photo())
    (concepts / "toy" / "concept.json").write_text("{}")
    for name in ("004.png", "../concept.json"):
        with pytest.raises(UserError, match=r"choose one of 001\.png"):
            change("toy", name)
    assert (concepts / "toy" / "concept.json").read_text() == "{}"


@pytest.mark.parametrize("place", [-0.1, 1.1, float("nan")])
def test_a_place_outside_the_picture_is_refused(concepts, place):
    add(photo())
    with pytest.raises(UserError, match="between 0 and 1"):
        crop_image("toy", "001.png", place)
    assert kept_as().shape == (300, 400, 3)


def test_an_own_photo_stays_whole_and_loses_its_metadata(concepts):
    """A JPEG put into the folder by hand: turned without another loss, and without where it was taken."""
    folder = concepts / "toy" / "images"
    folder.mkdir(parents=True)
    exif = Image.Exif()
    exif[0x010E], exif[0x0112] = "taken at home", 6
    photo().save(folder / "mine.jpg", exif=exif)
    upright = np.asarray(load_images("toy")[0])
    rotate_image("toy", "mine.jpg")
    assert [path.name for path in folder.iterdir()] == ["mine.jpg"]
    assert (kept_as("mine.jpg") == np.rot90(upright, -1)).all(), "turned from how it was seen"
    assert b"taken at home" not in (folder / "mine.jpg").read_bytes()


@pytest.mark.parametrize("change", [rotate_image, crop_image])
def test_a_kill_half_way_leaves_the_old_picture(concepts, monkeypatch, change):
    write_all = Path.write_bytes

    def die(path, content):
        write_all(path, content[: len(content) // 2])
        raise KeyboardInterrupt

    add(photo())
    before = kept_as()
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Path, "write_bytes", die)
        change("toy", "001.png")
    assert (kept_as() == before).all() and len(image_paths("toy")) == 1


# With the gallery


def test_an_upload_has_a_verdict_under_each_picture(concepts):
    gallery = Gallery("toy", MODEL)
    assert "add some above" in text_of(gallery)
    small = photo(2, (100, 80))
    upload(
        gallery,
        ("a.png", encoded(photo(0))),
        ("again.webp", encoded(photo(0), "WEBP")),
        ("b.png", encoded(photo(1))),
        ("small.png", encoded(small)),
        ("<i>page.png", b"<html>"),
    )
    assert [path.name for path in image_paths("toy")] == ["001.png", "002.png"]
    said = text_of(gallery)
    assert "2 kept, 3 refused." in said
    assert "a.png: kept as 001.png." in said and "b.png: kept as 002.png." in said
    assert "small.png: refused. It has 100 x 80 pixels" in said
    assert "again.webp: refused. It is the same picture as 001.png" in said
    assert "&lt;i&gt;page.png: refused. This is a web page" in said
    assert same(thumbnails(gallery)["small.png, which was not added"], np.asarray(small))
    assert control(gallery, "Add pictures").value == (), "the same file may be chosen again"


def test_what_was_taken_for_the_same_picture_can_be_kept_all_the_same(concepts):
    """Two small things on a white page look alike to the check."""
    gallery = Gallery("toy", MODEL)
    upload(gallery, ("a.png", encoded(photo(0))))
    brighter = ImageEnhance.Brightness(photo(0)).enhance(1.02)
    upload(gallery, ("alike.png", encoded(brighter)), ("tiny.png", encoded(photo(1, (20, 20)))))
    assert "alike.png: refused. It is the same picture as 001.png" in text_of(gallery)
    control(gallery, "Keep it", "alike.png beside 001.png").click()  # the tiny one has no such button
    assert (kept_as("002.png") == np.asarray(brighter)).all()
    said = text_of(gallery)
    assert "alike.png: kept as 002.png." in said and "alike.png: refused" not in said
    assert "tiny.png: refused" in said and not has(gallery, "Keep it")
    upload(gallery, ("alike.png", encoded(brighter)))
    assert "alike.png: already kept as 002.png." in text_of(gallery) and len(image_paths("toy")) == 2


def test_a_verdict_is_of_the_last_upload_only(concepts):
    gallery = Gallery("toy", MODEL)
    upload(gallery, ("a.png", encoded(photo(0))), ("bad.png", b""))
    upload(gallery, ("b.png", encoded(photo(1))), ("a.png", encoded(photo(0))))
    said = text_of(gallery)
    assert "a.png: already kept as 001.png." in said and "a.png: kept" not in said
    assert "bad.png" not in said and "b.png: kept as 002.png." in said


def test_dropped_files_come_in_pieces_and_are_judged_as_uploads_are(concepts):
    gallery = Gallery("toy", MODEL)
    (area,) = (widget for widget in everything_in(gallery) if isinstance(widget, DropArea))
    for number in (0, 1):
        data = encoded(photo(number))
        area._handle_custom_msg({"kind": "file", "name": f"{number}.png"}, [])
        for start in range(0, len(data), 1000):
            area._handle_custom_msg({"kind": "piece"}, [memoryview(data[start : start + 1000])])
    area._handle_custom_msg({"kind": "file", "name": "a folder"}, [])
    assert not list(concepts.rglob("*.png")), "all of a drop, or nothing yet"
    area._handle_custom_msg({"kind": "end"}, [])
    assert (kept_as("001.png") == np.asarray(photo(0))).all() and len(image_paths("toy")) == 2
    assert "2 kept, 1 refused." in text_of(gallery) and "a folder: refused. The file is empty." in text_of(
        gallery
    )


def test_pasted_addresses_are_fetched(concepts, tmp_path):
    photo(0).save(tmp_path / "one here.png")
    (tmp_path / "folder").mkdir()
    photo(1).save(tmp_path / "folder" / "two.png")
    gallery = Gallery("toy", MODEL)
    addresses = control(gallery, "Addresses")
    addresses.value = f"{tmp_path}/one here.png\n\n  {tmp_path}/folder \nno/such.png\n"
    control(gallery, "Fetch").click()
    assert [path.name for path in image_paths("toy")] == ["001.png", "002.png"]
    assert "2 kept, 1 refused" in text_of(gallery) and "no/such.png: refused. No file" in text_of(gallery)
    assert "no/such.png" in addresses.value, "what was refused can be corrected"
    addresses.value = str(tmp_path / "folder")
    control(gallery, "Fetch").click()
    assert "two.png: already kept as 002.png." in text_of(gallery)
    assert addresses.value == ""
    assert not control(gallery, "Fetch").disabled


def test_a_double_click_is_one_click(concepts, tmp_path, double_click):
    photo(0).save(tmp_path / "a.png")
    gallery = Gallery("toy", MODEL)
    control(gallery, "Addresses").value = str(tmp_path / "a.png")
    double_click(control(gallery, "Fetch"))
    assert "1 kept." in text_of(gallery) and "Paste addresses" not in text_of(gallery)
    upload(gallery, ("alike.png", encoded(ImageEnhance.Brightness(photo(0)).enhance(1.02))))
    double_click(control(gallery, "Keep it"))
    assert "1 kept." in text_of(gallery) and len(image_paths("toy")) == 2
    kept = len(_instances)
    double_click(control(gallery, "Remove", "001.png"))
    assert "no picture" not in text_of(gallery) and len(image_paths("toy")) == 1
    assert len(_instances) < kept, "ipywidgets still keeps the picture that is gone"
    control(gallery, "Fetch").click()
    assert "Paste addresses" in text_of(gallery)


def test_fetch_with_nothing_pasted_says_what_to_do(concepts):
    gallery = Gallery("toy", MODEL)
    control(gallery, "Addresses").value = " \n"
    control(gallery, "Fetch").click()
    assert "Paste addresses" in text_of(gallery)


def test_while_it_fetches_the_button_waits(concepts, monkeypatch):
    gallery = Gallery("toy", MODEL)
    seen = []

    def fetch_all(addresses):
        seen.append((control(gallery, "Fetch").disabled, "Fetching" in text_of(gallery)))
        raise UserError("The cable is out.")

    monkeypatch.setattr("helpers.widgets.gallery.fetch_all", fetch_all)
    control(gallery, "Addresses").value = "https://somewhere/a.png"
    control(gallery, "Fetch").click()
    assert seen == [(True, True)]
    assert "The cable is out." in text_of(gallery) and not control(gallery, "Fetch").disabled


def test_remove_takes_one_and_no_other(concepts):
    add(photo(0), photo(1))
    gallery = Gallery("toy", MODEL)
    control(gallery, "Remove", "001.png").click()
    assert [path.name for path in image_paths("toy")] == ["002.png"]
    assert [*thumbnails(gallery)] == ["Picture 002.png, 400 by 300 pixels"]


def test_a_double_click_does_not_reach_the_picture_that_moves_below_the_mouse(concepts, monkeypatch):
    add(photo(0), photo(1), photo(2))
    gallery = Gallery("toy", MODEL)
    monkeypatch.setattr("helpers.widgets.gallery._DOUBLE_CLICK", 60)  # on a busy machine
    control(gallery, "Remove", "001.png").click()
    control(gallery, "Remove", "002.png").click()
    assert [path.name for path in image_paths("toy")] == ["002.png", "003.png"]
    monkeypatch.setattr("helpers.widgets.gallery._DOUBLE_CLICK", 0)
    control(gallery, "Remove", "002.png").click()
    assert [path.name for path in image_paths("toy")] == ["003.png"]


def test_rotate_turns_the_file_and_what_is_seen(concepts):
    add(photo(0), photo(1))
    before = kept_as("002.png")
    gallery = Gallery("toy", MODEL)
    button = control(gallery, "Rotate", "002.png")
    for turns in range(1, 5):
        button.click()
        assert (kept_as("002.png") == np.rot90(before, -turns)).all()
        height, width, _ = kept_as("002.png").shape
        assert same(thumbnails(gallery)[f"Picture 002.png, {width} by {height} pixels"], kept_as("002.png"))
        assert control(gallery, "Rotate", "002.png") is button, "the keyboard's focus stays on it"


@pytest.mark.parametrize("size", [(400, 300), (300, 400)])
def test_the_crop_is_seen_before_it_is_made(concepts, size):
    add(photo(size=size))
    before = kept_as()
    gallery = Gallery("toy", MODEL)
    slider = control(gallery, "Left to right" if size[0] > size[1] else "Top to bottom")
    slider.value = 0.8
    (preview,) = thumbnails(gallery).values()
    assert (kept_as() == before).all(), "a preview writes nothing"
    clear = np.asarray(preview.getchannel("A")) == 255
    rows, columns = np.flatnonzero(clear.any(1)), np.flatnonzero(clear.any(0))
    cut = preview.crop((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
    control(gallery, "Crop square").click()
    assert kept_as().shape == (300, 300, 3)
    assert cut.width == cut.height and same(cut, kept_as()), "what was seen is what is saved"
    assert same(thumbnails(gallery)["Picture 001.png, 300 by 300 pixels"], kept_as())


def test_moving_the_slider_moves_the_preview(concepts):
    add(photo())
    gallery = Gallery("toy", MODEL)
    (whole,) = thumbnails(gallery).values()
    assert same(whole, kept_as()) and not whole.has_transparency_data
    opaque = {}
    for place in (0.0, 1.0):
        control(gallery, "Left to right").value = place
        (preview,) = thumbnails(gallery).values()
        opaque[place] = [preview.getpixel((x, 0))[3] == 255 for x in (0, preview.width - 1)]
    assert opaque == {0.0: [True, False], 1.0: [False, True]}


def test_a_square_picture_has_no_crop(concepts):
    add(photo(0, (300, 300)), photo(1))
    gallery = Gallery("toy", MODEL)
    control(gallery, "Crop square", "002.png").click()
    assert not has(gallery, "Crop square") and not has(gallery, "Left to right")
    assert has(gallery, "Rotate") and has(gallery, "Remove")


def test_a_turn_gives_a_fresh_slider_along_the_other_side(concepts):
    add(photo())
    gallery = Gallery("toy", MODEL)
    control(gallery, "Left to right").value = 0.9
    control(gallery, "Rotate").click()
    assert control(gallery, "Top to bottom").value == 0.5
    (shown,) = thumbnails(gallery).values()
    assert same(shown, kept_as()) and not shown.has_transparency_data


def test_the_gallery_owns_nothing(concepts):
    add(photo(0), photo(1))
    gallery = Gallery("toy", MODEL)
    stale = control(gallery, "Remove", "001.png")
    remove_image("toy", "001.png")
    rotate_image("toy", "002.png")
    stale.click()
    assert "no picture “001.png”" in text_of(gallery)
    assert [*thumbnails(gallery)] == ["Picture 002.png, 300 by 400 pixels"]


def test_a_damaged_picture_is_named_and_can_be_removed(concepts):
    add(photo(0), photo(1))
    image_paths("toy")[0].write_bytes(b"broken")
    gallery = Gallery("toy", MODEL)
    assert "be opened as a picture" in text_of(gallery)
    assert control(gallery, "Rotate", "001.png").disabled
    assert "One picture: 002.png" in gallery._repr_mimebundle_()["text/html"]
    control(gallery, "Remove", "001.png").click()
    assert [path.name for path in image_paths("toy")] == ["002.png"]


def test_every_control_has_a_name_that_tells_it_from_the_others(concepts):
    add(photo(0), photo(1))
    gallery = Gallery("toy", MODEL)
    kinds = (ipywidgets.Button, ipywidgets.FileUpload, ipywidgets.FloatSlider, ipywidgets.Textarea)
    controls = [widget for widget in everything_in(gallery) if isinstance(widget, kinds)]
    assert len(controls) == 3 + 2 * 4
    assert all(one.description and one.tooltip for one in controls)
    assert len({one.tooltip for one in controls}) == len(controls)


def test_a_long_thin_picture_has_a_thumbnail(concepts):
    folder = concepts / "toy" / "images"
    folder.mkdir(parents=True)
    photo(size=(3000, 2)).save(folder / "line.png")
    gallery = Gallery("toy", MODEL)
    control(gallery, "Left to right").value = 0.7
    assert len(thumbnails(gallery)) == 1
    control(gallery, "Crop square").click()
    assert kept_as("line.png").shape == (2, 2, 3)


def test_where_no_widget_lives_the_gallery_is_a_picture(concepts):
    gallery = Gallery("toy", MODEL)
    assert "text/html" not in gallery._repr_mimebundle_()
    add(photo(0), photo(1))
    still = gallery._repr_mimebundle_()["text/html"]
    assert "2 pictures, 2 in a row: 001.png, 002.png." in still, "also what came after it was made"


def test_the_square_is_the_largest_one():
    assert square_box((400, 300), 0.5) == (50, 0, 350, 300)
    assert square_box((300, 301), 1) == (0, 1, 300, 301)
