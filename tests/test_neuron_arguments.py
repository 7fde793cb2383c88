"""What a neuron may be given, and how it names what does not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from snnvit_jax.neurons import create_neuron, lif_scan


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"tau": 0.5}, "tau=0.5"),
        ({"tau": 0}, "tau=0"),
        ({"tau": -2.0}, "tau=-2.0"),
        ({"tau": float("nan")}, "tau=nan"),
        ({"tau": np.float32(0.5)}, "0.5"),
        ({"threshold": 0.0}, "threshold=0.0"),
        ({"threshold": -1}, "threshold=-1"),
        ({"threshold": float("nan")}, "threshold=nan"),
        ({"reset": "gentle"}, "reset='gentle'.*hard, soft"),
        ({"surrogate": "gaussian"}, "surrogate='gaussian'.*sigmoid"),
        ({"alpha": -1.0}, "alpha=-1.0"),
        ({"threshold": None}, "^threshold=None must be a number, above 0"),
        ({"threshold": "1"}, "^threshold='1'"),
        ({"threshold": jnp.ones(2)}, r"^threshold=.*1\., 1\."),
        ({"tau": jnp.array([1.0, 2.0])}, r"^tau=.*1\., 2\..* must be None or a number, at least 1"),
        ({"tau": "2"}, "^tau='2'"),
        ({"tau": True}, "^tau=True"),
        ({"reset": ["hard"]}, r"^reset=\['hard'\] must be one of hard, soft"),
        ({"surrogate": {}}, r"^surrogate=\{\} must be one of sigmoid"),
        ({"alpha": "x"}, "^alpha='x'"),
        ({"alpha": jnp.ones(2)}, r"^alpha=.*1\., 1\."),
        ({"detach_reset": "no"}, "^detach_reset='no' must be True or False"),
        ({"axis": None}, "^axis=None"),
    ],
)
def test_scan_names_a_bad_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        lif_scan(jnp.ones((4, 2)), **arguments)


def test_scalars_may_be_arrays_and_traced_ones_are_not_looked_into():
    current = jnp.ones((4, 2))
    wanted = lif_scan(current, 2.0, 0.5)
    scalar = jnp.float32
    np.testing.assert_array_equal(lif_scan(current, scalar(2), np.array(0.5)), wanted)
    traced = jax.jit(lambda tau, threshold: lif_scan(current, tau, threshold))
    np.testing.assert_array_equal(traced(2.0, 0.5), wanted)
    with pytest.raises(ValueError, match=r"tau of shape \(2,\) must be a scalar"):
        traced(scalar([2, 2]), 0.5)
    with pytest.raises(ValueError, match="alpha must be a plain number"):
        jax.jit(lambda alpha: lif_scan(current, alpha=alpha))(2.0)


@pytest.mark.parametrize(
    ("current", "message"),
    [
        (jnp.ones((0, 3)), r"time step.*\(0, 3\)"),
        (jnp.float32(1.0), r"time step.*\(\)"),
        (jnp.ones((4, 2), "int32"), "int32"),
        (jnp.ones((4, 2), "bool"), "bool"),
    ],
)
def test_scan_names_a_bad_current(current, message):
    with pytest.raises(ValueError, match=message):
        lif_scan(current)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "izhikevich"}, "kind='izhikevich'.*lif, if, plif, relu"),
        ({"tau": 0.5}, "tau=0.5"),
        ({"kind": "plif", "tau": 1.0}, "tau=1.0"),
        ({"reset": "gentle"}, "reset='gentle'"),
        ({"surrogate": "gaussian"}, "surrogate='gaussian'"),
        ({"alpha": 0.0}, "alpha=0.0"),
        ({"estimator": "magic"}, "estimator='magic'"),
        ({"estimator": []}, r"estimator=\[\]"),
        ({"tau": "2"}, "^tau='2'"),
        ({"kind": "plif", "tau": "2"}, "^tau='2'"),
        ({"kind": "plif", "tau": None}, "^tau=None"),
        ({"kind": "psn", "tau": "2"}, "^tau='2'"),
        ({"alpha": "x"}, "^alpha='x'"),
        ({"surrogate": ["sigmoid"]}, r"^surrogate=\['sigmoid'\]"),
        ({"reset": ["hard"]}, r"^reset=\['hard'\]"),
        ({"kind": []}, r"kind=\[\]"),
        ({"detach_reset": "no"}, "^detach_reset='no'"),
        ({"kind": "psn", "detach_reset": "no"}, "^detach_reset='no'"),
    ],
)
def test_configuration_names_a_bad_value(settings, message):
    with pytest.raises(ValueError, match=message):
        create_neuron(**settings)


def test_a_list_is_no_current():
    with pytest.raises(TypeError, match=r"an array \[T, \.\.\.\], got list"):
        lif_scan([1.0, 2.0])
