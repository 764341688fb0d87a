"""A diffusion transformer on cached latents."""

from rushes.pipelines import threads

threads.sleep_while_waiting()  # here, since torch must not be loaded before
