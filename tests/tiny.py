"""The small dataset of the test kit, under the name that the tests know it by."""

from nasproxy.testing.data import tiny_dataset, with_other_held_out_images

__all__ = ["tiny_dataset", "with_other_held_out_images"]
