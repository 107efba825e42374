"""One form and one button for notebooks 1 to 5: from pictures to a grid with the word."""

import functools
from collections.abc import Callable
from typing import Any

from ipywidgets import HTML, RadioButtons, Text, Textarea, VBox, Widget
from PIL import Image

from ..common.errors import UserError
from ..common.sheets import html_table
from ..concept.concept import Concept
from ..concept.manage import check_not_training
from ..concept.overview import Overview, chosen_concept, scores_in_words
from ..dataset.images import add_images, default_sources, image_paths, keep_drawn
from ..inference.examples import examples_for
from ..inference.grid import Sheet, xy_grid
from ..inference.pipeline import pipeline_with_word
from ..model.base_model import MINIATURE, check_base_model, default_base_model, load_tokenizers
from ..model.tokens import check_words
from ..training.describe import describe_pictures
from ..training.forecast import in_time, seconds_per_step
from ..training.train import train
from . import kit
from .live import LiveTraining

# How many steps a training takes at most.
PRESETS = {"quick look": 100, "balanced": 300, "best": 600}
# How many pictures of each wording the judge reads: they take longer than a hundred steps.
SCORED_PICTURES = {"quick look": 16, "balanced": 64, "best": 64}
_WIDE = 640  # pixels
_STOPPED = "Stopped. Begin goes on from what is saved."


class QuickStart(kit.View):
    """Teaches a word with the notebooks' own functions, in the same folder: any notebook can follow.

    After Stop, Begin goes on from what is saved. Its static HTML is a table of the presets.
    """

    def __init__(self, draw_toy: Callable[[str], list[Image.Image]], score: Callable[..., Any]):
        """Show the form.

        Args:
            draw_toy: makes pictures of a toy from its description.
            score: measures a Concept's learned word with a number of `pictures` and writes its
                `scores.json`; a `UserError` if it can't.
        """
        self._draw_toy, self._score = draw_toy, score
        self.fields = _fields()
        beside = {"width": f"min({_WIDE - kit.NAME_WIDTH - 8}px, 98%)", "margin": kit.INDENT}
        self.preset = RadioButtons(description="Training", layout=beside)
        self.message, self.live, self.grid = kit.Message(), VBox(), HTML()
        about = "Do notebooks 1 to 5", "Saves first"
        self.run = kit.StartStop(self.message, self._prepare, "Begin", *about)
        self.run.stop.on_click(lambda _: self._stop_training())
        self.sheet: Sheet | None = None
        fields = [*self.fields.values(), self.preset]
        super().__init__([*fields, self.run, self.message, self.live, self.grid])
        self.fields["model"].observe(lambda _: self._show_times(), "value")
        self._show_times()

    def _value(self, name: str) -> str:
        return self.fields[name].value.strip()

    def _show_times(self) -> None:
        """Show the time of each preset, known after the first training with that model here."""
        chosen = self.preset.value or "balanced"
        self.preset.options = [(preset_in_words(name, self._value("model")), name) for name in PRESETS]
        self.preset.value = chosen

    def _stop_training(self) -> None:
        for live in self.live.children:
            live.stop.click()

    def _go_on(self, what: str) -> None:
        if self.run.asked_to_stop.is_set():
            raise UserError(_STOPPED)
        self.message.say(what)

    def _prepare(self) -> Callable[[], str]:
        given = {name: self._value(name) for name in self.fields}
        return functools.partial(self._teach, given, self.preset.value)

    def _teach(self, given: dict[str, str], preset: str) -> str:
        kit.show_in(self.live, [])
        self.grid.value = ""
        self._go_on("Pictures are fetched and checked…")
        concept = self._with_pictures(given, PRESETS[preset])
        self._go_on("The model is asked what it sees around your thing…")
        describe_pictures(concept.name)  # a Concept would be saved, over what notebook 2 may have saved
        self.live.children = [LiveTraining(concept)]
        self._go_on("The word is learned…")  # once the view is there, Stop reaches the run
        ended = train(concept.name).ended
        self._show_times()
        if ended == "stopped":
            return _STOPPED
        self._go_on("Pictures are drawn with the word…")
        self._draw(concept)
        self._go_on("The word is scored, which takes a minute…" if concept.base_model == MINIATURE else "")
        learned = f"{concept.placeholder_token} is learned. {self._scores(concept, SCORED_PICTURES[preset])}"
        return f"{learned} You can go on with it in any notebook."

    def _with_pictures(self, given: dict[str, str], steps: int) -> Concept:
        """What notebooks 1 and 2 do: put pictures into the concept's folder, check and save its settings."""
        name, model = given["concept"], given["model"]
        check_base_model(model)
        check_not_training(Concept.make(name).folder)
        if toy := given["toy"]:
            keep_drawn(name, self._draw_toy(toy))
        else:
            addresses = given["pictures"].splitlines()
            verdicts = add_images(name, addresses or default_sources(model, name), model)
            if verdicts and all(one.outcome == "refused" for one in verdicts):
                raise UserError(f"{verdicts[0].source}: {verdicts[0].why}")
        image_paths(name)  # or a sentence, where there is none
        kind, training = given["what it is"], {"max_train_steps": steps}
        concept = Concept.open(name, base_model=model, initializer_token=kind, training=training)
        check_words(concept, load_tokenizers(model))
        concept.save()
        chosen_concept(name)
        return concept

    def _draw(self, concept: Concept) -> None:
        """Draw the grid of notebook 5 with the word and its initializer."""
        examples = examples_for(concept)
        words = ("word", [concept.initializer_token, concept.placeholder_token])
        settings = {"name": "before_and_after", "guidance": examples.guidance}
        self.sheet = xy_grid(pipeline_with_word(concept), ("prompt", examples.mixed), words, **settings)
        self.sheet.save(concept)
        self.grid.value = self.sheet.image.as_html()

    def _scores(self, concept: Concept, pictures: int) -> str:
        try:
            self._score(concept, pictures=pictures)
        except UserError:
            return ""  # no judge for this model
        return f"Scores from 0 to 1: {scores_in_words(Overview(concept.name).scores)}."

    def static_html(self) -> str:
        """A table of the presets."""
        rows = [(name, f"at most {steps} steps") for name, steps in PRESETS.items()]
        return html_table(rows, ("how long", "training"))


def preset_in_words(name: str, base_model: str) -> str:
    """A preset's steps and the time they take here, if that is known."""
    steps = PRESETS[name]
    pace = seconds_per_step(Concept.make("any", base_model=base_model))
    time = in_time(steps * pace) if pace else "time not known before the first run here"
    return f"{name}: at most {steps} steps, {time}"


def _fields() -> dict[str, Widget]:
    name, model = chosen_concept(), default_base_model()
    kind_of_thing = Concept.make(name, base_model=model).initializer_token  # `toy`, or for the person to say
    given = (
        ("concept", name, "letters, digits, - and _"),
        ("toy", "", "for the miniature: teal star toy, bunny ears, one eye, wheels"),
        ("pictures", "", "addresses, paths or folders, one a line; empty: the pictures that it has"),
        ("what it is", kind_of_thing, "a word that the model knows: cat, mug, painting"),
        ("model", model, "miniature, a hub id, a folder or a file"),
    )
    fields = {}
    for name, value, example in given:
        how = {"value": value, "placeholder": example, "continuous_update": False}
        kind = Textarea if name == "pictures" else Text
        fields[name] = kit.field(kind, name.capitalize(), example, _WIDE, **how)
    return fields
