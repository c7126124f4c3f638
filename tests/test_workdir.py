"""A run's folder, without a run."""

import json

import pytest
import tiny

from vireid_jax.training.workdir import Workdir, read_lines

LINE = {"step": 2, "all": {"f_ID": {"mAP": {"mean": 1.0}}}}


@pytest.mark.parametrize("lost", [1, 2, 3, 10])
def test_a_torn_line_is_left_out(tmp_path, lost):
    text = json.dumps(LINE) + "\n"
    file = tmp_path / "evaluations.jsonl"
    file.write_text(text + text[:-lost])
    assert read_lines(file) == [LINE]
    log = Workdir(str(tmp_path), tiny.get_config()).log(2)
    log.write_results(3, {})
    log.close()
    assert [line["step"] for line in read_lines(file)] == [2, 3]
