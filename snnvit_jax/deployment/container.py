"""The file format of deployed models: one line of text, then a zip archive.

The line holds the format's version and the SHA-256 of the archive, so that no damage goes
unnoticed. `unzip` and `python -m zipfile` skip the line.
"""

import hashlib
import io
import json
import pathlib
import re
import zipfile

from snnvit_jax.common import files

FORMAT = 1
_HEADER = re.compile(rb"snnvit_jax deployed model, format (\d+), sha256 ([0-9a-f]{64})\n")
_HEADER_LIMIT = 200  # bytes


def write(path, parts):
    """Writes a file such that a reader, or a crash, never sees half of it.

    Args:
      path: file to write; its folder must exist.
      parts: {name: bytes}.
    """
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as file:
        for name, content in parts.items():
            file.writestr(zipfile.ZipInfo(name), content)  # no date: same model, same file
    content = archive.getvalue()
    digest = hashlib.sha256(content).hexdigest()
    header = f"snnvit_jax deployed model, format {FORMAT}, sha256 {digest}\n"
    files.write_bytes(path, header.encode() + content)


def read(path):
    """Reads a file written by `write`.

    Args:
      path: the file.

    Returns:
      {name: bytes}.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: naming the file, if it is of another kind or format, or damaged.
    """
    content = pathlib.Path(path).read_bytes()
    header = _HEADER.match(content[:_HEADER_LIMIT])
    if header is None:
        raise ValueError(f"{str(path)!r} is not a deployed model of snnvit_jax, or damaged")
    version, digest = int(header[1]), header[2].decode()
    if version != FORMAT:
        raise ValueError(
            f"{str(path)!r} has format {version}, this version of snnvit_jax reads {FORMAT}: "
            "export the model again or use the version that wrote it"
        )
    archive = content[header.end() :]
    if hashlib.sha256(archive).hexdigest() != digest:
        raise ValueError(
            f"{str(path)!r} is damaged: its {len(archive)} bytes do not have the SHA-256 {digest} "
            "that it states; copy or export it again"
        )
    with zipfile.ZipFile(io.BytesIO(archive)) as file:
        return {name: file.read(name) for name in file.namelist()}


def pack_json(value):
    """Returns a plain value as JSON in UTF-8.

    Args:
      value: of dictionaries, lists, strings and numbers.
    """
    return (json.dumps(value, indent=1) + "\n").encode()
