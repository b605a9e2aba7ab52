"""The backends and their modes; to read this imports no framework."""

from backends.info import BackendInfo, LessonsInfo, Mode, UnsupportedGpus
from bench.workloads.specs import Precision

NUMPY = BackendInfo(
    name="numpy",
    title="NumPy",
    target="backends.numpy_backend:NumpyBackend",
    distributions=("numpy",),
    modes=(
        Mode(
            name="float64",
            summary="the reference: plain NumPy in double precision",
            default=True,
            augments=True,
        ),
    ),
    cpu_precisions=("fp32",),
    gpu_precisions=(),
    reference=True,
)

TENSORFLOW = BackendInfo(
    name="tensorflow",
    title="TensorFlow",
    target="backends.tensorflow_backend:TensorFlowBackend",
    distributions=("tensorflow|tensorflow-cpu", "keras"),
    modes=(
        Mode(
            name="graph",
            summary="a step is one call of a tf.function",
            default=True,
            augments=True,
            runner="backends.tensorflow_backend:GraphRunner",
        ),
        Mode(
            name="graph-loop",
            summary="many steps are one call: the loop is inside the tf.function",
            runner="backends.tensorflow_loops:GraphLoopRunner",
        ),
        Mode(
            name="xla",
            summary="as graph, compiled by XLA (jit_compile=True)",
            augments=True,
            runner="backends.tensorflow_backend:XlaRunner",
        ),
        Mode(
            name="xla-loop",
            summary="graph-loop compiled by XLA, up to 100 steps to a call (CNN on a CPU: 4, GPU: 16)",
            runner="backends.tensorflow_loops:XlaLoopRunner",
        ),
        Mode(
            name="tf-data-batches",
            summary="graph, its batches through tf.data, made a batch at a time",
            pipeline=True,
            runner="backends.tensorflow_pipeline:BatchesRunner",
        ),
        Mode(
            name="tf-data-samples",
            summary="graph, its batches through tf.data, made sample by sample",
            pipeline=True,
            runner="backends.tensorflow_pipeline:SamplesRunner",
        ),
        Mode(
            name="multi-worker",
            summary="graph in every process of a MultiWorkerMirroredStrategy",
            augments=True,
            distributed=True,
            runner="backends.tensorflow_multi_worker:MultiWorkerRunner",
        ),
        Mode(
            name="tutorial",
            summary="the loop of TensorFlow's quickstart for experts, with tf.data and nothing tuned",
            level="taught",
            pipeline=True,
            runner="backends.tensorflow_tutorial:TutorialRunner",
        ),
    ),
    environment={
        "KERAS_BACKEND": "tensorflow",  # Keras would otherwise pick its engine from a file in the home folder
        "KERAS_HOME": "{scratch}/keras",  # and write that file when imported
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "TF_FORCE_GPU_ALLOW_GROWTH": "true",  # else TensorFlow takes all of the GPU's memory when it starts
    },
    caching_environment={"TF_XLA_FLAGS": "--tf_xla_persistent_cache_directory={compiled}"},
    unsupported_gpus=(
        UnsupportedGpus(
            versions="<=2.21.0",
            compute_capability=(12, 0),
            why="it is built with CUDA 12.5, which cannot compile for these GPUs",
            links=tuple(
                f"https://github.com/tensorflow/tensorflow/issues/{number}"
                for number in (111958, 101746, 89272)
            ),
            remedy="Leave TensorFlow out (--backend torch --backend jax), measure the CPU (BENCH_GPU=0), or "
            "name the Python of a build that supports the GPU, such as NVIDIA's (--python tensorflow=PATH).",
        ),
    ),
    lessons=LessonsInfo(
        target="backends.tensorflow_lessons:TensorFlowLessons", network="make_network", step="train_step"
    ),
    # tensorflow/core/common_runtime/process_util.cc; code compiled by XLA runs in the pool of the first.
    thread_variables=("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"),
)

TORCH = BackendInfo(
    name="torch",
    title="PyTorch",
    target="backends.torch_backend:TorchBackend",
    distributions=("torch",),
    modes=(
        Mode(
            name="eager",
            summary="the loop with torch.optim, not compiled; images on the device, optimizer fused",
            default=True,
            augments=True,
            runner="backends.torch_backend:Eager",
        ),
        Mode(
            name="compile-model",
            summary="eager with torch.compile(model): loss and update are not compiled",
            augments=True,
            runner="backends.torch_compiled:CompileModel",
        ),
        Mode(
            name="compile-step",
            summary="a whole step compiled by torch.compile, its update too",
            runner="backends.torch_compiled:CompileStep",
        ),
        Mode(
            name="compile-loop",
            summary="as compile-step, four steps to a call",
            runner="backends.torch_compiled:CompileLoop",
        ),
        Mode(
            name="reduce-overhead",
            summary="compile-step with mode='reduce-overhead': PyTorch records it as a CUDA graph",
            devices=("gpu",),
            runner="backends.torch_compiled:ReduceOverhead",
        ),
        Mode(
            name="cuda-graphs",
            summary="the program of compile-step, eight steps of it captured by hand as a CUDA graph",
            devices=("gpu",),
            runner="backends.torch_graphs:CudaGraphs",
        ),
        Mode(
            name="channels-first",
            summary="eager, its images and kernels in contiguous memory instead of channels-last",
            augments=True,
            devices=("gpu",),
            runner="backends.torch_backend:ChannelsFirst",
        ),
        Mode(
            name="dataloader-samples",
            summary="eager, batches from a DataLoader without worker processes, made sample by sample",
            pipeline=True,
            runner="backends.torch_pipeline:SampleLoader",
        ),
        Mode(
            name="dataloader-batches",
            summary="eager, batches from a DataLoader without worker processes, made a batch at a time",
            pipeline=True,
            runner="backends.torch_pipeline:BatchLoader",
        ),
        Mode(
            name="ddp",
            summary="eager in every process, gradients combined by DistributedDataParallel",
            augments=True,
            distributed=True,
            runner="backends.torch_ddp:Ddp",
        ),
        Mode(
            name="tutorial",
            summary="the loop of PyTorch's quickstart: torchvision's data set, DataLoader and its defaults",
            level="taught",
            pipeline=True,
            runner="backends.torch_tutorial:Tutorial",
        ),
    ),
    lessons=LessonsInfo(target="backends.torch_lessons:TorchLessons", network="Network", step="train_step"),
    environment={"TORCHINDUCTOR_CACHE_DIR": "{compiled}"},  # else the user's own, which may hold programs
    building="As of version 2.13, PyTorch imports its compiler when a program makes its first optimizer. "
    "That takes about as long as importing torch, and counts as building, also where nothing is compiled.",
)

JAX = BackendInfo(
    name="jax",
    title="JAX",
    target="backends.jax_backend:JaxBackend",
    distributions=("jax", "jaxlib", "flax", "optax"),
    modes=(
        Mode(
            name="jit",
            summary="a step is one call of a jitted function, its state donated",
            default=True,
            augments=True,
            runner="backends.jax_backend:Jit",
        ),
        Mode(
            name="loop",
            summary="up to 100 steps to a call, in a loop of jax.lax (CNN on a CPU: 4, GPU: 16)",
            runner="backends.jax_loop:Loop",
        ),
        Mode(
            name="grain-samples",
            summary="jit, its batches through Grain, made sample by sample",
            pipeline=True,
            runner="backends.jax_pipeline:GrainSamples",
        ),
        Mode(
            name="grain-batches",
            summary="jit, its batches through Grain, made a batch at a time",
            pipeline=True,
            runner="backends.jax_pipeline:GrainBatches",
        ),
        Mode(
            name="mesh",
            summary="jit over a mesh of all processes, the batch sharded along it",
            augments=True,
            distributed=True,
            runner="backends.jax_mesh:Mesh",
        ),
        Mode(
            name="tutorial",
            summary="the loop of Flax's MNIST tutorial (nnx.jit, nnx.Optimizer), batches from Grain",
            level="taught",
            pipeline=True,
            runner="backends.jax_tutorial:Tutorial",
        ),
    ),
    lessons=LessonsInfo(target="backends.jax_lessons:JaxLessons", network="Network", step="train_step"),
    environment={"XLA_PYTHON_CLIENT_PREALLOCATE": "false"},  # else JAX takes 75 % of the GPU's memory
    cpu_environment={"JAX_PLATFORMS": "cpu"},
    caching_environment={
        "JAX_COMPILATION_CACHE_DIR": "{compiled}",
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",  # by default JAX keeps only what takes a second
    },
    thread_variables=("NPROC",),  # DefaultThreadPoolSize in xla/pjrt/utils.cc; no flag of XLA sets it
)


def _keras(
    engine: BackendInfo,
    *,
    target: str = "backends.keras_backend:KerasBackend",
    start_s: float = 0.0,
    gpu_precisions: tuple[Precision, ...] = (),
) -> BackendInfo:
    """Return Keras on an engine, as a backend of its own.

    On a GPU `target` has to set the engine's own switches for TF32, which Keras leaves alone.
    """
    return BackendInfo(
        name=f"keras-{engine.name}",
        title=f"Keras on {engine.title}",
        target=target,
        distributions=("keras", engine.distributions[0]),
        modes=(
            Mode(
                name="fit",
                summary="compile and fit, as Keras's users train",
                level="taught",
                default=True,
                pipeline=True,
                start_s=start_s,
            ),
        ),
        environment={**engine.environment, **TENSORFLOW.environment, "KERAS_BACKEND": engine.name},
        cpu_environment=engine.cpu_environment,
        caching_environment=engine.caching_environment,
        thread_variables=engine.thread_variables,
        gpu_precisions=gpu_precisions,
        on_request=True,
        engine=engine.name,
    )


KERAS_TENSORFLOW = _keras(
    TENSORFLOW,
    target="backends.keras_tensorflow:KerasTensorFlowBackend",
    start_s=0.07,  # each `fit` builds a tf.data graph and traces three functions
    gpu_precisions=TENSORFLOW.gpu_precisions,
)
KERAS_TORCH, KERAS_JAX = _keras(TORCH), _keras(JAX)
