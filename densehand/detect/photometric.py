"""Colours of the detector's training pictures, and the camera's faults: all drawn from the caller's generator."""

import cv2
import numpy as np
from jaxtyping import UInt8

from densehand.detect.data import decoded


def recolour(image: UInt8[np.ndarray, "h w 3"], random: np.random.Generator) -> UInt8[np.ndarray, "h w 3"]:
    """Another exposure, white balance, contrast and black level."""
    gain = random.uniform(0.55, 1.4) * random.uniform(0.88, 1.12, 3)
    gamma = np.exp(random.normal(0, 0.25))
    values = np.linspace(0, 1, 256)[:, None] ** gamma * gain * 255 + random.normal(0, 12)
    table = np.clip(values, 0, 255).astype(np.uint8)
    return cv2.LUT(image, table[None])


def as_photographed(image: UInt8[np.ndarray, "s s 3"], random: np.random.Generator) -> UInt8[np.ndarray, "s s 3"]:
    """The picture as some camera may have taken it: colours, blur, lost resolution, noise and JPEG, each by chance."""
    if random.random() < 0.8:
        image = recolour(image, random)
    u = random.random()
    if u < 0.08:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    elif u < 0.35:
        grey = image.mean(2, keepdims=True)
        image = np.clip(grey + (image - grey) * random.uniform(0.3, 1.6), 0, 255).astype(np.uint8)
    u, size = random.random(), image.shape[0]
    if u < 0.15:
        image = cv2.GaussianBlur(image, (0, 0), random.uniform(0.4, 1.6))
    elif u < 0.25:  # motion
        length = int(random.integers(3, 9))
        kernel = np.zeros((length, length), np.float32)
        angle = random.uniform(0, np.pi)
        step = 0.5 * length * np.array([np.cos(angle), np.sin(angle)])
        middle = np.array([length / 2, length / 2])
        cv2.line(kernel, (middle - step).astype(int).tolist(), (middle + step).astype(int).tolist(), 1.0)
        image = cv2.filter2D(image, -1, kernel / max(kernel.sum(), 1))
    elif u < 0.33:  # a small picture blown up
        less = int(size * random.uniform(0.4, 0.9))
        image = cv2.resize(cv2.resize(image, (less, less), interpolation=cv2.INTER_AREA), (size, size))
    if random.random() < 0.25:
        noise = random.normal(0, random.uniform(2, 12), (size, size, 1 if u < 0.5 else 3))
        image = np.clip(image + noise.astype(np.float32), 0, 255).astype(np.uint8)
    if random.random() < 0.25:
        quality = int(random.integers(25, 90))
        jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        image = decoded(jpeg.tobytes(), cv2.IMREAD_COLOR)
    return image
