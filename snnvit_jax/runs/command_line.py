"""The flags of a command line, parsed; what does not fit is said in one line."""

import ast
import re
import sys

from absl import flags

from snnvit_jax.runs import shipped

_BAD_INPUT = (OSError, TypeError, ValueError)


def parse_flags(argv):
    """Parses the command line; what the configuration file or a key does not allow ends here.

    Args:
      argv: [program, argument, ...].

    Returns:
      What absl leaves over; the program's name first.

    Raises:
      SystemExit: for what does not fit, after the line that names it, with the exit status 2.
    """
    names = [argument.lstrip("-").partition("=")[0] for argument in argv[1:]]
    override = next((name for name in names if name.startswith("config.")), None)
    if override and "config" not in names:
        sys.exit(fail(f"--{override} changes a configuration file: give it too, as --config=FILE"))
    try:
        return flags.FLAGS([located(argument) for argument in argv])
    except FileNotFoundError as error:
        sys.exit(fail(error))
    except flags.Error as error:
        sys.exit(fail(_one_line(error)))
    except AttributeError as error:
        sys.exit(fail(f"in the configuration: no key {_one_line(error)}"))
    except (ArithmeticError, ImportError, LookupError, SyntaxError, *_BAD_INPUT) as error:
        sys.exit(fail(f"in the configuration: {_one_line(error)}"))


def located(argument):
    """Returns an argument with a file in place of what is given as --config.

    Args:
      argument: of the command line; as --config, a path with "~", or a name that is shipped.

    Raises:
      FileNotFoundError: see `shipped.locate`.
    """
    flag, sign, value = argument.partition("=")
    if flag in ("--config", "-config") and sign:
        return f"{flag}={shipped.locate(value)}"
    return argument


def fail(message, status=2):
    """Prints an error and returns the exit status.

    Args:
      message: what is wrong.
      status: 2 for bad input.
    """
    print(f"error: {message}", file=sys.stderr)
    return status


def _one_line(error):
    """What an error says, in one line: of a traceback in a configuration file, its end."""
    text = str(error)
    if text[:1] in ("'", '"') and text[-1:] == text[0]:  # of a lookup: as Python writes it
        text = ast.literal_eval(text)
    places = re.findall(r'File "(.*)", line (\d+)', text)
    where = f" ({places[-1][0]}, line {places[-1][1]})" if places else ""
    lines = text.strip().splitlines() or [type(error).__name__]
    return " ".join(dict.fromkeys((lines[0], lines[-1]))) + where
