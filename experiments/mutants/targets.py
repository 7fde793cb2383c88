"""What is mutated, and which tests must find it: {group: (mutants, {module: test files})}.

The first file of a line is the quickest; a mutant that it kills never meets the others.
"""

_SCORES = ("test_timesteps", "test_target", "test_training")
_NEURONS = ("test_neurons", "test_neuron_kinds", "test_parallel_neuron")
_DEPLOY = ("test_deploy_parts", "test_deploy")
_ENERGY = ("test_energy_operations", "test_energy_report")
_STEP = ("test_training",)

TARGETS = {
    "neurons": (
        20,
        {
            "neurons/dynamics": ("test_neurons", "test_scan"),
            "neurons/kinds": (*_NEURONS, "test_own_neuron", "test_deploy_parts"),
            "neurons/neuron": (*_NEURONS, "test_own_neuron", "test_deploy_parts"),
            "neurons/surrogates": ("test_surrogates", "test_neurons"),
        },
    ),
    "time steps": (
        24,
        {
            "time_steps/masks": _SCORES,
            "time_steps/schedule": ("test_schedule",),
            "time_steps/spike_price": ("test_spike_price",),
        },
    ),
    "deployment": (
        30,
        {
            "deployment/planning": _DEPLOY,
            "deployment/folding": _DEPLOY,
            "deployment/merging": ("test_merging",),
            "deployment/program": (*_DEPLOY, "test_deploy_calls"),
            "signals/plan": _DEPLOY,
            "signals/trace": _DEPLOY,
        },
    ),
    "energy": (
        26,
        {
            "energy/accounting": _ENERGY,
            "energy/convolution": _ENERGY,
            "energy/costs": _ENERGY,
            "energy/driven": ("test_driven", *_ENERGY),
            "energy/elementwise": _ENERGY,
            "energy/observation": _ENERGY,
            "energy/operations": _ENERGY,
            "energy/products": _ENERGY,
        },
    ),
    "training step": (
        26,
        {
            "training/step": (*_STEP, "test_optimizer", "test_distillation"),
            "training/gaps": _STEP,
            "training/objective": ("test_target", *_STEP),
            "training/nonfinite": _STEP,
            "training/distillation": ("test_distillation",),
            "training/optimizer": ("test_optimizer",),
        },
    ),
    "mixing": (12, {"training/mixing": ("test_mixing",)}),
    "data order": (
        12,
        {
            "data/order": ("data/test_order", "data/test_loader"),
            "data/substitutes": ("data/test_substitutes",),
        },
    ),
}

# Mutants that no operator of the tool makes: (module, what is there, what comes in its place).
BY_HAND = (
    ("training/gaps", "mask / share", "mask"),
    ("training/step", 'batch["weight"]', 'batch["mask"]'),
    ("training/step", "gaps.weights(mask)", "mask"),
)
