"""A Web UI from a notebook: the word's file put there, the program started, watched and stopped."""

import functools
import html
import threading
from pathlib import Path
from typing import Any

from ipywidgets import HTML, Checkbox, Combobox, HBox

from ..common import places
from ..common.errors import UserError
from ..export import web_ui as programs
from . import kit

_EVERY = 0.5  # seconds
_LINES = 40  # of what it writes
_SHARED = (
    "Share gives it a public address. Whoever has that can use the program as you do, on your machine, "
    "without a password, until you press Stop."
)
_ELSEWHERE = (
    "On a cloud an address with 127.0.0.1 is that machine's own: open it by the cloud's port, or Share."
)
_BOX = "max-height:300px;overflow:auto;margin:0;white-space:pre-wrap;overflow-wrap:anywhere"


class WebUIForm(kit.View):
    """Buttons for one program. Its output is shown below them, and its address as a link once it answers.

    Another form in the same kernel follows a program that runs already. Its static HTML is the command.
    """

    def __init__(
        self, web_ui: programs.WebUI, file: Path, checkpoint: Path | str | None = None, share: bool = False
    ):
        """Put the file into the program's folder, or ask whether it may, and offer to start the program.

        Args:
            file: as `export_for` made it.
            checkpoint: the base model as a file; the form can change it.
            share: whether the box for a public address is ticked.
        """
        self._web_ui, self._file = web_ui, file
        name = programs.NAMES[web_ui.program]
        self.message, self.question = kit.Message(), HBox()
        about = "The base model as a .safetensors or .ckpt file"
        how = {"value": str(checkpoint or ""), "placeholder": "the program's own choice"}
        how["options"] = [str(path) for path in web_ui.checkpoints]
        self.checkpoint = kit.field(Combobox, "Checkpoint", about, 900, **how)
        self.share = Checkbox(share, description="Share", indent=False, layout={"width": "auto"})
        self.start = kit.button("Start", self._start, f"Start {name}", "primary")
        self.stop = kit.button("Stop", self._stop, "End it and all that it has started", "warning")
        self.addresses, self.output = HTML(), HTML()
        title = HTML(f"<b>{name}</b> {kit.lines(str(web_ui.folder))}")
        choices = [self.checkpoint, self.share, HTML(kit.hint(_SHARED))]
        buttons = HBox([self.start, self.stop])
        below = [buttons, self.message, self.question, self.addresses, self.output]
        super().__init__([title, *(choices if web_ui.program in programs.LAUNCHED else []), *below])
        self._put()
        self._follow(programs.running_web_ui(web_ui))

    def _put(self, replace: bool = False) -> None:
        kit.show_in(self.question, [])
        self.message.run(lambda: self._put_or_ask(replace))

    def _put_or_ask(self, replace: bool) -> str:
        try:
            path = programs.put_embedding(self._file, self._web_ui, replace)
        except programs.EmbeddingExists as there:
            overwrite = functools.partial(self._put, replace=True)
            asked = kit.ask(there.question, "Overwrite it", overwrite, "Keep it", self._keep)
            kit.show_in(self.question, asked)
            return ""
        return f"The word is in {path.relative_to(self._web_ui.folder).as_posix()}."

    def _keep(self) -> None:
        kit.show_in(self.question, [])
        self.message.say("The other file was kept: your word is not there.")

    def _given(self) -> dict[str, Any]:
        return {"checkpoint": self.checkpoint.value.strip() or None, "share": self.share.value}

    def _start(self) -> None:
        kit.mark_wrong(self.checkpoint, self.message.run(lambda: self._follow(self._running_or_started())))

    def _running_or_started(self) -> programs.StartedProgram:
        """It may run already, by a second click or from another form."""
        running = programs.running_web_ui(self._web_ui)
        return running or programs.start_web_ui(self._web_ui, **self._given())

    def _stop(self) -> None:
        if program := programs.running_web_ui(self._web_ui):
            self.message.say("Stopping…")
            program.stop()

    def _follow(self, program: programs.StartedProgram | None) -> None:
        """Show a running program in a thread until it ends."""
        self.start.disabled, self.stop.disabled = program is not None, program is None
        if program:
            threading.Thread(target=self._watch, args=(program,), daemon=True).start()

    def _watch(self, program: programs.StartedProgram) -> None:
        while program.is_running:
            self._show(program)
            program.wait(_EVERY)
        self._show(program)
        self.addresses.value = ""
        self.message.say(program.end)
        self._follow(None)

    def _show(self, program: programs.StartedProgram) -> None:
        shown = "\n".join(program.output.strip().splitlines()[-_LINES:])
        self.output.value = f'<pre style="{_BOX}">{html.escape(shown)}</pre>'
        self.addresses.value = _links(program.addresses)

    def static_html(self) -> str:
        """The command that starts it."""
        try:
            shown = programs.start_command(self._web_ui, **self._given())
        except UserError as error:
            shown = str(error)
        return f"<pre>{html.escape(shown)}</pre>"


def _links(addresses: list[str]) -> str:
    links = [
        f'<a href="{html.escape(one)}" target="_blank" rel="noopener">{html.escape(one)}</a>'
        for one in addresses
    ]
    if not links:
        return ""
    remark = "" if places.cloud() == "workstation" else kit.hint(_ELSEWHERE)
    return f'<div role="status">It answers at {" and ".join(links)}</div>{remark}'
