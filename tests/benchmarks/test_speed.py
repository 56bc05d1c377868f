"""benchmarks/speed.py as a user drives it; no time is tested."""


def test_the_engine_table_has_a_row_for_each_network_and_size(command_line):
    options = ("--networks", "minkunet14s", "--voxels", 1500, 3000, "--repeats", 1)
    done = command_line("benchmarks/speed.py", "engine", *options)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| minkunet14s")]
    voxels = [int(row.split("|")[2]) for row in rows]
    assert len(voxels) == 2 and abs(voxels[0] - 1500) < 300 and abs(voxels[1] - 3000) < 600
