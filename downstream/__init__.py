"""Judges encoders by what they transfer to: classification, detection, segmentation."""
