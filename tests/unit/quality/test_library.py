"""Great Expectations comes without what takes a third of its import, and with it when something asks."""

import subprocess
import sys

PROGRAM = """
import sys
from freshdata.quality.library import RARELY_USED, great_expectations
great_expectations()
assert not set(RARELY_USED) & set(sys.modules), sorted(sys.modules)
from great_expectations.expectations.core import expect_column_kl_divergence_to_be_less_than as module
assert round(float(module.stats.entropy([0.5, 0.5], base=2)), 6) == 1
assert module.alt.Chart
import scipy.stats
assert scipy.stats.entropy is module.stats.entropy
"""


def test_what_few_expectations_use_is_imported_when_it_is_asked_for():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
