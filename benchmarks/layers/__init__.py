"""A file per layer: forward in every mode, gradients in mode "auto", and the single step."""
