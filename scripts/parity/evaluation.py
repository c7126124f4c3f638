"""Metrics on stored features; what surrounds training: batches, rates, heatmaps, PCKh."""

import numpy as np

from parity.check import Check, recipe
from vireid_jax.data import heatmaps, sampler
from vireid_jax.evaluation import pckh, ranking
from vireid_jax.training import optimizer
from vireid_jax.types import ImageSet, Modality, UserError

_SCHEDULES = {
    "paper": recipe,
    "code_sysu": lambda: recipe("full,published_code", "sysu_mm01"),
    "code_regdb": lambda: recipe("full,published_code", "regdb"),
}


def eval_metrics(check: Check) -> None:
    """CMC, mAP and mINP under SYSU-MM01's and RegDB's rules, on stored features."""
    for case in sorted({key.split("/")[0] for key in check.below()}):
        q, g, q_pids, g_pids, q_cams, g_cams = (
            check[f"{case}/{name}"] for name in ("q", "g", "q_pids", "g_pids", "q_cams", "g_cams")
        )
        check[f"{case}/f32_rank_identical"]
        sysu = case.startswith("sysu")
        found = ranking.rank(
            q.astype(np.float64) @ g.astype(np.float64).T,
            q_pids,
            g_pids,
            valid=ranking.camera_mask(q_cams, g_cams, ((3, 2),) if sysu else ()),
            cmc_on="identities" if sysu else "images",
        )
        cmc = check[f"{case}/cmc"]
        check.compare(f"{case}/cmc", found.cmc[: len(cmc)])
        check.compare(f"{case}/ap", found.ap)
        check.compare(f"{case}/inp", found.inp)
        check.compare(f"{case}/mAP", np.nanmean(found.ap))
        check.compare(f"{case}/mINP", np.nanmean(found.inp))


def sampler_lr_pose_teacher(check: Check) -> None:
    """What batches consist of, learning rates by epoch, heatmap targets, PCKh."""
    for case in sorted({key.split("/")[0] for key in check.below()} - {"lr", "heatmap", "pckh"}):
        _sampler(check, f"{case}/")
    for key in check.below("lr/"):
        epochs = np.arange(len(check[key]))
        c = _SCHEDULES[key.split("/")[1].split("_epoch")[0]]().optimizer
        rate = optimizer.schedule(c, len(epochs), 1)
        check.compare(key, [rate(epoch) for epoch in epochs], 1e-6)

    keypoints = check["heatmap/keypoints"].reshape(-1, 16, 3).copy()
    keypoints[..., 2] = keypoints[..., 0] != -1  # hidden joints are drawn, missing ones are not
    side = 8 * check["heatmap/maps"].shape[-1]
    maps = heatmaps.teacher_maps(keypoints, side, side)
    check.compare("heatmap/maps", maps.transpose(0, 3, 1, 2), 1e-6)
    check.compare("heatmap/merged_max16", maps[..., :16].max(-1), 1e-6)

    truth = check["pckh/gt"]
    table = pckh.pckh(check["pckh/pred"], truth, check["pckh/thresholds"])
    check.compare("pckh/table_16joints_ubody_avg", table)
    heads = np.linalg.norm(truth[:, 8] - truth[:, 9], axis=-1)
    missing = (truth[:, 8:10, 0] == -1).any(1)
    check.compare("pckh/head_size", np.where(missing, 0, heads))


def _sampler(check, prefix):
    """Both the reference's example epoch and ours have the structure that the fixture states."""
    visible, infrared = check[f"{prefix}color_labels"], check[f"{prefix}thermal_labels"]
    identities, images = int(check[f"{prefix}D"]), int(check[f"{prefix}K"])
    batch = identities * images
    pid = np.concatenate([visible, infrared])
    modality = np.repeat([Modality.VISIBLE, Modality.INFRARED], [len(visible), len(infrared)])
    image_set = ImageSet(pid, pid, pid, modality, pid)
    seed = int(check[f"{prefix}np_seed"])
    ours = sampler.PKSampler.of(image_set, identities, images, seed)
    steps = sampler.steps_per_epoch(image_set, batch)
    check.compare(f"{prefix}n_batches", steps)  # ours; the next three describe the reference
    check.compare(f"{prefix}images_per_modality_per_epoch", steps * batch)
    check.compare(f"{prefix}len", max(len(visible), len(infrared)))
    for modality_rows in (check[f"{prefix}index1"], check[f"{prefix}index2"]):
        check.compare(f"{prefix}images_per_modality_per_epoch", len(modality_rows))
    examples = np.stack([check[f"{prefix}index1"], check[f"{prefix}index2"] + len(visible)])
    drawn = np.concatenate([np.stack(ours[step][1:]) for step in range(steps)], 1)
    for rows in (examples, drawn):
        for rgb, ir in rows.reshape(2, steps, batch).transpose(1, 0, 2):
            label = pid[rgb].reshape(identities, images)
            sound = (
                (pid[rgb] == pid[ir]).all()
                and (label == label[:, :1]).all()
                and len(set(label[:, 0])) == identities
                and len(set(rgb)) == len(set(ir)) == batch
                and (rgb < len(visible)).all()
                and (ir >= len(visible)).all()
            )
            if not sound:
                raise UserError(f"{check.name}: a batch of {prefix} has another structure")
