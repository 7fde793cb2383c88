"""Tables in Markdown."""


def table(head, rows, left=1):
    """Returns a table in Markdown; each line ends with a newline.

    Args:
      head: titles of the columns, text.
      rows: of the table, each as many cells as the head has; whatever they are, as text.
      left: so many of the first columns are aligned left, the others right.
    """
    lines = [head, ["---"] * left + ["---:"] * (len(head) - left), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)
