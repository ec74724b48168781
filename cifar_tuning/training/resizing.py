"""Progressive resizing: small images while little is known, whole ones at the end."""

from collections.abc import Callable

# Pixels by which the sides grow: a model's pooling halves them twice, and cuDNN measures every new size.
STEP = 4
# Shares of the epochs this close are equal: 1 - 0.7 is more than 3/10 in binary fractions.
ROUNDING = 1e-9


def sides(
    image_shape: tuple[int, int], epochs: int, initial_scale: float, delay_fraction: float, finetune_fraction: float
) -> Callable[[int], tuple[int, int]]:
    """Returns the height and width of the training images of an epoch (from 1), in pixels.

    The scale stays `initial_scale` for a share of the epochs, then grows evenly, and is 1 for the last share: Howard
    2018 ("Training Imagenet in 3 hours for USD 25", fast.ai), with the parameters of Composer's ProgressiveResizing.

    Args:
        image_shape: height and width of the whole images.
        epochs: of the run.
        initial_scale: above 0, at most 1.
        delay_fraction: share of the epochs with the initial scale, 0 to 1.
        finetune_fraction: share of the epochs with whole images, 0 to 1; of a share above 0 at least the last epoch.
    """
    growing = 1 - delay_fraction - finetune_fraction

    def side(epoch: int) -> tuple[int, int]:
        done = min(max((epoch - 1) / epochs, 0.0), 1.0)
        # The share may be less than an epoch; the last one is of whole images all the same, as those are that validate.
        if done >= 1 - finetune_fraction - ROUNDING or (finetune_fraction > 0 and epoch >= epochs):
            return image_shape
        grown = max(done - delay_fraction, 0.0) / growing if growing > 0 else 0.0
        scale = initial_scale + (1 - initial_scale) * grown
        height, width = (min(max(round(whole * scale / STEP), 1) * STEP, whole) for whole in image_shape)
        return height, width

    return side
