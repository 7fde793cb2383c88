"""The conventions that turn operations into energy.

Energies of a 45 nm process (Horowitz, ISSCC 2014): 4.6 pJ for a 32-bit floating-point
multiply-accumulate, 0.9 pJ for an accumulate.
"""

import dataclasses

from snnvit_jax.common import values
from snnvit_jax.common.nearest import did_you_mean

MAC_PICOJOULE = 4.6
AC_PICOJOULE = 0.9
# What an input of small integers costs: accumulates, an integer n as n of them (Zhou et al., ICLR
# 2023), or multiply-accumulates like any other input that is not binary (arXiv 2304.11954).
CONVENTIONS = ("accumulate", "multiply")

_ENERGY = dataclasses.replace(values.number(0), must="an energy in pJ, a number, at least 0")


@dataclasses.dataclass(frozen=True)
class Accounting:
    """What counts, and what it costs.

    Attributes:
      mac: energy of a multiply-accumulate in pJ.
      ac: energy of an accumulate in pJ.
      membrane: energy of a membrane update in pJ; None for that of its multiply-accumulates and
        accumulates, as the neuron states them.
      integers: what an input of small integers costs, one of `CONVENTIONS`.
      count_membrane: whether membrane updates are part of the energy; they are not in published
        figures.
      repeat_embedding: whether what is computed once for all time steps counts T times, as in
        published figures.

    Raises:
      ValueError: for an unknown convention, an energy that is no number, negative or not finite,
        or a flag that is no truth value.
    """

    mac: float = MAC_PICOJOULE
    ac: float = AC_PICOJOULE
    membrane: float | None = None
    integers: str = "accumulate"
    count_membrane: bool = False
    repeat_embedding: bool = False

    def __post_init__(self):
        values.one_of(CONVENTIONS).check("integers", self.integers)
        for name in ("mac", "ac"):
            _ENERGY.check(name, values.scalar(getattr(self, name)))
        values.optional(_ENERGY).check("membrane", values.scalar(self.membrane))
        for name in ("count_membrane", "repeat_embedding"):
            values.flag().check(name, values.scalar(getattr(self, name)))

    def changed(self, **changes):
        """Returns the same conventions but for some fields.

        Args:
          **changes: fields of this class.

        Raises:
          ValueError: for an unknown field, or a value that does not fit.
        """
        known = [field.name for field in dataclasses.fields(self)]
        for name in changes:
            if name not in known:
                hint = did_you_mean(name, known)
                raise ValueError(
                    f"unknown convention {name!r}{hint}; use some of {', '.join(known)}"
                )
        return dataclasses.replace(self, **changes)

    def multiplies(self, kind):
        """Returns whether a layer with inputs of a kind costs multiply-accumulates.

        Args:
          kind: "spikes", "integers" or "real".
        """
        return kind == "real" or (kind == "integers" and self.integers == "multiply")

    def membrane_update(self, update):
        """Returns the energy of one membrane update in pJ.

        Args:
          update: `neurons.Update`, what a neuron computes in one time step.
        """
        if self.membrane is not None:
            return self.membrane
        return update.macs * self.mac + update.accumulates * self.ac
