"""What an image backbone may ask of a signature."""

from levelhead.likelihood import Signature


def image_shape(signature: Signature, *, spec: str, smallest: int = 1) -> tuple[int, int, int]:
    """(channels, height, width) of the inputs.

    Raises ValueError, in the name of `spec`, for inputs that are no images or are less than `smallest` pixels a side.
    """
    shape = signature.input_shape
    if len(shape) != 3:
        raise ValueError(
            f"{spec} reads images (channel, height, width); this task's inputs have shape {shape}. "
            "For tables of features use MLP()"
        )
    channels, height, width = shape
    if min(height, width) < smallest:
        raise ValueError(f"{spec} wants images of at least {smallest} x {smallest} pixels, got {height} x {width}")
    return channels, height, width
