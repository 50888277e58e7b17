#!/usr/bin/env python3
"""Exercise 3 as ``exercise3.py`` runs it, but trained by PyTorch: conv2d, autograd, torch.optim.SGD.

For the comparison of whole runs in ``benchmark.py``: the same options, runs,
data, points of the history, tables and pictures; nothing of cyconv's kernels.
"""

import sys
import time

import exercise3
import numpy as np
import torch
from peers.case import Case, Data
from peers.torch_peer import AutogradPeer, evaluate

from cyconv.datasets import Normalizer
from cyconv.experiments import Result, cli, describe_data, over_seeds
from cyconv.experiments.executors import map_unordered
from cyconv.experiments.output_folder import OutputFolder
from cyconv.experiments.usage import usage
from cyconv.history import History

OUTPUT = "results/exercise3-pytorch"


def main(argv=None):
    arguments = exercise3.parse(["--output", OUTPUT, *(sys.argv[1:] if argv is None else argv)], resumable=False)
    source, data = cli.open_data(arguments)
    parts = exercise3.chosen_parts(arguments)
    with usage(n_seeds="--seeds"):
        runs = [run for part in parts.values() for run in over_seeds(part, cli.n_seeds(arguments))]
    configuration = cli.configuration("exercise3_pytorch", arguments, runs, data)
    folder = OutputFolder(arguments.output, configuration, overwrite=arguments.overwrite)
    if folder.results:
        return folder.report()
    begun, make_executor, threads = cli.plan_workers(runs, arguments)
    results = []
    for _, result in map_unordered(train_here, [(run, source, threads) for run in begun], make_executor):
        results.append(result)
        print(
            f"{result.run.label}, seed {result.run.seed}: test accuracy {100 * result.test['accuracy']:.2f} %, "
            f"{result.history.training_time:.1f} s",
            flush=True,
        )
    results.sort(key=lambda result: runs.index(result.run))
    sections = exercise3.write_parts(parts, results, data, folder, arguments)
    return cli.write_report(
        "Exercise 3 in PyTorch", configuration, sections, results, data, source, folder, 0, cli.time_remarks(arguments)
    )


def train_here(run, source, threads):
    """`train`, in whichever process this is."""
    if threads is not None:
        torch.set_num_threads(threads)
    return train(run, source.load())


def train(run, data):
    """One run, logged where `cyconv.CyclicTrainer` logs it."""
    started = time.perf_counter()
    schedule, history = run.schedule(), History()
    case = Case(run.filter_size, run.n_filters, (run.n_hidden,), run.batch_size)
    normalizer = Normalizer.fit(data.train.images)
    model = AutogradPeer(
        case,
        Data(data.train.images, data.train.labels.astype(np.int64), normalizer),
        channels_last=False,
        precision="highest",
    )
    model.set_parameters(case.starting_parameters(run.seed))
    validation, test = (tensors(split, normalizer) for split in (data.validation, data.test))
    judged = (model.images[: run.n_train_evaluated], model.labels[: run.n_train_evaluated]), validation
    generator = np.random.default_rng(run.seed)
    n, per_epoch = len(data.train), len(data.train) // run.batch_size
    rates = schedule(np.arange(schedule.total_steps))
    step = 0
    while True:
        if step % run.log_every == 0 or step == schedule.total_steps:
            log(history, step, schedule(step), model, judged, run.l2)
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


def log(history, step, rate, model, judged, l2):
    before = time.perf_counter()
    weights = [tensor.detach() for name, tensor in model.tensors.items() if name.endswith("weight")]
    penalty = l2 * sum(weight.square().sum().item() for weight in weights)
    points = [
        (loss, loss + penalty, accuracy)
        for loss, accuracy in (evaluate(model.forward, *images_and_labels) for images_and_labels in judged)
    ]
    history.append(step, float(rate), *points)
    history.evaluation_time += time.perf_counter() - before


if __name__ == "__main__":
    cli.exit_with(cli.run_script(main))
