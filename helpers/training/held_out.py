"""Which of a run's checkpoints is best: a score from pictures and prompts that training never saw.

A word can fail in two ways. It may not show the thing; or it shows nothing else, whatever the rest of
the prompt says, which the loss rewards. So the score is a product of two parts, each measured with the
base model alone, so that it works for any and needs no other network:

- **gain**: how far the loss on closer crops of the pictures, with sentences that were kept back, has
  fallen from the initializer's;
- **obedience**: how much the words around it still do. For prompts such as “a <word> on a beach” the
  prediction moves, against “a <word>”, in some direction. The same prompt with the initializer moves
  it too. Obedience is the share of the initializer's move that the word keeps, 0 to 1.
"""

from collections.abc import Callable

import torch
from PIL import Image

from ..concept import Concept
from ..dataset import preprocess
from ..images import load_images
from .evaluation import FixedLoss
from .latents import encode
from .model import Model
from .sentences import held_out_templates, token_ids, with_word

Scorer = Callable[[Model], float]

CLOSER = 0.85
_SURROUNDINGS = (" on a beach", " in the snow", " in a forest", " in a city", " at night", " in a room")
_PLAIN = {"object": "a photo of a {}", "style": "a painting in the style of {}"}


class HeldOutScore:
    """The default judge of a run: called with the model and the rows as they are now; more is better.

    Make it before the first step: it remembers the initializer's loss and moves.
    """

    def __init__(self, concept: Concept, model: Model):
        settings = concept.training
        self.latents = encode(model, _closer_views(concept, model.resolution)).mean
        sentences = with_word(concept, held_out_templates(concept))
        ids = token_ids(model.components.tokenizers, sentences, model.device)
        self.loss = FixedLoss(self.latents, ids, settings, seed=settings.seed + 2)
        self.start = self.loss(model)
        self.obedience = Obedience(concept, model, self.latents[:1])

    def __call__(self, model: Model) -> float:
        gain = self.start - self.loss(model)
        return gain * self.obedience(model) if gain > 0 else gain


class Obedience:
    """How much of what surroundings do to the initializer they still do to the word.

    Args:
        latents: (1, channels, height, width), noised for the model to look at; at the high noise
            level where a picture's layout is decided.
    """

    def __init__(self, concept: Concept, model: Model, latents: torch.Tensor):
        plain = _PLAIN[concept.what_to_teach]
        templates = [plain, *(plain + around for around in _SURROUNDINGS)]
        tokenizers = model.components.tokenizers
        self.ids = token_ids(tokenizers, with_word(concept, templates), model.device)
        timestep = int(0.8 * model.scheduler.config.num_train_timesteps)
        self.timesteps = torch.full((len(templates),), timestep, device=model.device)
        generator = torch.Generator().manual_seed(concept.training.seed + 3)
        noise = torch.randn(latents.shape, generator=generator).to(model.device)
        noisy = model.scheduler.add_noise(latents, noise, self.timesteps[:1])
        self.noisy = noisy.expand(len(templates), *noisy.shape[1:])
        words = [template.replace("{}", concept.initializer_token) for template in templates]
        self.wanted = self._moves(model, token_ids(tokenizers, words, model.device))

    def __call__(self, model: Model) -> float:
        """The mean, over surroundings, of <move, wanted move> / |wanted move|^2, each kept in 0..1."""
        moves = self._moves(model, self.ids)
        along = (moves * self.wanted).sum(dim=1) / self.wanted.square().sum(dim=1).clamp_min(1e-12)
        return along.clamp(0, 1).mean().item()

    @torch.no_grad()
    def _moves(self, model: Model, ids: list[torch.Tensor]) -> torch.Tensor:
        """What each surrounding changes in the prediction, (surroundings, values)."""
        prediction = model.predict(self.noisy, self.timesteps, model.embed(ids)).flatten(1)
        return prediction[1:] - prediction[:1]


def _closer_views(concept: Concept, resolution: int) -> torch.Tensor:
    """Crops that training does not see, (pictures, 3, resolution, resolution) in -1..1."""
    whole = concept.training.model_copy(update={"random_crop": False})
    return torch.stack([preprocess(_closer(image), whole, resolution) for image in load_images(concept)])


def _closer(image: Image.Image) -> Image.Image:
    side = round(min(image.size) * CLOSER)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side))
