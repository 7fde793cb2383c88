"""Learning from a teacher too: a trained network whose outputs a student imitates.

The student's loss of an example becomes

    (1 - w) * cross entropy(label) + w * tau^2 * cross entropy(teacher / tau, student / tau)

with the teacher's and the student's logits divided by the temperature tau (Hinton, Vinyals & Dean,
"Distilling the Knowledge in a Neural Network", arXiv 1503.02531). A teacher worth having is the
same network with ReLU in place of spikes; it sees the very images that the student sees.
"""

import dataclasses

import jax
import optax

from snnvit_jax.common import values

# What each setting must be, by its name.
RULES = {"weight": values.number(0, 1), "temperature": values.number(1e-6)}


@dataclasses.dataclass(frozen=True)
class Distillation:
    """A teacher, without its variables, and how far it is followed.

    Attributes:
      model: its Linen module.
      weight: of the teacher in the loss, in [0, 1].
      temperature: by which logits are divided, > 0.

    Raises:
      ValueError: naming a value outside its range.
    """

    model: object
    weight: float = 0.5
    temperature: float = 2.0

    def __post_init__(self):
        values.check_fields(self, RULES, "distillation")

    def logits(self, variables, images):
        """Returns the teacher's logits divided by the temperature, [B, K]; no gradient flows.

        Args:
          variables: {"params", "batch_stats"} of the teacher.
          images: [B, H, W, C], or [B, T, H, W, C] of recordings, as the student sees them.
        """
        return jax.lax.stop_gradient(self.model.apply(variables, images)) / self.temperature

    def losses(self, losses, logits, teacher_logits):
        """Returns the losses of a student that follows its teacher, [B].

        Args:
          losses: the student's cross entropy, [B].
          logits: the student's, [B, K].
          teacher_logits: from `logits`, [B, K].
        """
        targets = jax.nn.softmax(teacher_logits)
        following = optax.softmax_cross_entropy(logits / self.temperature, targets)
        return (1 - self.weight) * losses + self.weight * self.temperature**2 * following
