"""What is mutated, and which tests must find it: {group: (mutants, {module: test files})}.

The first tests of a line are the quickest; a mutant that they kill never meets the others. A name
is that of a file in tests/, or of one test in it.
"""

_NEURONS = ("test_neurons", "test_neuron_kinds")
_DEPLOY = ("test_deploy_parts", "test_deploy")
_ENERGY = ("test_energy_operations", "test_energy_report")
_STEP = tuple(
    f"test_training::test_{name}"
    for name in (
        *("gaps_are_filled_with_real_examples_and_weigh_nothing", "the_budget_comes_down_linearly"),
        *("values_of_a_procedure_that_do_not_fit_are_named", "metrics_are_exact_on_uneven_batches"),
        *("the_floor_is_the_budget_unless_there_were_fewer_steps_before",),
        *("a_gap_leaves_the_mean_gradient_and_the_statistics_of_the_real_images",),
        *("reported_loss_is_the_smoothed_cross_entropy", "gaps_do_not_count_in_the_loss"),
        *("the_weight_of_the_penalty_grows_with_the_excess", "scores_move_only_in_their_phase"),
        *("a_step_that_is_not_finite_is_taken_back_and_named",),
        "the_penalty_starts_at_its_weight_unless_it_grows_to_a_target",
        *("parts_of_a_batch_add_up_to_the_whole", "training_of_scores_moves_nothing_else"),
    )
)

TARGETS = {
    "neurons": (
        20,
        {
            "neurons/dynamics": ("test_neurons", "test_scan"),
            "neurons/kinds": (*_NEURONS, "test_parallel_neuron"),
            "neurons/neuron": (*_NEURONS, "test_own_neuron"),
            "neurons/surrogates": ("test_surrogates", "test_neurons"),
        },
    ),
    "time steps": (
        24,
        {
            "time_steps/masks": ("test_timesteps",),
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
            "energy/layer_operations": _ENERGY,
            "energy/observation": _ENERGY,
            "energy/operations": _ENERGY,
            "energy/products": _ENERGY,
            "xla/programs": _ENERGY,
        },
    ),
    "training step": (
        26,
        {
            "training/step": _STEP,
            "training/gaps": _STEP,
            "training/objective": (
                "test_event_recipes::test_the_loss_of_all_steps_is_the_published_one",
                *_STEP,
            ),
            "training/nonfinite": _STEP,
            "training/distillation": ("test_distillation",),
            "training/optimizer": ("test_optimizer",),
        },
    ),
    "mixing": (12, {"training/mixing": ("test_mixing",)}),
    "data order": (
        12,
        {
            "data/order": ("data/test_order",),
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
