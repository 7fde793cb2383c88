"""Energy of a run under every convention: python run.py WORKDIR OUT [--twin=ANN_WORKDIR].

Compares the learned schedule, the same weights with all time steps on, the same architecture with
ReLU (if such a run is given) and a plain vision transformer of the same shapes, from the spikes of
the whole held-out split. Writes OUT/energy_table.json (every count for each layer and time step)
and OUT/energy_table.md.
"""

import argparse
import json

from tqdm import tqdm

from snnvit_jax.common import markdown as tables
from snnvit_jax.common.arguments import output_folder, whole
from snnvit_jax.neurons import describe
from snnvit_jax.runs import analysis
from snnvit_jax.time_steps.schedule import with_schedule

COLUMNS = (
    *("network", "accuracy", "time steps", "additions", "MAC", "µJ"),
    *("MAC if integers multiply", "µJ if integers multiply"),
    *("membrane updates", "µJ of these, besides"),
)


def measure(experiment, variables, twin=None):
    """Returns {name: `Evaluation`} of the networks that are compared.

    Args:
      experiment: of a run, from `analysis.open_run`.
      variables: of its model.
      twin: (experiment, variables) of the same architecture with ReLU; None for none.
    """
    learned = analysis.evaluate(experiment, variables)
    everything = with_schedule(variables, analysis.all_steps(learned.schedule))
    found = {
        "learned schedule": learned,
        "all time steps": analysis.evaluate(experiment, everything),
    }
    if twin is not None:
        found["ReLU in place of spikes"] = analysis.evaluate(*twin)
    return found


def check_twin(config, twin):
    """Raises ValueError unless a network is another one with ReLU.

    Args:
      config: of the model of one network.
      twin: of the other one.
    """
    analysis.check_architectures(config, twin)
    kind = describe(twin.neuron)["kind"]
    if kind != "relu":
        raise ValueError(f"--twin must have model.neuron.kind=relu, not {kind!r}")


def markdown(found):
    """Returns the comparison as a Markdown table.

    Args:
      found: from `measure`.
    """
    rows = [[name, *_row(result)] for name, result in found.items()]
    energy = next(iter(found.values())).energy
    plain = (f"{energy.plain_macs:,}", f"{energy.plain_microjoule:.4g}")
    rows.append(["plain vision transformer", "", "1", "0", *plain, *plain, "0", "0"])
    return tables.table(COLUMNS, rows)


def _row(result):
    energy, multiply = result.energy, result.energy.under(integers="multiply")
    return (
        f"{100 * result.accuracy:.2f} %",
        f"{result.schedule.average:.2f} of {result.schedule.time_steps}",
        f"{energy.accumulates:,.0f}",
        f"{energy.macs:,}",
        f"{energy.microjoule:.4g}",
        f"{multiply.macs:,}",
        f"{multiply.microjoule:.4g}",
        f"{energy.membrane_updates:,}",
        f"{energy.membrane_microjoule:.4g}",
    )


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workdir", help="or a trained network: pretrained:NAME")
    parser.add_argument("out", type=output_folder)
    parser.add_argument("--twin", help="the same of a run with model.neuron.kind=relu")
    parser.add_argument(
        "--examples", type=whole(1), help="look only at N held-out examples, evenly spaced"
    )
    parser.add_argument("--data_dir", help="folder of the data set, which a trained network needs")
    args = parser.parse_args()
    try:
        run = analysis.open_run(args.workdir, args.examples, args.data_dir)
        twin = args.twin and analysis.open_run(args.twin, args.examples, args.data_dir)
        if twin:
            check_twin(run[0].model.config, twin[0].model.config)
    except (ValueError, OSError) as error:
        parser.error(str(error))
    found = measure(*run, twin)
    args.out.mkdir(parents=True, exist_ok=True)
    counts = {name: json.loads(result.energy.to_json()) for name, result in found.items()}
    (args.out / "energy_table.json").write_text(json.dumps(counts, indent=1) + "\n")
    (args.out / "energy_table.md").write_text(markdown(found))
    tqdm.write(markdown(found))


if __name__ == "__main__":
    main()
