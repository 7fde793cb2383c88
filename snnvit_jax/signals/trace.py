"""Which layer listens to which: the nodes of one forward pass, noted while it is traced."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Node:
    """One operation on signals.

    Attributes:
      operation: "image", "linear", "norm", "scale", "map", "sum", "product", "neuron" or "readout".
      path: name of the layer, "a/b"; empty for an operation that belongs to none.
      inputs: numbers of the nodes it reads.
      shape: of its values at one time step of one example.
      details: what else is known of it, by operation:
        image, sum: nothing;
        linear: "function" of (values, kernel), "kernel", and "bias", or None for none;
        norm: "scale", "bias", "mean", "var", all [C], and "pad", pixels around the image;
        scale: "factor", a number, or "function" and its "numbers", which give it;
        map: "function" of the values;
        product: "function" of the values of all inputs;
        neuron: "neuron", its "threshold", and "parameters" of its own by name;
        readout: "function", the mean of the values over space, and "weights" by name: "kernel" and,
          if it has one, "bias".
    """

    operation: str
    path: str
    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    details: dict


class Tracer:
    """Notes the nodes of a forward pass whose input carries it.

    Attributes:
      nodes: list of `Node`, each after those that it reads.
    """

    def __init__(self):
        """Starts without nodes."""
        self.nodes = []

    def add(self, operation, path, inputs, shape, details):
        """Notes a node and returns its number.

        Args:
          operation: see `Node`.
          path: a module's path, a tuple.
          inputs: numbers of nodes.
          shape: of one time step of one example.
          details: see `Node`.
        """
        self.nodes.append(Node(operation, "/".join(path), tuple(inputs), tuple(shape), details))
        return len(self.nodes) - 1

    def consumers(self, number):
        """Returns the numbers of the nodes that read a node.

        Args:
          number: of the node.
        """
        return [i for i, node in enumerate(self.nodes) if number in node.inputs]
