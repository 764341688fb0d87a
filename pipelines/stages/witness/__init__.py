"""TransNetV2 on what the scan leaves in doubt."""
