"""An encoder of one's own: how strongly each channel of a recording swings at each frequency."""

import torch

from pathweave.encoders.media import Series


class Spectrum:
    """Reads recordings; gives a token a channel, the logarithm of its spectrum in bands."""

    accepts = Series

    def __init__(self, bands: int = 32) -> None:
        self.width = bands
        self.fingerprint = f"spectrum-1 bands={bands}"

    def __call__(self, media):
        """Return ``[windows, channels, bands]`` for each recording."""
        features = []
        for recording in media:
            values = torch.from_numpy(recording.values).nan_to_num().transpose(1, 2)
            spectrum = torch.fft.rfft(values - values.mean(2, keepdim=True)).abs()
            bands = torch.nn.functional.adaptive_avg_pool1d(spectrum, self.width)
            features.append((bands + 1e-6).log())
        return features
