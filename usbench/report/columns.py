"""What each column of the leaderboard means, whatever its protocol, and of the table of trainings beside it."""

from __future__ import annotations

from collections.abc import Iterable

from usbench.evaluate.segmentation import CALIBRATION, METRICS

DISTANCES = ("hd95", "assd")  # in native pixels; in mm too where a pixel's size is known
OF = {
    CALIBRATION: ", each over ten bins of the probabilities of its pixels",
    "surface_dice": ", within two native pixels; where a pixel of the pack is larger, only borders that coincide count",
}
LABELS = {
    "accuracy": "1 where the class is right: its mean is the share of images that are",
    "balanced_accuracy": "the share that is right, mean over classes",
    "log_loss": "minus the logarithm of the true class's probability; lower is better",
    "brier": "squared error of the probabilities, summed over classes; lower is better",
}
OF_WHAT = {  # before a metric of labels
    "video_": "of a video, whose probabilities are the mean of its frames'",
    "linear_": "of the logistic regression on pooled features",
    "knn_": "of the vote of the nearest neighbours",
}
NOT_MEASURED = ("device_seconds", "peak_mib")  # differ between equal runs

WHO = {
    "suite": "suite that asked for the row; empty for a single run",
    "loss": "pretraining loss with the options given for it",
    "aug": "augmentation of the pretraining",
    "backbone": "segmentation network",
    "init": "starting weights before pretraining",
    "pretrain_data": "sets that were pretrained on: training images of those trained on or marked /train, else whole",
    "pretrain_labels": "labels that the pretraining saw: none or all of those of the training images",
    "train_data": "sets that were fine-tuned on",
    "test_data": "set that was tested on",
    "shift": "in, out, out-transductive, or corruption:severity",
    "label_fraction": "per cent of the annotated training images",
    "protocol": "how the network was fine-tuned and scored",
    "fold": "test fold or split file of the trained sets, and the device that was left out; several where their test "
    "images are pooled",
    "size": "pixels a side that the network sees",
    "primary": "the metric that ranks; differences, p and ranks are of it; higher is better",
}
OTHER = {
    "no_distance": "share of images that hd95 and assd leave out, for lack of a border in a seed: another in every row",
    "normal_fp_rate": "share of normal images with any predicted lesion",
    "normal_fp_area": "predicted area on a normal image, mean over all of them, in mask pixels",
    "ece": "expected calibration error over 15 bins, mean over seeds; empty where no probabilities are kept",
    "score_inner": "primary metric on inner validation at the chosen step, mean over seeds; pretraining that saw "
    "labels saw these too",
    "dice_inner": "the same where Dice is the primary metric",
    "delta_vs_supervised": "difference of the mean score to the supervised baseline of the same initialisation",
    "delta_vs_supervised_low": "lower end of its 95 % interval",
    "delta_vs_supervised_high": "upper end of its 95 % interval",
    "delta_vs_best": "difference of the mean score to the best of the rows that it is ranked with",
    "delta_vs_best_low": "lower end of its 95 % interval; as the best is chosen on the same images, it looks better",
    "delta_vs_best_high": "upper end of its 95 % interval",
    "drop_from_in": "mean in-distribution score of the same networks less this one's; empty in distribution",
    "p_holm": "Holm-adjusted p of delta_vs_supervised over the table; corruptions, rows of all folds and best-on-test "
    "rows are families of their own; empty with one seed",
    "rank": "rank of the mean score, over the seeds that most have, among rows of one arena, shift and pretraining "
    "budget whose pretraining saw the same labels; baselines are exempt from the budget; 1 is best",
    "mean_rank": "mean rank over the trainings (data, fraction) that comparable methods share, by the mean of their "
    "scores on the test sets; no corruption",
    "seeds": "number of seeds",
    "images": "images that count: those with a lesion where lesions are told apart, else all",
    "groups": "groups (patients) of these images",
    "steps": "optimiser steps, pretraining and fine-tuning",
    "images_seen": "source images, pretraining and fine-tuning",
    "pixels_seen": "pixels of all views",
    "device_seconds": "seconds of training, mean over seeds",
    "peak_mib": "most memory used",
    "precision": "bf16 or float32",
    "device": "cpu or cuda",
    "reconstruction": "true where the method's formula is a reconstruction",
    "selection": "how the step was chosen: inner, last, or best-on-test, of the same looks as inner's, which is no "
    "result and stands beside since some papers publish it",
    "chosen": "settings chosen on inner validation, and among how many trials; empty where nothing was",
    "leaks": "training images that are near-duplicates of tested ones, let pass by --allow-leaks; else 0",
    "key": "identity of the row, whatever its seeds; one that was chosen has that of the same one asked for",
}


def _interval(name: str, what: str) -> dict[str, str]:
    return {
        f"{name}_mean": what,
        f"{name}_low": "lower end of its 95 % interval",
        f"{name}_high": "upper end of its 95 % interval",
    }


def columns(metrics: Iterable[str]) -> dict[str, str]:
    """Every column of a table whose rows have these metrics, and what it means."""
    every = list(dict.fromkeys(metrics))
    found = {**WHO, **_interval("score", "primary metric: mean over the images that count and over seeds")}
    found |= _interval(
        "video_score", "primary metric: mean over videos, each the mean of its frames, and over seeds; not if balanced"
    )
    for metric in every:
        unit = ", in native pixels" if metric in DISTANCES else OF.get(metric, "")
        found |= _interval(metric, f"{metric}: mean over the images that count and over seeds{unit}")
    for metric in DISTANCES:
        if metric in every:
            found |= _interval(f"{metric}_mm", f"{metric} in mm: mean over the images whose pixel size is known")
    return {**found, **OTHER}


COLUMNS = columns((*METRICS, CALIBRATION))  # of segmentation

TRAININGS = {
    "kind": "pretrain or finetune",
    "key": "identity of the training: its folder in the store is kind-key",
    "seed": "of the label subset, the initialisation and the order of images",
    "trial": "settings in which trainings of one row and seed differ; no such column where none do",
    "images": "images that it learned from",
    "chosen_step": "step whose weights were taken, where inner validation chose it",
    "spread": "standard deviation of the encoder's pooled features of clean training images, each scaled to length 1, "
    "times the root of the number of features: about 1 where they point everywhere, 0 where all are one (collapse)",
    "rankme": "how many directions these features use (RankMe, ICML 2023): from 1 (collapse) to their number",
    "load": "tensors of the starting weights that were loaded, missing, unexpected and adapted",
    "inner": "the protocol's figure of inner validation at the chosen step, higher is better",
    "inner_last": "the same at the last step",
    "loss_first": "training loss at the first point of its curve",
    "loss_last": "training loss at the last point",
}
