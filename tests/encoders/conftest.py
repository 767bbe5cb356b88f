import pytest
import torch
from safetensors.torch import save_file


@pytest.fixture
def random_weights(tmp_path_factory):
    """Return a function that writes a network's random weights and returns their directory."""

    def write(network):
        directory = tmp_path_factory.mktemp("weights")
        generator = torch.Generator().manual_seed(0)
        state = {
            key: value + 0.1 * torch.rand(value.shape, generator=generator)
            for key, value in network.state_dict().items()
            if not key.endswith("num_batches_tracked")
        }
        save_file(state, directory / "model.safetensors")
        return directory

    return write
