"""What the network will see, with sliders over pictures and sentences, and a field for captions."""

import contextlib
import html
from pathlib import Path

from ipywidgets import HTML, Checkbox, IntSlider, SelectionSlider, Textarea

from ..common.errors import UserError
from ..common.sheets import image_grid
from ..concept.concept import Concept
from ..dataset.dataset import Example, Preview, flips
from ..dataset.images import caption_path, parse_captions, write_captions
from ..dataset.variety import warnings_of
from ..model.tokens import coloured_pieces
from . import kit

_SIDE = 224  # pixels on the page
_WIDE = 560
_CAPTIONS = (
    "Sentences for this picture alone, one a line, with {} for your word. Saved when you leave the field."
)


class DatasetPreview(kit.View):
    """Any picture of a concept with any of its training sentences, mirrored or not.

    Captions are saved in `images/` when their field is left; if one can't be used, the field is marked and
    the file stays as it was. Its static HTML is one example of each picture.

    Raises:
        UserError: the concept has no pictures, one is damaged, or its base model can't be read.
    """

    def __init__(self, concept: Concept):
        self._preview, self._concept, self._filling = Preview(concept), concept, False
        names = self._preview.names
        self.picture = kit.field(SelectionSlider, "Picture", "Which picture", _WIDE, options=names)
        about = "Which of the sentences that training may use with it"
        self.sentence = kit.field(IntSlider, "Sentence", about, _WIDE, value=1, min=1, max=1)
        about = "Which of the random crops: a picture gets a different one each time"
        self.crop = kit.field(IntSlider, "Crop", about, _WIDE, value=0, max=99)
        self.flipped = _flip_box(flips(concept.training))
        how = {"placeholder": "a photo of {} on a red table", "rows": 3, "continuous_update": False}
        self.captions = kit.field(Textarea, "Captions", _CAPTIONS, _WIDE, **how)
        self.shown, self.kept = HTML(), HTML()
        crop = [self.crop] if concept.training.random_crop else []
        sliders = [self.picture, self.sentence, self.flipped, *crop]
        super().__init__([HTML(_warnings(concept)), *sliders, self.shown, self.captions, self.kept])
        self.picture.observe(self._turn, "value")
        self.captions.observe(self._typed, "value")
        for control in (self.sentence, self.flipped, self.crop):
            control.observe(self._show, "value")
        self._turn()

    def _turn(self, _change=None) -> None:
        """Show another picture and its captions from disk."""
        path = self._caption_path()
        text = path.read_text(encoding="utf-8-sig", errors="replace") if path.is_file() else ""
        self._filling = True
        self.captions.value = text.rstrip("\n")
        self._filling = False
        self._say(kit.error_of(self._count))

    def _caption_path(self) -> Path:
        """Also of a picture that was removed since."""
        return caption_path(self._concept.images_folder / self.picture.value)

    def _typed(self, change) -> None:
        if not self._filling:
            why = kit.error_of(lambda: self._keep(change["new"]))
            self._say(kit.error_of(self._count) or (why and f"{why} Until then nothing is changed."))

    def _keep(self, text: str) -> None:
        for caption in parse_captions(self._concept, text):
            self._preview.check(caption)
        write_captions(self._concept, self.picture.value, text)

    def _count(self) -> None:
        """Set the slider's end to the number of sentences; a `UserError` if training would refuse one."""
        sentences = self._preview.sentences(self.picture.value)
        self.sentence.max = len(sentences)
        self._show()
        self._preview.check(*sentences)

    def _say(self, why: str) -> None:
        path = self._caption_path()
        is_kept = f"Kept in images/{path.name}." if path.is_file() else _CAPTIONS
        self.kept.value = kit.problem(why) if why else kit.hint(is_kept)
        kit.mark_wrong(self.captions, why)

    def _show(self, _change=None) -> None:
        with contextlib.suppress(UserError):  # its sentence stands below the captions
            sentences = self._preview.sentences(self.picture.value)
            template = sentences[min(self.sentence.value, len(sentences)) - 1]
            shown = self._preview.example(self.picture.value, template, self.flipped.value, self.crop.value)
            self.shown.value = _as_html(shown, self.flipped.value)

    def static_html(self) -> str:
        """An example of each picture."""
        flipped = flips(self._concept.training)[0]
        examples = [
            self._preview.example(name, self._preview.sentences(name)[0], flipped)
            for name in self._preview.names
        ]
        sentences = [one.sentence for one in examples]
        return image_grid([one.image for one in examples], 5, sentences).as_html()


def _flip_box(possible: tuple[bool, ...]) -> Checkbox:
    about = "As training mirrors it, by flip_probability"
    box = Checkbox(possible[0], description="mirrored", tooltip=about, disabled=len(possible) == 1)
    box.indent, box.layout.margin = False, kit.INDENT
    return box


def _warnings(concept: Concept) -> str:
    warnings = "".join(f"<li>{html.escape(sentence)}</li>" for sentence in warnings_of(concept))
    return f'<ul role="status" style="max-width:75ch;line-height:1.4">{warnings}</ul>' if warnings else ""


def _as_html(shown: Example, flipped: bool) -> str:
    width, height = shown.image.size
    mirrored = ", mirrored" * flipped
    seen = kit.picture(shown.image, f"{shown.picture} as the network sees it{mirrored}", _SIDE)
    kept = kit.picture(kit.thumbnail(shown.original, 2 * _SIDE), f"Picture {shown.picture}", _SIDE)
    figures = [
        kit.figure(shown.picture, kept),
        kit.figure(f"The network sees {width} x {height} pixels{mirrored}", seen),
    ]
    cut = f"The model reads only this far: “{shown.cut_off}” is cut off." if shown.cut_off else ""
    return (
        f'<div style="display:flex;flex-wrap:wrap;gap:12px">{"".join(figures)}</div>'
        f'<p style="margin:6px 0"><b>{html.escape(shown.sentence)}</b></p>'
        f'<div style="line-height:2">{coloured_pieces(shown.tokens)}</div>{kit.problem(cut) if cut else ""}'
    )
