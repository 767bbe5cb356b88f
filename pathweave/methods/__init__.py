"""Ways of learning the next modality, one file each."""
