"""The networks that images are condensed with: a freshly initialised one for each outer iteration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from nasproxy.condensation.condenser import Condenser
from nasproxy.datasets.image_dataset import ImageDataset
from nasproxy.errors import InputError, NasproxyError, SpaceError
from nasproxy.networks.build import build_network
from nasproxy.networks.cost import count_multiply_adds
from nasproxy.networks.materialise import materialise
from nasproxy.networks.names import CONVNET
from nasproxy.spaces.source import SpaceSource, error_text, user_location
from nasproxy.spaces.space import Config

_TIMES_THE_CONVNET = 2.5
_OF_THE_CONVNET = ("width", "depth", "norm", "activation", "pooling")
_TRIES = 100  # different candidates, before none is taken for what there is,
_MORE_TRIES = 10_000  # and in any iteration after one was found


class PaperNetworks:
    """One network of the paper, ever anew, in the variant that images are condensed with.

    Args:
        dataset: that it is for.
        recipe: its ``network``, and what it says of the ConvNet.
        generator: of the initial weights, on the CPU.
        device: where the networks go.
    """

    def __init__(
        self, dataset: ImageDataset, recipe: Condenser, generator: torch.Generator, device: torch.device
    ) -> None:
        self._dataset, self._recipe, self._generator, self._device = dataset, recipe, generator, device

    @contextmanager
    def fresh(self) -> Iterator[nn.Module]:
        """A new network.

        Raises:
            InputError: the images are too small for it.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_seed(self._generator))
            network = self.build(self._recipe.network)
        yield network.to(self._device)

    def state(self) -> dict[str, Tensor]:
        """None besides the generator's."""
        return {}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Nothing to put back."""

    def build(self, name: str) -> nn.Module:
        """One called ``name``, initialised by torch's own random numbers."""
        dataset, recipe = self._dataset, self._recipe
        settings = {what: getattr(recipe, what) for what in _OF_THE_CONVNET} if name == CONVNET else {}
        return build_network(
            name, dataset.channels, dataset.num_classes, dataset.image_size, condensing=True, **settings
        )


class SpaceNetworks:
    """Candidates drawn from a search space, uniformly among the valid ones that are small enough.

    Args:
        source: of the space.
        dataset: that they are for.
        max_multiply_adds: of an image.
        generator: of the draws and the initial weights, on the CPU; only its first number is used, so that the
            networks do not depend on what else is drawn from it between them.
        device: where the networks go.
    """

    def __init__(
        self,
        source: SpaceSource,
        dataset: ImageDataset,
        max_multiply_adds: int,
        generator: torch.Generator,
        device: torch.device,
    ) -> None:
        self._source, self._space = source, source.load()
        self._dataset, self._limit, self._device = dataset, max_multiply_adds, device
        self._generator = torch.Generator().manual_seed(_seed(generator))
        self._refused: set[int] = set()
        self._accepted = False

    @contextmanager
    def fresh(self) -> Iterator[nn.Module]:
        """A new network of a new configuration; what fails in it is an error that names the configuration.

        Raises:
            InputError: none of the first that were drawn is valid and small enough.
            SpaceError: the network cannot be built, or what is done with it in the context cannot be done.
        """
        config, network = self._draw()
        with self._naming(config):
            yield network.to(self._device)

    def state(self) -> dict[str, Tensor]:
        """Of the draws. The refused count too: they are passed over without drawing weights."""
        refused = torch.tensor(sorted(self._refused), dtype=torch.int64)
        return {"generator": self._generator.get_state(), "refused": refused}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Puts it back: as it was after an iteration, which had a network."""
        self._generator.set_state(state["generator"])
        self._refused = set(state["refused"].tolist())
        self._accepted = True

    def _draw(self) -> tuple[Config, nn.Module]:
        size = self._dataset.image_size
        # Where one was accepted there is something to find, and hours of work would be lost.
        most = len(self._refused) + _MORE_TRIES if self._accepted else _TRIES
        while len(self._refused) < min(most, len(self._space)):
            index = int(torch.randint(len(self._space), (), generator=self._generator))
            if index in self._refused:
                continue
            config = self._space[index]
            with self._naming(config):
                network = self._build(config) if self._space.is_valid(dict(config), size) is True else None
                if network and count_multiply_adds(network, self._dataset.channels, size) <= self._limit:
                    self._accepted = True
                    return config, network
            self._refused.add(index)
        raise InputError(
            f"None of {len(self._refused)} candidates drawn from {self._source} is valid at "
            f"{size[0]}×{size[1]} pixels and takes {self._limit:,} multiply-adds an image or less.",
            "Raise --max-multiply-adds, or use --network convnet.",
        )

    def _build(self, config: Config) -> nn.Module:
        dataset = self._dataset
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(_seed(self._generator))
            network = self._space.build(
                dict(config),
                in_channels=dataset.channels,
                num_classes=dataset.num_classes,
                image_size=dataset.image_size,
            )
            two = torch.zeros(2, dataset.channels, *dataset.image_size)
            return materialise(network, two, dataset.num_classes)

    @contextmanager
    def _naming(self, config: Config) -> Iterator[None]:
        try:
            yield
        except (NasproxyError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            reason = error_text(error, user_location(error, self._source))
            raise SpaceError(
                f"No images can be condensed with the candidate {config} of {self._source}: {reason}",
                "Use --network convnet, or exclude the candidate by the space's is_valid.",
            ) from error


def fresh_networks(
    dataset: ImageDataset, recipe: Condenser, generator: torch.Generator, device: torch.device
) -> PaperNetworks | SpaceNetworks:
    """Where the networks of ``recipe`` come from.

    Raises:
        SpaceError: the search space cannot be loaded.
    """
    source = recipe.space_source()
    if source is None:
        return PaperNetworks(dataset, recipe, generator, device)
    limit = recipe.max_multiply_adds or int(_TIMES_THE_CONVNET * _of_the_convnet(dataset, recipe))
    return SpaceNetworks(source, dataset, limit, generator, device)


def check_networks(dataset: ImageDataset, recipe: Condenser) -> None:
    """Makes sure that images can be condensed with the networks of ``recipe``, as far as that is known beforehand.

    Raises:
        InputError: the images are too small for the network.
        SpaceError: the search space cannot be loaded.
    """
    networks = fresh_networks(dataset, recipe, torch.Generator(), torch.device("cpu"))
    if isinstance(networks, PaperNetworks):
        with torch.device("meta"):
            networks.build(recipe.network)


def _of_the_convnet(dataset: ImageDataset, recipe: Condenser) -> int:
    """Its multiply-adds of an image; where that is too small for its poolings, of the smallest that is not."""
    least = 1 if recipe.pooling == "none" else 2**recipe.depth
    height, width = (max(side, least) for side in dataset.image_size)
    settings = {what: getattr(recipe, what) for what in _OF_THE_CONVNET}
    with torch.random.fork_rng(devices=[]):
        convnet = build_network(CONVNET, dataset.channels, dataset.num_classes, (height, width), **settings)
    return count_multiply_adds(convnet, dataset.channels, (height, width))


def _seed(generator: torch.Generator) -> int:
    return int(torch.randint(2**62, (), generator=generator))
