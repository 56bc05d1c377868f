"""benchmarks/speed.py as a user drives it; no time is tested."""


def test_the_engine_table_has_a_row_for_each_network_and_size(command_line):
    options = ("--networks", "minkunet14s", "--voxels", 5000, 20000, "--repeats", 1)
    done = command_line("benchmarks/speed.py", "engine", *options)
    assert done.returncode == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| minkunet14s")]
    small, large = (int(row.split("|")[2]) for row in rows)
    assert small < large and abs(large - 20000) < 4000


def test_too_small_a_room_is_refused(command_line):
    done = command_line("benchmarks/speed.py", "engine", "--voxels", 100)
    assert done.returncode == 2
    assert done.stderr.strip() == "error: --voxels 100: expected at least 4000, a room that furniture fits in"
