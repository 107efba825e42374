"""Notebook 0 and 1 as the first pages: a toy is put together, and one button teaches its word."""

import re

from browser import button, change_notebook, put_before, run_all, says, shoot, shoot_whole, wait

from helpers.concept.concept import Concept

SHORTER = """from helpers.widgets import quick_start

quick_start.PRESETS["quick look"] = 20
quick_start.SCORED_PICTURES["quick look"] = 2"""
LEARNED = 480  # seconds for a quick look and its scores on a machine that does other things too


def test_a_toy_is_put_together_and_its_word_learned_by_one_button(lab, page, work, concepts):
    change_notebook(
        work,
        "1_download_images",
        "toys",
        ["CONCEPT =", "chosen_concept(", "default_sources(", "ToyMaker("],
        CONCEPT="mine",
    )
    run_all(lab, page, "toys")
    page.get_by_label("Body", exact=True).select_option("star")
    page.get_by_label("Color", exact=True).select_option("teal")
    page.get_by_label("Ears", exact=True).select_option("bunny ears")
    says(page, "Never seen by the model")
    shoot(page, "toy_maker")
    button(page, "Use these").click()
    says(page, "mine has 5 drawn pictures now.")

    change_notebook(work, "0_start_here", "quick", ["CONCEPT =", "chosen_concept(", "QuickStart("])
    put_before(work, "quick", "QuickStart(", SHORTER)
    run_all(lab, page, "quick")
    wait(lambda: page.get_by_label("Concept", exact=True).input_value() == "mine", "another was opened", page)
    shoot_whole(page, "quick_start_before")
    page.get_by_label("quick look: at most").check()
    button(page, "Begin").click()
    says(page, re.compile(r"step \d+ of at most 20 · .* left"), LEARNED)
    shoot(page, "quick_start")
    page.get_by_text("<mine> is learned.").wait_for(timeout=1000 * LEARNED)
    assert Concept.load("mine").embeds_path.is_file()
    shoot_whole(page, "quick_start_after")
