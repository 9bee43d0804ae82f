"""What script/bench_index.py measures is there, and measured. Few processes, no times."""

import os
from pathlib import Path

import pytest

from script.bench_gpus import sleepers
from script.bench_index import GPU_PROCESSES, measure


def test_sleepers_hold_what_they_are_told(tmp_path: Path) -> None:
    node = tmp_path / "renderD128"
    node.touch()
    with sleepers(tmp_path, 8, descriptors=26, node=node, every=4) as pids:
        links = {pid: [] for pid in pids}
        while sum(map(len, links.values())) < 26:
            links = {
                pid: [os.readlink(f"/proc/{pid}/fd/{name}") for name in os.listdir(f"/proc/{pid}/fd")]
                for pid in pids
            }
        assert sorted(map(len, links.values())) == [3] * 6 + [4] * 2
        assert [pid for pid in pids if str(node) in links[pid]] == [pids[0], pids[4]]
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@pytest.mark.root
def test_both_ways_look_at_all_processes(tmp_path: Path) -> None:
    cost = measure(tmp_path, 2 * GPU_PROCESSES, 100, interval_seconds=10.0)
    assert cost.processes > 2 * GPU_PROCESSES
    assert cost.descriptors >= 100
    assert cost.mean_milliseconds > 0
    assert cost.first_milliseconds > 0
    assert cost.plain_milliseconds > 0
    assert cost.longest_milliseconds >= cost.mean_milliseconds / 10
