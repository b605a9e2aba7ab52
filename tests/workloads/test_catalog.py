"""The named workloads, with their networks and optimizers."""

import math

import msgspec
import pytest

from bench.datasets.catalog import DATASETS
from bench.errors import UsageError
from bench.workloads.catalog import MAIN_WORKLOADS, NOTEBOOKS, WORKLOADS, base_name, find_workload, swept

PARAMETERS = {  # weights and biases, counted by hand
    "mnist-softmax": 784 * 10 + 10,
    "mnist-mlp": 784 * 512 + 512 + 512 * 256 + 256 + 256 * 10 + 10,
    "mnist-cnn": 25 * 32 + 32 + 25 * 32 * 64 + 64 + 3136 * 128 + 128 + 128 * 10 + 10,
    "cifar10-softmax": 3072 * 10 + 10,
    "cifar10-mlp": 3072 * 512 + 512 + 512 * 256 + 256 + 256 * 10 + 10,
    "cifar10-cnn": 75 * 64 + 64 + 25 * 64 * 64 + 64 + 4096 * 256 + 256 + 256 * 128 + 128 + 128 * 10 + 10,
}
PARAMETERS |= {name.replace("mnist", "fashion-mnist"): n for name, n in PARAMETERS.items() if "mnist" in name}
PARAMETERS["cifar100-softmax"] = 3072 * 100 + 100
PARAMETERS["cifar100-mlp"] = PARAMETERS["cifar10-mlp"] + 257 * 90
PARAMETERS["cifar100-cnn"] = PARAMETERS["cifar10-cnn"] + 129 * 90


def test_no_other_workload_is_named():
    plain = {name for name in WORKLOADS if name.count("-") < 2 or "fashion" in name}
    assert plain - {notebook.name for notebook in NOTEBOOKS} == set(PARAMETERS)
    assert set(MAIN_WORKLOADS) == {
        f"{data}-{net}" for data in ("mnist", "cifar10") for net in ("softmax", "mlp", "cnn")
    }


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_network_has_as_many_parameters_as_it_should(name):
    workload = WORKLOADS[name]
    shapes = workload.architecture.parameter_shapes(DATASETS[workload.dataset].info)
    assert sum(math.prod(shape) for shape in shapes.values()) == PARAMETERS[name]


@pytest.mark.parametrize("name", PARAMETERS)
def test_a_workload_is_plain_sgd_at_batch_100(name):
    workload = find_workload(name)
    assert workload.name == name == f"{workload.dataset}-{name.rpartition('-')[2]}"
    assert (workload.optimizer.name, workload.optimizer.decay_rate) == ("sgd", 1.0)
    assert workload.batch_size == 100


def test_no_workload_has_a_target_of_its_own():
    assert {workload.target_accuracy for workload in WORKLOADS.values()} == {None}


def test_an_unknown_workload_is_refused_with_the_nearest():
    with pytest.raises(UsageError, match="unknown workload 'mnst-cnn'; did you mean 'mnist-cnn'"):
        find_workload("mnst-cnn")
    with pytest.raises(UsageError, match=r"known: .*mnist-softmax"):
        find_workload("?")


@pytest.mark.parametrize("data", ["mnist", "cifar10"])
@pytest.mark.parametrize("network", ["mlp", "cnn"])
def test_the_pair_that_shows_defaults_differs_only_in_its_name_and_in_matched(data, network):
    same, own = (find_workload(f"{data}-{network}-{kind}") for kind in ("adam", "defaults"))
    assert (same.matched, own.matched) == (True, False)
    assert msgspec.structs.replace(own, name=same.name, matched=True) == same
    assert same.architecture == find_workload(f"{data}-{network}").architecture
    assert not {same.name, own.name} & set(MAIN_WORKLOADS)


def test_a_swept_workload_differs_in_its_batch_and_has_no_target():
    workload = find_workload("mnist-mlp")
    larger = swept(workload, 512)
    assert (larger.name, larger.batch_size, larger.target_accuracy) == ("mnist-mlp@512", 512, None)
    assert msgspec.structs.replace(larger, name="mnist-mlp", batch_size=100, target_accuracy=0.95) == (
        msgspec.structs.replace(workload, target_accuracy=0.95)
    )
    assert base_name(larger.name) == base_name("mnist-mlp") == "mnist-mlp"


NOTEBOOK_OPTIMIZERS = {
    "notebook-one-layer": ("sgd", 0.003),
    "notebook-softmax-plot": ("sgd", 0.005),
    "notebook-cifar-cnn": ("adam", 1e-4),
    "notebook-affine": ("sgd", 1e-4),
    "notebook-convnet": ("rmsprop", 1e-3),
    "notebook-softmax-save": ("sgd", 0.01),
}


def test_the_notebooks_are_as_they_were_specified():
    assert {n.name: (n.optimizer.name, n.optimizer.learning_rate) for n in NOTEBOOKS} == NOTEBOOK_OPTIMIZERS
    for notebook in NOTEBOOKS:
        assert WORKLOADS[notebook.name] is notebook
        assert (notebook.batch_size, notebook.optimizer.decay_rate, notebook.matched) == (100, 1.0, True)
        on_cifar = notebook.dataset == "cifar10"
        assert (notebook.loss, notebook.drawing) == (("mean", "steps") if on_cifar else ("sum", "epochs"))
        assert notebook.held_out == (0 if on_cifar or notebook.name == "notebook-softmax-plot" else 5000)
        assert (notebook.augmentation is not None) == on_cifar
        if on_cifar or notebook.name == "notebook-convnet":
            assert notebook.initialiser.name == "glorot_uniform"
        else:
            assert not notebook.architecture.convs
            assert not notebook.architecture.hidden


def test_the_cifar_notebooks_network_sees_24_pixels_and_normalises_its_first_convolution():
    notebook = WORKLOADS["notebook-cifar-cnn"]
    shapes = notebook.architecture.parameter_shapes(notebook.seen(DATASETS["cifar10"].info))
    assert list(shapes)[:7] == [
        "conv1/kernel", "conv1/scale", "conv1/offset", "conv1/mean", "conv1/variance",
        "conv2/kernel", "conv2/bias",
    ]  # fmt: skip
    assert shapes["dense1/kernel"] == (6 * 6 * 64, 256)
