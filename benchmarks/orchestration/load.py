"""Load the code location as a code server does, and print what it took: a process of its own each time."""

import json
import sys
import time

import psutil


def main(what: str) -> None:
    """Load, and print one JSON object."""
    started = time.perf_counter()
    assets = partitions = 0
    import dagster

    if what == "location":
        from freshdata_assets.definitions import defs

        graph = defs().resolve_asset_graph()
        keys = graph.get_all_asset_keys()
        assets = len(keys)
        partitions = max(
            len(node.partitions_def.get_partition_keys())
            for node in map(graph.get, keys)
            if isinstance(node.partitions_def, dagster.TimeWindowPartitionsDefinition)
        )
    seconds = time.perf_counter() - started
    heavy = [name for name in ("sqlmesh", "great_expectations", "duckdb") if name in sys.modules]
    memory = psutil.Process().memory_info().rss / 1e6
    told = {
        "seconds": seconds,
        "cpu": time.process_time(),
        "memory": memory,
        "assets": assets,
        "partitions": partitions,
    }
    print(json.dumps(told | {"heavy": heavy}))


if __name__ == "__main__":
    main(sys.argv[1])
