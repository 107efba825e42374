"""A setting chosen for an axis of a grid, and the values that it takes."""

from collections.abc import Callable

import ipywidgets

from ..grid_plan import Axis

NOTHING = "nothing"
_CHOICES = {
    NOTHING: None,
    "Seed": "seed",
    "Prompt": "prompt",
    "Negative prompt": "negative_prompt",
    "Guidance": "guidance",
    "Steps": "steps",
    "Scheduler": "scheduler",
    "Weight": "weight",
    "Training step": "training_step",
    "Before and after": "word",
}


class AxisField(ipywidgets.HBox):
    """What differs along an axis. Choosing a setting fills in values for it to begin with."""

    def __init__(self, title: str, beginning: Callable[[str], Axis]):
        """Show the field. `beginning` gives the axis of a setting's name, as long as a person typed none."""
        self.title, self._beginning = title, beginning
        self.choice = ipywidgets.Dropdown(
            options=list(_CHOICES),
            description=f"{title} axis",
            layout={"width": "290px"},
            style={"description_width": "110px"},
        )
        self.choice.tooltip = f"What differs along {title}"
        self.values = ipywidgets.Textarea(
            description=f"{title} values",
            rows=2,
            continuous_update=False,
            layout={"width": "min(420px, 100%)"},
            tooltip="With commas between them; prompts each on its own line; 0-4 is 0, 1, 2, 3, 4",
        )
        self.choice.observe(self._begin, "value")
        super().__init__([self.choice, self.values], layout={"flex_flow": "row wrap"})
        self._begin()

    @property
    def name(self) -> str | None:
        """The setting that differs; None: nothing does."""
        return _CHOICES[self.choice.value]

    def read(self) -> Axis | None:
        """The axis as it was typed.

        Raises:
            UserError: a value can't be read.
        """
        return Axis.typed(self.name, self.values.value) if self.name else None

    def fill(self, axis: Axis | None) -> None:
        """Show an axis."""
        name = axis.name if axis else None
        self.choice.value = next(title for title, choice in _CHOICES.items() if choice == name)
        self.values.value = axis.text if axis else ""

    def _begin(self, _change=None) -> None:
        self.values.value = self._beginning(self.name).text if self.name else ""
        self.values.layout.display = "" if self.name else "none"
