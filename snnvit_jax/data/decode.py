"""Decoding of image files."""


class DamagedImageError(ValueError):
    """An image that cannot be decoded, named in the message."""
