"""Several processes that open a new catalog and create the same tables at the same moment."""

import subprocess
import sys

CREATE = """
import sys, time
from freshdata.contracts import load_contracts
from freshdata.lake.catalog import ensure_stream_tables, open_catalog
from freshdata.settings import load_settings
settings = load_settings()
contracts = load_contracts(settings.contracts_dir)
while time.time() < float(sys.argv[1]):
    pass
ensure_stream_tables(open_catalog(settings), contracts[sys.argv[2]], contracts)
"""


def test_all_of_them_succeed(tmp_path):
    import os
    import time

    start = str(time.time() + 4)
    own = {**os.environ, "FRESHDATA_HOME": str(tmp_path)}
    workers = [
        subprocess.Popen([sys.executable, "-c", CREATE, start, stream], env=own, stderr=subprocess.PIPE, text=True)
        for stream in ("flight_events", "weather", "flight_events")
    ]
    assert [(worker.communicate()[1][-2000:], worker.returncode)[1] for worker in workers] == [0, 0, 0]
