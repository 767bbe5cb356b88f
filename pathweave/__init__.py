"""PathWeave: add senses to a pretrained vision language model, one at a time."""
