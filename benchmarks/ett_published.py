"""Published errors on the full test part (MSE, MAE by horizon), and this project's goals."""

from __future__ import annotations

Row = dict[int, tuple[float, float]]
DROP_BATCH = 256  # published code drops the last incomplete batch; shown beside the full figure only

PUBLISHED: dict[str, dict[str, Row]] = {
    "ETTh1": {
        "DUET": {96: (0.352, 0.384), 192: (0.398, 0.409), 336: (0.414, 0.426), 720: (0.429, 0.455)},
        "PDF": {96: (0.360, 0.391), 192: (0.392, 0.414), 336: (0.418, 0.435), 720: (0.456, 0.462)},
        "xPatch": {96: (0.363, 0.390), 192: (0.404, 0.414), 336: (0.432, 0.432), 720: (0.451, 0.457)},
        "PatchTST": {96: (0.377, 0.397), 192: (0.409, 0.425), 336: (0.431, 0.444), 720: (0.457, 0.477)},
        "DLinear": {96: (0.379, 0.403), 192: (0.408, 0.419), 336: (0.440, 0.440), 720: (0.471, 0.493)},
    }
}
GOALS: dict[str, Row] = {"ETTh1": {96: (0.360, 0.385), 192: (0.392, 0.414), 336: (0.418, 0.435), 720: (0.456, 0.462)}}
