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

    graph = None
    if what == "location":
        from freshdata_assets.definitions import defs

        graph = defs().resolve_asset_graph()
    seconds, cpu = time.perf_counter() - started, time.process_time()
    if graph is not None:
        keys = graph.get_all_asset_keys()
        assets = len(keys)
        partitions = max(
            len(node.partitions_def.get_partition_keys())
            for node in map(graph.get, keys)
            if isinstance(node.partitions_def, dagster.TimeWindowPartitionsDefinition)
        )
    heavy = [name for name in ("sqlmesh", "great_expectations", "duckdb") if name in sys.modules]
    memory = psutil.Process().memory_info().rss / 1e6
    told = {
        "seconds": seconds,
        "cpu": cpu,
        "memory": memory,
        "assets": assets,
        "partitions": partitions,
    }
    print(json.dumps(told | {"heavy": heavy}))


if __name__ == "__main__":
    main(sys.argv[1])
