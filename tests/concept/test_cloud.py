"""A concept as a zip: what comes back, and what a bad zip can't do."""

import json
import shutil
import stat
import sys
import types
import zipfile

import pytest
from PIL import Image

from helpers.common.errors import UserError
from helpers.common.places import connection_advice, mount_drive
from helpers.concept import manage as cloud
from helpers.concept.concept import Concept
from helpers.concept.manage import pack, unpack


@pytest.fixture
def packed(concepts):
    """A zip of a trained concept; the concept itself is gone, as on another machine."""
    concept = Concept.make("toy", vectors=2)
    concept.save()
    concept.images_folder.mkdir()
    Image.new("RGB", (64, 64), "tan").save(concept.images_folder / "001.png")
    concept.embeds_path.write_bytes(b"rows")
    (concept.folder / "log.partial").write_bytes(b"half")
    path = pack("toy")
    concept.folder.rename(concepts / "away")
    return path


def snapshot(root):
    return {path.relative_to(root): path.is_file() and path.read_bytes() for path in root.rglob("*")}


def refused(path, words, root):
    before = snapshot(root)
    with pytest.raises(UserError, match=words):
        unpack(path)
    assert snapshot(root) == before, "nothing may change"


def zip_of(path, *members, **contents):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.pop("files", {}).items():
            archive.writestr(name, content)
        for info, content in members:
            archive.writestr(info, content)
    return path


def test_a_concept_comes_back_as_it_was(packed, concepts):
    concept = unpack(packed)
    assert concept == Concept.load("toy") and concept.vectors == 2
    before, after = snapshot(concepts / "away"), snapshot(concepts / "toy")
    assert after == {name: data for name, data in before.items() if name.name != "log.partial"}
    assert sorted(path.name for path in concepts.iterdir()) == ["away", "toy", "toy.zip"]


def test_pictures_alone_travel_too(concepts):
    folder = concepts / "toy" / "images"
    folder.mkdir(parents=True)
    Image.new("RGB", (64, 64)).save(folder / "001.png")
    path = pack("toy")
    (concepts / "toy").rename(concepts / "away")
    assert unpack(path).name == "toy"
    assert (folder / "001.png").is_file()


def test_nothing_to_pack(concepts):
    with pytest.raises(UserError, match="nothing in the concept"):
        pack("toy")
    assert not list(concepts.iterdir())


def test_unpacking_twice_changes_nothing(packed, concepts):
    unpack(packed)
    before = snapshot(concepts)
    unpack(packed)
    assert snapshot(concepts) == before


def test_what_is_missing_is_added(packed, concepts):
    unpack(packed)
    embeds = concepts / "toy" / "learned_embeds.safetensors"
    embeds.unlink()
    unpack(packed)
    assert embeds.read_bytes() == b"rows"


def test_a_different_concept_is_never_overwritten(packed, concepts):
    unpack(packed)
    (concepts / "toy" / "learned_embeds.safetensors").write_bytes(b"mine")
    refused(packed, "different concept “toy”", concepts)


def test_what_the_zip_lacks_makes_it_different(packed, concepts):
    unpack(packed)
    (concepts / "toy" / "images" / "002.png").write_bytes(b"mine")
    refused(packed, r"images/002\.png", concepts)


@pytest.mark.parametrize(
    "name", ["../evil.txt", "/evil.txt", "toy/../../evil.txt", "toy\\..\\..\\evil.txt", "C:/evil.txt"]
)
def test_a_zip_that_would_write_elsewhere_is_left_alone(concepts, tmp_path, name):
    bad = zip_of(tmp_path / "bad.zip", files={"toy/images/001.png": b"x", name: b"evil"})
    refused(bad, "outside its folder", tmp_path)


def test_a_link_in_a_zip_is_left_alone(concepts, tmp_path):
    link = zipfile.ZipInfo("toy/images")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    refused(zip_of(tmp_path / "bad.zip", (link, "/etc")), "outside its folder", tmp_path)


def test_a_bomb_is_refused_before_it_is_unpacked(concepts, tmp_path, monkeypatch):
    bomb = zip_of(tmp_path / "bomb.zip", files={"toy/zeros": bytes(2**24)})
    refused(bomb, "far too large", tmp_path)
    monkeypatch.setattr(cloud, "_MOST_FILES", 2)
    many = zip_of(tmp_path / "many.zip", files={f"toy/{number}": b"x" for number in range(3)})
    refused(many, "far too large", tmp_path)


def test_a_locked_zip_is_refused(concepts, tmp_path):
    path = zip_of(tmp_path / "locked.zip", files={"toy/a": b"x"})
    data = bytearray(path.read_bytes())
    data[6] |= 1
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)
    refused(path, "password", tmp_path)


def test_a_damaged_zip_is_refused(packed, concepts, tmp_path):
    content = packed.read_bytes()
    packed.write_bytes(content[: len(content) // 2])
    refused(packed, "damaged or not a zip", concepts)
    packed.write_bytes(content.replace(b"rows", b"r0ws"))
    refused(packed, "damaged or not a zip", concepts)
    with pytest.raises(UserError, match="no file “gone"):
        unpack(tmp_path / "gone.zip")


def test_a_zip_of_something_else_is_refused(concepts, tmp_path):
    one = {"toy/a": b"x", "other/b": b"y"}
    refused(zip_of(tmp_path / "two.zip", files=one), "one concept's folder", tmp_path)
    refused(zip_of(tmp_path / "flat.zip", files={"concept.json": b"{}"}), "one concept's folder", tmp_path)
    refused(zip_of(tmp_path / "odd.zip", files={"a b/c": b"x"}), "letters, digits", tmp_path)
    refused(zip_of(tmp_path / "bad.zip", files={"toy/concept.json": b"{}"}), "damaged", tmp_path)


def test_a_folder_renamed_in_its_zip_is_a_concept_of_that_name(packed, concepts, tmp_path):
    settings = (concepts / "away" / "concept.json").read_bytes()
    for content in (settings, json.dumps({"name": "toy"} | json.loads(settings)).encode()):
        assert unpack(zip_of(tmp_path / "other.zip", files={"other/concept.json": content})).name == "other"
        shutil.rmtree(concepts / "other")


@pytest.mark.parametrize(
    "name", ["12:30.png", "what?.png", 'a "b".png', "100%.png", "a\\b.png", "<toy>|*.png"]
)
def test_a_name_that_windows_forbids_travels(name, packed, concepts):
    picture = unpack(packed).images_folder / name
    Image.new("RGB", (8, 8), "red").save(picture)
    path = pack("toy")
    with zipfile.ZipFile(path) as archive:
        assert not [one for one in archive.namelist() if {*one} & {*'<>:"|?*\\'}]
    before = snapshot(concepts / "toy")
    assert unpack(path).name == "toy" and snapshot(concepts / "toy") == before, "it is the same concept"
    (concepts / "toy").rename(concepts / "packed")
    there = unpack(path).images_folder
    names = zipfile.ZipFile(path).namelist()
    assert sorted(zipfile.ZipFile(pack("toy")).namelist()) == sorted(names), "to and fro"
    assert (
        picture_bytes(there) == picture_bytes(concepts / "packed" / "images") and len([*there.iterdir()]) == 2
    )


def picture_bytes(folder):
    return sorted(path.read_bytes() for path in folder.iterdir())


@pytest.mark.parametrize("path", ["x" * 300, "~nobody-of-this-name/toy.zip", "a\0b.zip", "", "."])
def test_a_path_that_can_be_none_is_one_sentence(path, concepts):
    with pytest.raises(UserError, match="There is no file") as told:
        unpack(path)
    assert len(str(told.value)) < 200


def test_a_zip_that_a_mac_made_again_still_works(packed, concepts, tmp_path):
    with zipfile.ZipFile(packed, "a") as archive:
        archive.writestr("__MACOSX/toy/._concept.json", b"x")
        archive.writestr("toy/.DS_Store", b"x")
    assert unpack(packed).name == "toy"
    assert not list(concepts.rglob("*DS_Store")) and not (concepts / "__MACOSX").exists()


def test_drive_is_mounted_on_colab_only(monkeypatch, concepts, capsys):
    asked = []
    drive = types.ModuleType("google.colab")
    drive.drive = types.SimpleNamespace(mount=asked.append)
    monkeypatch.setitem(sys.modules, "google.colab", drive)
    mount_drive()
    assert not asked and "workstation" in capsys.readouterr().out
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release")
    mount_drive()
    assert asked == ["/content/drive"]

    def declined(_):
        raise ValueError("mount failed")

    drive.drive.mount = declined
    with pytest.raises(UserError, match="not mounted"):
        mount_drive()


def test_the_advice_knows_kaggles_switch(monkeypatch):
    assert "connection" in connection_advice()
    monkeypatch.setenv("KAGGLE_KERNEL_RUN_TYPE", "Interactive")
    assert "switch Internet on" in connection_advice()
