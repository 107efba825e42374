"""Notebooks 0 to 3 in JupyterLab, as a person uses them: open, run, change a widget, look at the result."""

import json
import re

import numpy as np
from browser import change_notebook, errors, move, run_all, shoot, shoot_whole, shows, type_into, wait
from PIL import Image

OPENED = ["CONCEPT =", "chosen_concept(", "Concept.load("]  # cells that open a concept
_DROP = """async (addresses) => {
  const files = new DataTransfer();
  for (const address of addresses) {
    const data = await (await fetch(address)).blob();
    files.items.add(new File([data], address.split("/").pop()));
  }
  const area = document.querySelector(".drop-area");
  for (const kind of ["dragover", "drop"]) {
    area.dispatchEvent(new DragEvent(kind, { dataTransfer: files, bubbles: true, cancelable: true }));
  }
}"""


def test_a_concept_is_renamed_deleted_and_brought_back_by_its_buttons(lab, page, grooty, concepts):
    run_all(lab, page, "0_start_here")
    shoot_whole(page, "notebook_0")
    card = page.locator(".widget-vbox .widget-vbox", has_text="grooty").last
    card.get_by_role("button", name="Rename", exact=True).click()
    page.get_by_label("Name", exact=True).fill("two words")
    page.get_by_role("button", name="Rename it").click()
    page.get_by_text("use letters, digits, - and _ only").wait_for()
    page.get_by_label("Name", exact=True).fill("neat")
    wait(lambda: page.get_by_label("Word", exact=True).input_value() == "<neat>", "the word stays", page)
    page.get_by_role("button", name="Rename it").dblclick()
    page.get_by_text("grooty is neat now, and its word <neat>.").wait_for()
    page.wait_for_timeout(500)  # a red sentence would come late
    page.get_by_text("grooty is neat now, and its word <neat>.").wait_for()
    assert not errors(page)
    assert json.loads((concepts / "neat" / "concept.json").read_text())["placeholder_token"] == "<neat>"
    shoot(page, "start_here")
    card = page.locator(".widget-vbox .widget-vbox", has_text="neat").last
    card.get_by_role("button", name="Delete", exact=True).click()
    page.get_by_text("Delete neat, 5 pictures").last.wait_for()
    assert (concepts / "neat").is_dir()
    page.get_by_role("button", name="Delete it").click()
    wait(lambda: not (concepts / "neat").exists(), "it is still there", page)
    page.get_by_role("button", name="Bring back neat").click()
    wait(lambda: (concepts / "neat" / "concept.json").is_file(), "it does not come back", page)
    card.get_by_role("button", name="Open", exact=True).click()
    page.get_by_role("link", name="3_dataset_preview.ipynb").last.click()
    page.get_by_role("tab", name=re.compile("3_dataset_preview")).wait_for()


def test_a_picture_is_removed_by_its_button_and_dropped_files_become_pictures(lab, page, concepts):
    run_all(lab, page, "1_download_images")
    shoot_whole(page, "notebook_1")
    images = concepts / "grooty" / "images"
    assert len(list(images.iterdir())) == 5
    page.get_by_role("button", name="Remove").first.click()
    wait(lambda: len(list(images.iterdir())) == 4, "the picture is still there", page)
    wait(lambda: page.get_by_role("button", name="Remove").count() == 4, "it is still shown", page)

    kept = {path.name for path in images.iterdir()}
    noise = np.random.default_rng(0).integers(0, 256, (1500, 1500, 3), dtype=np.uint8)
    files = {"noise.png": noise, "tall.png": np.full((90, 64, 3), 200, np.uint8)}
    for name, pixels in files.items():
        Image.fromarray(pixels).save(concepts / name)
    assert (concepts / "noise.png").stat().st_size > 4 * 2**20, "it takes several messages"
    page.evaluate(_DROP, [f"{lab}/files/concepts/{name}" for name in files])
    page.get_by_text("2 kept.", exact=True).wait_for()
    new = {path.name for path in images.iterdir()} - kept
    assert len(new) == 2
    assert any((np.asarray(Image.open(images / name)).shape == noise.shape) for name in new)
    shoot(page, "dropped")


def test_a_changed_setting_is_kept_and_a_bad_one_is_marked_when_its_field_is_left(lab, page, pictures):
    settings = pictures.parent / "concept.json"
    run_all(lab, page, "2_concept_settings")
    shoot_whole(page, "notebook_2")
    assert initializer_in(settings) == "toy"
    word = page.get_by_label("initializer_token")
    word.fill("robot")
    word.press("Enter")
    page.get_by_role("button", name="Save", exact=True).click()
    wait(lambda: initializer_in(settings) == "robot", "concept.json keeps the old word", page)

    save = page.get_by_role("button", name="Save", exact=True)
    field, row = page.get_by_label("vectors"), page.locator(".widget-hbox", has=page.get_by_label("vectors"))
    field.fill("")
    field.press_sequentially("2x")
    assert row.get_by_role("alert").count() == 0, "half a value is no mistake yet"
    field.press("Tab")
    row.get_by_role("alert").filter(has_text="vectors").wait_for()
    wait(save.is_disabled, "what is marked could be saved", page)
    field.fill("2")
    field.press("Tab")
    row.get_by_role("alert").wait_for(state="detached")
    row.get_by_text("rows of numbers for the word").wait_for()
    word.fill("")
    word.press_sequentially("robotic")
    word.press("Tab")
    page.get_by_text("Words of one token near “robotic”: robot").wait_for()
    word.fill("robot")
    word.press("Tab")
    page.get_by_text("Words of one token near “robot”:").wait_for()  # the kernel has read it
    save.click()
    page.get_by_text("Saved: grooty/concept.json.", exact=True).wait_for()
    assert initializer_in(settings) == "robot"
    field.fill("2x")
    field.press("Tab")
    row.get_by_role("alert").filter(has_text="vectors").wait_for()
    shoot(page, "bad_value")


def test_a_caption_is_kept_over_a_reload_and_a_new_kernel(lab, page, work, grooty):
    images = grooty.images_folder
    second = sorted(images.glob("*.png"))[1]
    run_all(lab, page, "3_dataset_preview")
    shoot_whole(page, "notebook_3")
    move(page, "Picture")
    page.get_by_alt_text(f"{second.name} as the network sees it", exact=True).wait_for()
    move(page, "Sentence")
    page.get_by_text("a rendering of a <grooty> in a room", exact=True).last.wait_for()
    described = second.with_suffix(".txt").read_text()
    page.get_by_label("mirrored").check()
    page.get_by_alt_text(f"{second.name} as the network sees it, mirrored").wait_for()
    type_into(page, "Captions", "a photo of a toy")
    page.get_by_role("alert").filter(has_text="Put {} into “a photo of a toy”").wait_for()
    assert second.with_suffix(".txt").read_text() == described
    type_into(page, "Captions", "a photo of a toy and {}")
    page.get_by_text(f"Kept in images/{second.stem}.txt.").wait_for()
    assert second.with_suffix(".txt").read_text() == "a photo of a toy and {}\n"
    shoot(page, "captions")
    page.reload()
    change_notebook(work, "3_dataset_preview", only=[*OPENED, "DatasetPreview("])
    run_all(lab, page, "3_dataset_preview", restart=True)
    move(page, "Picture")
    page.get_by_text("a photo of a toy and <grooty>", exact=True).wait_for()
    shows(page, "Captions", "a photo of a toy and {}")


def initializer_in(settings):
    return json.loads(settings.read_text())["initializer_token"]
