"""Graph-to-graph passes; importing this package fills the registry. The modules stand in pipeline order."""

if __name__ != "qcc.passes":
    raise ImportError("import this package as qcc.passes")

# isort: off
from qcc.passes import (
    # float graph
    canonicalize,
    fold_constants,
    fold_batch_norm,
    layout,
    fold_pad,
    fold_affine,
    eliminate_dead,
    # float graph with small weights
    store_weights,
    # float to annotated graph
    fuse_epilogues,
    equalize,
    migrate_scales,
    absorb_bias,
    calibrate,
    match_grid,
    widen,
    choose_qparams,
    correct_bias,
    round_weights,
    round_by,
    # study of the annotated graph
    simulate_codes,
    analyze_mse,
    # annotated to integer graph
    quantize_ops,
    # integer to planned graph
    fold_zero_points,
    plan_accumulators,
    remove_dead_channels,
)
# isort: on

__all__ = [
    "absorb_bias",
    "analyze_mse",
    "calibrate",
    "canonicalize",
    "choose_qparams",
    "correct_bias",
    "eliminate_dead",
    "equalize",
    "fold_affine",
    "fold_batch_norm",
    "fold_constants",
    "fold_pad",
    "fold_zero_points",
    "fuse_epilogues",
    "layout",
    "match_grid",
    "migrate_scales",
    "plan_accumulators",
    "quantize_ops",
    "remove_dead_channels",
    "round_by",
    "round_weights",
    "simulate_codes",
    "store_weights",
    "widen",
]
