"""Run by test_notebook.py in a process of its own: executes a notebook's code cells in order.

What the cells display is noted and printed as the last line, as [[kind, content], ...]; Jupyter is
not needed. Lines that only Jupyter understands (% and !) are left out.
"""

import json
import pathlib
import sys
import types

SHOWN = []


def display_module():
    """Returns a stand-in for IPython.display that notes what is shown."""
    module = types.ModuleType("IPython.display")
    module.HTML = lambda data: ("html", data)
    module.Image = lambda filename: ("image", filename)
    module.display = display
    return module


class Handle:
    """What display returns for a place of its own, which later figures replace."""

    def update(self, figure):
        lines = sum(len(axes.lines[0].get_xdata()) for axes in figure.axes)
        SHOWN.append(("update", lines))


def display(*shown, display_id=False):
    """Notes what is shown; of a place that is drawn again, only how often."""
    if display_id:
        return Handle()
    SHOWN.extend(shown)


def code_cells(path):
    """Returns the code cells' text, without the lines for Jupyter."""
    cells = json.loads(pathlib.Path(path).read_text())["cells"]
    texts = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    return [
        "\n".join(line for line in text.splitlines() if not line.startswith(("%", "!")))
        for text in texts
    ]


def main(path):
    sys.modules["IPython"] = types.ModuleType("IPython")
    sys.modules["IPython"].version_info = (9, 0)  # Matplotlib asks for it, and for a shell
    sys.modules["IPython"].get_ipython = lambda: None
    sys.modules["IPython.display"] = display_module()
    namespace = {"__name__": "__main__"}
    for number, text in enumerate(code_cells(path)):
        exec(compile(text, f"{path}, code cell {number}", "exec"), namespace)
    print(json.dumps(SHOWN))


if __name__ == "__main__":
    main(sys.argv[1])
