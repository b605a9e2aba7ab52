"""The training loops that one would write in PyTorch by hand for a network, with no harness around them."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value
from torch.nn.functional import cross_entropy

Params = dict[str, np.ndarray]
Pictures = tuple[Tensor, Tensor]
Train = Callable[[np.ndarray], np.ndarray]
"""From int32 (steps, batch) to the loss of every step."""


def on_device(images: np.ndarray, labels: np.ndarray) -> Pictures:
    """Scaled once, kept as float32: (n, channels, height, width), channels last in memory."""
    return torch.tensor(images).permute(0, 3, 1, 2).float().div_(255), torch.tensor(labels).long()


def eager(params: Params, rate: float, pictures: Pictures, *, model_compiled: bool = False) -> Train:
    """As the tutorials teach it, but for the fused update and maybe `torch.compile(model)`."""
    network = make_network(params, pictures)
    if model_compiled:
        network = torch.compile(network, dynamic=False, fullgraph=True)
    optimizer = torch.optim.SGD(network.parameters(), lr=rate, fused=True)
    x, y = pictures

    def train(order: np.ndarray) -> np.ndarray:
        losses = []
        for batch in torch.from_numpy(order):
            optimizer.zero_grad()
            loss = cross_entropy(network(x.index_select(0, batch)), y.index_select(0, batch))
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses).numpy()

    return train


def compiled(params: Params, rate: float, pictures: Pictures) -> Train:
    """A whole step compiled."""
    step, parameters = whole_step(params, rate, pictures)
    compiled_step = torch.compile(step, dynamic=False, fullgraph=True)
    x, y = pictures

    def train(order: np.ndarray) -> np.ndarray:
        losses = []
        for batch in torch.from_numpy(order):
            losses.append(compiled_step(parameters, x.index_select(0, batch), y.index_select(0, batch)))
        return torch.stack(losses).numpy()

    return train


def compiled_in_fours(params: Params, rate: float, pictures: Pictures) -> Train:
    """Four steps to a compiled call; what is left over, step by step."""
    step, parameters = whole_step(params, rate, pictures)
    x, y = pictures

    def four(parameters: dict[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
        batches = zip(images.chunk(4), labels.chunk(4), strict=True)
        return torch.stack([step(parameters, *batch) for batch in batches])

    compiled_step = torch.compile(step, dynamic=False, fullgraph=True)
    compiled_four = torch.compile(four, dynamic=False, fullgraph=True)

    def train(order: np.ndarray) -> np.ndarray:
        losses = []
        for batches in torch.from_numpy(order).split(4):
            if len(batches) == 4:
                rows = batches.flatten()
                losses.append(compiled_four(parameters, x.index_select(0, rows), y.index_select(0, rows)))
            else:
                for batch in batches:
                    loss = compiled_step(parameters, x.index_select(0, batch), y.index_select(0, batch))
                    losses.append(loss[None])
        return torch.cat(losses).numpy()

    return train


def whole_step(params: Params, rate: float, pictures: Pictures):
    """Return a step as a function of the parameters, which it changes, and a batch; and the parameters."""
    network = make_network(params, pictures)

    def loss_of(parameters: dict[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(functional_call(network, parameters, (images,)), labels)

    def step(parameters: dict[str, Tensor], images: Tensor, labels: Tensor) -> Tensor:
        gradients, loss = grad_and_value(loss_of)(parameters, images, labels)
        for name, parameter in parameters.items():
            parameter.sub_(gradients[name], alpha=rate)
        return loss

    return step, {name: parameter.detach() for name, parameter in network.named_parameters()}


def make_network(params: Params, pictures: Pictures) -> nn.Sequential:
    """Return the network whose layers these parameters name, and give it them."""
    layers: list[nn.Module] = []
    _, channels, height, width = pictures[0].shape
    for name, kernel in params.items():
        if name.startswith("conv") and name.endswith("kernel"):
            conv = nn.Conv2d(channels, kernel.shape[3], kernel.shape[0], padding=kernel.shape[0] // 2)
            set_layer(conv, kernel.transpose(3, 2, 0, 1), params[name.replace("kernel", "bias")])
            layers += [conv, nn.ReLU(), nn.MaxPool2d(2)]
            channels, height, width = kernel.shape[3], height // 2, width // 2
        elif name.endswith("kernel"):
            if not any(isinstance(layer, nn.Linear) for layer in layers):
                layers.append(nn.Flatten())  # channel by channel, where the parameters go pixel by pixel
                rows = np.arange(len(kernel)).reshape(height, width, channels).transpose(2, 0, 1).ravel()
            else:
                rows = np.arange(len(kernel))
            dense = nn.Linear(*kernel.shape)
            set_layer(dense, kernel[rows].T, params[name.replace("kernel", "bias")])
            layers += [dense, nn.ReLU()]
    return nn.Sequential(*layers[:-1]).to(memory_format=torch.channels_last)


def set_layer(layer: nn.Conv2d | nn.Linear, kernel: np.ndarray, bias: np.ndarray) -> None:
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(kernel.copy()))
        layer.bias.copy_(torch.tensor(bias))


LOOPS = {
    "eager": eager,
    "compile-model": partial(eager, model_compiled=True),
    "compile-step": compiled,
    "compile-loop": compiled_in_fours,
}
