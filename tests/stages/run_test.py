#!/usr/bin/env python3
"""The runner counts what stages say: a miscount would turn a failure into a pass."""

import contextlib
import io
import os
import tempfile
import unittest

import run


class Lines(unittest.TestCase):
    def check(self, line, expected):
        counts = run.Counts()
        counts.read(line)
        self.assertEqual((counts.passed, counts.failed, counts.skipped), expected, line)

    def test_each_form_of_a_line_is_counted(self):
        self.check("test result: ok. 5 passed; 0 failed; 2 ignored; 0 measured", (5, 0, 2))
        self.check("test result: FAILED. 3 passed; 4 failed; 0 ignored; 0 measured", (3, 4, 0))
        self.check("ok 1 - a name", (1, 0, 0))
        self.check("ok - a name", (1, 0, 0))
        self.check("not ok 7 - a name", (0, 1, 0))
        self.check("ok 2 - a name # skip no valgrind", (0, 0, 1))
        self.check("ok 2 - a name # SKIP no valgrind", (0, 0, 1))

    def test_other_lines_are_not_counted(self):
        for line in ("test a ... ok", "okay", "nothing", "1..4", "# ok", " ok 1 - inside", ""):
            self.check(line, (0, 0, 0))


class Stages(unittest.TestCase):
    def check(self, script, expected):
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "00-sample.sh")
            with open(path, "w", encoding="utf-8") as file:
                file.write(script)
            logs, run.LOGS = run.LOGS, directory
            try:
                with contextlib.redirect_stdout(io.StringIO()):
                    _, counts, _, _ = run.stage(path)
            finally:
                run.LOGS = logs
        self.assertEqual((counts.passed, counts.failed, counts.skipped), expected, script)

    def test_a_stage_that_passes_passes(self):
        self.check("echo 'ok - a'; echo 'ok - b # skip c'", (1, 0, 1))

    def test_a_stage_that_says_nothing_fails(self):
        self.check("echo hello", (0, 1, 0))

    def test_a_stage_that_dies_fails(self):
        self.check("echo 'ok - a'; exit 3", (1, 1, 0))
        self.check("echo 'ok - a'; kill -9 $$", (1, 1, 0))

    def test_a_failure_is_not_counted_twice(self):
        self.check("echo 'not ok - a'; exit 1", (0, 1, 0))

    def test_a_stage_that_hangs_is_ended(self):
        self.check("# timeout: 1\necho 'ok - a'; read -r line < <(sleep 600)", (1, 1, 0))

    def test_a_stage_has_no_stdin(self):
        self.check("read -r line || echo 'ok - none'", (1, 0, 0))


class Library(unittest.TestCase):
    def check(self, call, expected):
        script = f"source '{os.path.join(run.HERE, 'lib.sh')}'\n{call}\n"
        Stages.check(self, script, expected)

    def test_a_program_without_results_fails(self):
        self.check("tap a true", (0, 1, 0))

    def test_a_program_that_crashes_fails(self):
        self.check("tap a bash -c 'echo ok 1 - b; kill -SEGV $$'", (1, 1, 0))

    def test_a_program_that_misses_its_plan_fails(self):
        self.check("tap a printf '1..2\\nok 1 - b\\n'", (1, 1, 0))
        self.check("tap a printf '1..1\\nok 1 - b\\n'", (1, 0, 0))

    def test_a_program_that_hangs_fails(self):
        self.check("TAP_SECONDS=1 tap a bash -c 'echo ok 1 - b; exec sleep 600'", (1, 1, 0))

    def test_cargo_that_does_not_compile_fails(self):
        self.check("passes a bash -c 'echo error; exit 101'", (0, 1, 0))
        result = "test result: FAILED. 1 passed; 1 failed; 0 ignored"
        self.check(f"passes a bash -c 'echo \"{result}\"; exit 101'", (1, 1, 0))


if __name__ == "__main__":
    unittest.main()
