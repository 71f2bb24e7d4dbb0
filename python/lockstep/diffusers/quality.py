"""Figures for a picture's quality, each 0..10 and rounded to two places.

They are plain signal measures, no judgement of taste: what is clipped, flat or blurred scores low.
"""

import math

import numpy as np

# Standard deviation of luma, of 255, at which the contrast counts as full.
_FULL_CONTRAST = 50.0
# Mean step between neighbouring pixels' luma at which half of the detail score is reached.
_HALF_DETAIL = 3.0


def _luma(image: np.ndarray) -> np.ndarray:
    return image.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)


def technical_quality(image: np.ndarray) -> float:
    """10 * (0.6 * share of channel values that are neither 0 nor 255 + 0.4 * contrast).

    Contrast is the standard deviation of luma over 50, at most 1.
    """
    clipped = float(np.mean((image == 0) | (image == 255)))
    contrast = min(1.0, float(_luma(image).std()) / _FULL_CONTRAST)
    return round(10 * (0.6 * (1 - clipped) + 0.4 * contrast), 2)


def visual_quality(image: np.ndarray) -> float:
    """10 * (0.5 * entropy + 0.5 * detail).

    Entropy is that of the luma histogram, in bits, over 8. Detail is g / (g + 3) where g is the mean
    absolute step of luma between neighbours across and down.
    """
    luma = _luma(image)
    counts = np.bincount(np.clip(luma, 0, 255).astype(np.uint8).ravel(), minlength=256)
    shares = counts[counts > 0] / luma.size
    entropy = float(-(shares * np.log2(shares)).sum()) / 8
    steps = [np.abs(np.diff(luma, axis=axis)).mean() for axis in (0, 1) if luma.shape[axis] > 1]
    detail = float(np.mean(steps)) if steps else 0.0
    return round(10 * (0.5 * entropy + 0.5 * detail / (detail + _HALF_DETAIL)), 2)


def enhancement_effectiveness(source: np.ndarray, result: np.ndarray) -> float:
    """10 * fidelity * gain: how much was added without losing what was there.

    Gain is the share of the result's pixels that the source did not have, 0 when nothing was
    enlarged. Fidelity compares the source with the result averaged down to its size: 0 at a
    signal-to-noise ratio of 20 dB, 1 from 40 dB on. 0 when the result is no whole multiple.
    """
    height, width = source.shape[:2]
    down, across = result.shape[0] // height, result.shape[1] // width
    if (height * down, width * across) != result.shape[:2] or down * across < 2:
        return 0.0
    averaged = result.reshape(height, down, width, across, 3).mean(axis=(1, 3), dtype=np.float32)
    error = float(np.mean((averaged - source) ** 2))
    ratio = 10 * math.log10(255**2 / max(error, 1e-6))
    fidelity = min(1.0, max(0.0, (ratio - 20) / 20))
    return round(10 * fidelity * (1 - 1 / (down * across)), 2)


def result_quality_score(image: np.ndarray) -> float:
    """The mean of technical_quality and visual_quality."""
    return round((technical_quality(image) + visual_quality(image)) / 2, 2)
