"""Operations and energy, counted from what actually flows through a model.

Every convolution, matrix product and attention product is observed during a forward pass, and
every spiking layer. Where a product's input is spikes, each costs one accumulate for each output
that it reaches, padding excepted; a real-valued input costs multiply-accumulates. Published figures
differ in what the small integers of a residual stream cost (`Accounting.integers`). Membrane
updates are counted and reported apart. Not counted, as in the published figures: normalisation
(folded in deployment), pooling and residual additions.

Where a schedule leaves steps out, an operation counts if the deployed program computes it; what
else arrives is reported beside it.

Imports `common`, `deployment`, `layers`, `models`, `neurons`, `signals`, `time_steps` and `xla`.
"""

from snnvit_jax.energy.accounting import CONVENTIONS, Accounting
from snnvit_jax.energy.costs import LayerEnergy, NeuronUpdates, Operand
from snnvit_jax.energy.driven import Driven, driven, spike_prices
from snnvit_jax.energy.layer_operations import LayerShape
from snnvit_jax.energy.observation import decode, model_shapes, neuron_counts, observe
from snnvit_jax.energy.report import EnergyReport, energy_report, report_from_counts

__all__ = [
    "CONVENTIONS",
    "Accounting",
    "Driven",
    "EnergyReport",
    "LayerEnergy",
    "LayerShape",
    "NeuronUpdates",
    "Operand",
    "decode",
    "driven",
    "energy_report",
    "model_shapes",
    "neuron_counts",
    "observe",
    "report_from_counts",
    "spike_prices",
]
