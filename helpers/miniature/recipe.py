"""How much of everything the miniature is made from."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import UserError
from .autoencoder import PLAN as AUTOENCODER_PLAN
from .autoencoder import POLISH_PLAN
from .judge import PLAN as JUDGE_PLAN
from .pictures import SHARD
from .sitting import Plan


@dataclass(frozen=True)
class Recipe:
    """The numbers of pictures. `shards` and `judging_shards` of `shard` drawings each are drawn."""

    shard: int = SHARD
    shards: int = 25
    judging_shards: int = 4
    autoencoder: Plan = AUTOENCODER_PLAN
    sittings: tuple[Plan, ...] = (
        Plan("diffusion-1", pictures=128_000, batch=64, lr=3e-3, cooldown=0.5),
        Plan("diffusion-2", pictures=280_000, batch=128, lr=2e-3, cooldown=0.7),
        Plan("diffusion-3", pictures=600_000, batch=128, lr=2e-3, cooldown=0.7),
    )
    polish: Plan = POLISH_PLAN
    judge: Plan = JUDGE_PLAN
    captions: int = 512  # to draw for in the report
    fresh: int = 1_000  # drawings in the report

    @property
    def drawings(self) -> int:
        """How many drawings the model is trained on."""
        return self.shards * self.shard

    @property
    def judged(self) -> int:
        """How many drawings the judge is trained on."""
        return self.drawings + self.judging_shards * self.shard

    def at(self, share: float) -> "Recipe":
        """The same recipe with a share of the pictures; of everything a little is left."""
        return Recipe(
            shard=max(8, round(self.shard * share)),
            autoencoder=self.autoencoder.at(share),
            sittings=tuple(plan.at(share) for plan in self.sittings),
            polish=self.polish.at(share),
            judge=self.judge.at(share),
            captions=max(16, round(self.captions * share)),
            fresh=max(50, round(self.fresh * share)),
        )


RECIPE = Recipe()


def begin(recipe: Recipe, work: Path) -> None:
    """Note in the work folder by which recipe it is filled, and clear it of what a kill cut short.

    Raises:
        UserError: it is filled by another one, whose parts do not fit.
    """
    path, wanted = work / "recipe.json", json.loads(json.dumps(asdict(recipe)))
    for left in (work / "pictures").glob("partial-*"):
        left.unlink()
    if not path.exists():
        work.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_suffix(".partial")
        unfinished.write_text(json.dumps(wanted, indent=1) + "\n")
        unfinished.replace(path)
    elif json.loads(path.read_text()) != wanted:
        raise UserError(f"{work} holds parts of a build with other amounts: name another folder.")
