"""CMC, average precision and inverse negative penalty one query at a time, in NumPy."""

import numpy as np


def loop(similarity, query_pid, query_camid, gallery_pid, gallery_camid, excluded, cmc_on):
    """Straight from the protocol's definition.

    Arguments and results as in vireid_jax/evaluation/ranking.py, of which this shares nothing.
    """
    ap, inp, first_ranks = [], [], []
    for i, row in enumerate(similarity):
        order = np.argsort(-row, kind="stable")
        forbidden = [g for q, g in excluded if q == query_camid[i]]
        pids = gallery_pid[order[~np.isin(gallery_camid[order], forbidden)]]
        if query_pid[i] not in pids:
            ap.append(np.nan)
            inp.append(np.nan)
            continue
        places = [place for place, pid in enumerate(pids, start=1) if pid == query_pid[i]]
        ap.append(np.mean([number / place for number, place in enumerate(places, start=1)]))
        inp.append(len(places) / places[-1])
        listed = list(dict.fromkeys(pids)) if cmc_on == "identities" else list(pids)
        first_ranks.append(listed.index(query_pid[i]) + 1)
    cmc = [np.mean([rank <= k for rank in first_ranks]) for k in range(1, 21)]
    return np.array(ap), np.array(inp), np.array(cmc)
