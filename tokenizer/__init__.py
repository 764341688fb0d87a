"""The adaptive-frame-rate tokenizer: a causal 3D VAE."""

from rushes.pipelines import threads

threads.sleep_while_waiting()  # here, since torch must not be loaded before
