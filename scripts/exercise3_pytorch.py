#!/usr/bin/env python3
"""Exercise 3 as in ``exercise3.py``, but trained by PyTorch with conv2d, autograd and torch.optim.SGD.

``benchmark.py`` uses this script to compare whole runs. It has the same
options, runs, data, histories, tables and figures, but uses none of cyconv's
kernels.
"""

import os
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))  # which python -P leaves out

import numpy as np
import torch
from peers.case import Case, Data
from peers.torch_peer import AutogradPeer, evaluate

from cyconv.datasets import Normalizer
from cyconv.experiments import Result, cli, describe_data, over_seeds
from cyconv.experiments.commands import exercise3
from cyconv.experiments.executors import map_unordered
from cyconv.experiments.output_folder import OutputFolder
from cyconv.experiments.usage import usage
from cyconv.history import History

OUTPUT = "results/exercise3-pytorch"


def main(argv=None):
    arguments = exercise3.parse(["--output", OUTPUT, *(sys.argv[1:] if argv is None else argv)], resumable=False)
    source, data = cli.load_data(arguments)
    cli.check_like_cifar10(data, arguments)
    parts = exercise3.chosen_parts(arguments)
    with usage(n_seeds="--seeds"):
        runs = [run for part in parts.values() for run in over_seeds(part, cli.n_seeds(arguments))]
    configuration = cli.configuration("exercise3_pytorch", arguments, runs, data)
    folder = OutputFolder(arguments.output, configuration, overwrite=arguments.overwrite)
    if folder.results:
        return folder.report()
    ordered, make_executor, threads = cli.plan_workers(runs, arguments)
    results = []
    for _, result in map_unordered(load_and_train, [(run, source, threads) for run in ordered], make_executor):
        results.append(result)
        print(
            f"{result.run.label}, seed {result.run.seed}: test accuracy {100 * result.test['accuracy']:.2f} %, "
            f"{result.history.training_time:.1f} s",
            flush=True,
        )
    results.sort(key=lambda result: runs.index(result.run))
    sections = exercise3.write_parts(parts, results, data, folder, arguments)
    remarks = cli.timing_remarks(arguments)
    return cli.write_report("Exercise 3 in PyTorch", configuration, sections, results, data, source, folder, 0, remarks)


def load_and_train(run, source, threads):
    """Load the data in the current process and train one run."""
    if threads is not None:
        torch.set_num_threads(threads)
    return train(run, source.load())


def train(run, data):
    """Train one run, and log it at the same steps as `cyconv.CyclicTrainer`."""
    started = time.perf_counter()
    schedule, history = run.schedule(), History()
    case = Case(run.filter_size, run.n_filters, (run.n_hidden,), run.batch_size)
    normalizer = Normalizer.fit(data.train.images)
    training = Data(data.train.images, data.train.labels.astype(np.int64), normalizer)
    model = AutogradPeer(case, training, channels_last=False, precision="highest")
    model.set_parameters(case.starting_parameters(run.seed))
    validation, test = (tensors(split, normalizer) for split in (data.validation, data.test))
    evaluated = (model.images[: run.n_train_evaluated], model.labels[: run.n_train_evaluated]), validation
    generator = np.random.default_rng(run.seed)
    n, per_epoch = len(data.train), len(data.train) // run.batch_size
    rates = schedule(np.arange(schedule.total_steps))
    step = 0
    while True:
        if step % run.log_every == 0 or step == schedule.total_steps:
            log(history, step, schedule(step), model, evaluated, run.l2)
        if step == schedule.total_steps:
            break
        if step % per_epoch == 0:
            order = generator.permutation(n)
        first = step % per_epoch
        count = min(run.log_every - step % run.log_every, per_epoch - first, schedule.total_steps - step)
        before = time.perf_counter()
        batches = order[first * run.batch_size : (first + count) * run.batch_size]
        model.train(batches, rates[step : step + count])
        history.update_time += time.perf_counter() - before
        step += count
    history.complete = True
    history.training_time = time.perf_counter() - started
    loss, accuracy = evaluate(model.forward, *test)
    n_classes = len(data.class_names)
    with torch.inference_mode():
        predicted = torch.cat([model.forward(part).argmax(1) for part in test[0].split(1000)]).numpy()
    confusion = np.bincount(data.test.labels * n_classes + predicted, minlength=n_classes**2)
    confusion = confusion.reshape(n_classes, n_classes)
    return Result(
        run,
        describe_data(data),
        history,
        case.n_parameters,
        [model.parameters()["conv.weight"]],
        test={"loss": loss, "accuracy": accuracy},
        confusion=confusion,
    )


def tensors(split, normalizer):
    images = Data(split.images, split.labels, normalizer).normalized("float32")
    return torch.from_numpy(images), torch.from_numpy(split.labels.astype(np.int64))


def log(history, step, rate, model, evaluated, l2):
    before = time.perf_counter()
    weights = [tensor.detach() for name, tensor in model.tensors.items() if name.endswith("weight")]
    penalty = l2 * sum(weight.square().sum().item() for weight in weights)
    points = [
        (loss, loss + penalty, accuracy)
        for loss, accuracy in (evaluate(model.forward, *images_and_labels) for images_and_labels in evaluated)
    ]
    history.append(step, float(rate), *points)
    history.evaluation_time += time.perf_counter() - before


if __name__ == "__main__":
    cli.exit_with(cli.run_script(main))
