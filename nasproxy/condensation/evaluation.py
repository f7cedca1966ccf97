"""How good images are while they are being condensed: the test accuracy of the default ConvNet trained on them."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from nasproxy.condensation.condenser import Condenser
from nasproxy.datasets.image_dataset import ImageDataset
from nasproxy.networks.convnet import ConvNet
from nasproxy.seeds import seed_from
from nasproxy.training.on_demand import normalised_on
from nasproxy.training.recipe import TrainingRecipe
from nasproxy.training.strategy import training_with
from nasproxy.training.train import Images, evaluate, train


class Evaluation:
    """Trains the same freshly initialised ConvNet on whatever images it is given, augmented as they are condensed.

    Nothing is drawn from a generator that anybody else draws from, nor as anybody else draws: the teacher of soft
    labels has the same architecture, and would begin with the same weights.

    Args:
        dataset: whose test part is looked at.
        recipe: its ``width`` and ``depth`` are the ConvNet's.
        seed: that the initial weights and the batches follow from.
        device: where to compute.
        precision: ``bfloat16`` or ``float32``.

    Raises:
        InputError: the images are too small for the ConvNet.
    """

    epochs = 300
    """Of each training: the paper's, appendix A."""

    def __init__(
        self, dataset: ImageDataset, recipe: Condenser, *, seed: int, device: torch.device, precision: str
    ) -> None:
        self._dataset, self._recipe = dataset, recipe
        self._seed = seed_from(f"{seed} evaluation")
        self._device, self._precision = device, precision
        self._network()

    def accuracy(
        self,
        images: Float[Tensor, "n c h w"],
        labels: Int64[Tensor, " n"],
        soft_labels: Float[Tensor, "n classes"] | None = None,
    ) -> float:
        """On the test part, as a fraction; 0 where the training diverges."""
        network = self._network().to(self._device)
        given = Images(images.detach().clone(), labels, soft_labels)
        kinds = self._recipe.augmentations(self._dataset)
        recipe = TrainingRecipe(self.epochs, augmentation=training_with(kinds))
        train(network, given, recipe, None, seed=self._seed, precision=self._precision)
        pixels = normalised_on(self._device, self._dataset.test.images, self._dataset.normalisation)
        test = Images(pixels, self._dataset.test.labels.to(self._device))
        return evaluate(network, test, epoch=self.epochs, precision=self._precision).accuracy

    def _network(self) -> ConvNet:
        dataset, recipe = self._dataset, self._recipe
        with torch.random.fork_rng(devices=[self._device] if self._device.type == "cuda" else []):
            torch.manual_seed(self._seed)
            return ConvNet(
                dataset.channels, dataset.num_classes, dataset.image_size, width=recipe.width, depth=recipe.depth
            )
