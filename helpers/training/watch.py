"""What happens to one learner between its steps: log, evaluation, samples, checkpoints and its end."""

import math
import time
from collections.abc import Callable
from functools import partial

from ..concept.concept import Concept
from ..concept.embedding import save_result, save_rows, step_path
from ..dataset.variety import outside_the_model
from .evaluate import HeldOutScore, fixed_loss, is_learned
from .figures import sample_noise, save_sample, saved_samples
from .learner import Best, Learner, Run
from .model import Model
from .records import Log, RunSummary, clear_request, resume_from, save_checkpoint, stop_requested

Scorer = Callable[[Concept, Model], float]

TOO_LARGE = (
    "The loss or the learned row was not a finite number at step {step}: set learning_rate to a third of "
    "what training/log.jsonl says, or mixed_precision to “bf16” or “no”, and train again. The rows of step "
    "{kept} were kept."
)
LEARNED = "The fixed loss has stopped falling."
CEILING = "It reached max_train_steps."
NOT_BETTER = (
    "No checkpoint was better than the initializer, which is therefore the result: start over with another "
    "initializer_token, more pictures or a lower learning_rate."
)
STOPPED = "It was stopped: run it again to go on."


class Watch:
    """One word in a run: its learner, resumed from the last checkpoint, and everything that is kept of it.

    The fixed loss only decides when to stop. The score decides which checkpoint is the result.

    Args:
        scorer: gives the score, more is better; `HeldOutScore` if None.
        started: `time.monotonic()` when the run was started or resumed.
    """

    def __init__(self, concept: Concept, run: Run, scorer: Scorer | None, started: float):
        self.concept, self.model, self.processes, self.scaler = concept, run.model, run.processes, run.scaler
        self.learner = Learner(concept, self.model, self.processes)
        self.score = partial(scorer, concept) if scorer else HeldOutScore(concept, self.model)
        self.fixed_loss = fixed_loss(self.learner, self.model)
        resume_from(concept.training_folder, self.learner, self.scaler)
        self.noise = sample_noise(concept, self.learner.latents.posterior.mean.shape[1:])
        self.started = started - self.learner.progress.seconds
        self.log = Log(concept.training_folder, self.step) if self.processes.is_main else None
        self.ended = False

    @property
    def step(self) -> int:
        return self.learner.progress.step

    def steps_left(self) -> int:
        return self.learner.settings.max_train_steps - self.step

    def begin(self) -> None:
        """Evaluate the initializer before the first step; a resumed run only says at which step it is."""
        self._say(self.learner.latents.note)
        if self.step:
            self._say(f"Goes on from step {self.step}.")
            self._end_if_done()  # it was killed between its last checkpoint and its end
            return
        self._evaluate()
        self._keep_if_best()
        self._sample(self.step)

    def after_step(self, loss: float, interrupted: bool) -> None:
        """Log the step, evaluate and save if that is due, and end the learner if it is done."""
        self.learner.progress.step += 1
        self.learner.progress.seconds = time.monotonic() - self.started
        norms = self.learner.norms()
        if not all(map(math.isfinite, [loss, *norms])):
            self._end("failed", TOO_LARGE.format(step=self.step, kept=self.learner.progress.best.step))
            return
        self._log_step(loss, norms)
        self._look()
        asked = interrupted or self.processes.any(stop_requested(self.concept.training_folder))
        if asked and not self.ended:
            self._stop()

    def _look(self) -> None:
        settings, step = self.learner.settings, self.step
        if step % settings.evaluate_every == 0 or self._is_last():
            self._evaluate()
        if step % settings.checkpoint_every == 0 or self._is_last() or self._is_learned():
            self._keep_if_best()
            self._checkpoint()
        every = settings.sample_every
        if every and (step % every == 0 or 4 * step in (every, 2 * every)):  # early, a word changes fast
            self._sample(step)
        self._end_if_done()

    def _is_last(self) -> bool:
        return self.steps_left() <= 0

    def _is_learned(self) -> bool:
        losses = list(self.learner.progress.fixed_losses.values())
        return self.learner.settings.stop_when_learned and is_learned(losses)

    def _end_if_done(self) -> None:
        """End the learner with the reason, and with advice if nothing was gained or could be."""
        if self._is_learned() or self._is_last():
            how, why = ("learned", LEARNED) if self._is_learned() else ("ceiling", CEILING)
            not_better = "" if self.learner.progress.best.step else NOT_BETTER
            self._end(how, " ".join(filter(None, [why, not_better, outside_the_model(self.concept)])))

    def _evaluate(self) -> None:
        loss = self.processes.agree(self.fixed_loss(self.model) if self.processes.is_main else None)
        self.learner.progress.fixed_losses[self.step] = loss
        self._write(fixed_loss=loss)

    def _keep_if_best(self) -> None:
        """Score the rows and save them under their step; if none were better, they are the result."""
        rows, best = self.learner.copy_rows(), self.learner.progress.best
        score = self.processes.agree(float(self.score(self.model)) if self.processes.is_main else None)
        self._write(score=score)
        if best is None or score > best.score:
            self.learner.progress.best = Best(self.step, score, rows)
        if self.processes.is_main:
            save_rows(step_path(self.concept, self.step), self.concept, rows)

    def _sample(self, step: int) -> None:
        if self.processes.is_main and self.learner.settings.sample_every:
            save_sample(self.concept, self.model, self.noise, step)

    def _sample_kept(self) -> None:
        """Draw a sample with the result if none was due at its step."""
        rows, best = self.learner.copy_rows(), self.learner.progress.best
        if best.step not in saved_samples(self.concept):
            self.learner.set_rows(best.rows)
            self._sample(best.step)
            self.learner.set_rows(rows)

    def _checkpoint(self) -> None:
        if self.processes.is_main:
            state = {"learner": self.learner.state_dict(), "scaler": self.scaler.state_dict()}
            save_checkpoint(self.concept.training_folder, state)

    def _stop(self) -> None:
        """Save the state before this extra score, on which a resumed run must not depend."""
        self._checkpoint()
        self._keep_if_best()
        self._end("stopped", STOPPED)

    def _end(self, how: str, reason: str) -> None:
        self.ended = True
        self._say(reason)
        if not self.processes.is_main:
            return
        progress, folder = self.learner.progress, self.concept.training_folder
        save_result(self.concept, progress.best.rows)
        self._sample_kept()
        losses, best = progress.fixed_losses, progress.best.step
        summary = RunSummary(
            concept=self.concept.name,
            ended=how,
            reason=reason,
            steps=progress.step,
            best_step=best,
            seconds=round(progress.seconds, 1),
            first_fixed_loss=losses[min(losses)],
            best_fixed_loss=losses[min(losses, key=lambda step: abs(step - best))],
        )
        summary.save(folder)
        clear_request(folder)
        self.log.close()

    def _log_step(self, loss: float, norms: list[float]) -> None:
        self._write(
            loss=loss,
            learning_rate=self.learner.schedule.get_last_lr()[0],
            norm=sum(norms) / len(norms),
            norms=[round(norm, 4) for norm in norms],
            seconds=round(self.learner.progress.seconds, 3),
        )

    def _say(self, sentence: str) -> None:
        self._write(event=sentence)
        if self.processes.is_main:
            print(f"{self.concept.name}: {sentence}", flush=True)

    def _write(self, **values) -> None:
        if self.log:
            self.log.write(self.step, **values)
