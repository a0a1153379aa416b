"""The main job as a newcomer runs it, with its worker killed in the middle."""

import json
import subprocess
import sys

import pytest

from freshdata.lake.catalog import open_catalog
from freshdata.lake.query import run_query
from freshdata.sample.expected import expected_carrier_day
from tests.engines import assert_equal

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]


def freshdata(january, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "freshdata.cli", *arguments],
        env={"PATH": "/usr/bin:/bin:/usr/local/bin", "FRESHDATA_HOME": str(january.settings.home)},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_the_demo_holds_although_its_worker_was_killed(january):
    assert january.exit_code == 0, january.output
    assert "Every event is accounted for, and Gold equals the source." in january.output
    assert "✗" not in january.output


def test_gold_equals_the_source_exactly(january):
    """All carriers and days of January, recomputed straight from the source's files."""
    order = [("flight_date", "ascending"), ("tenant_id", "ascending")]
    expected = expected_carrier_day(1).sort_by(order).to_pydict()
    gold = run_query(january.settings, "SELECT * FROM gold.carrier_day ORDER BY flight_date, tenant_id").to_pydict()
    exact = ["flight_date", "tenant_id", "flights", "cancelled"]
    measured = ["mean_dep_delay_min", "mean_arr_delay_min", "p90_arr_delay_min", "on_time_share"]
    assert list(gold) == exact + measured
    assert {name: gold[name] for name in exact} == {name: expected[name] for name in exact}
    for name in measured:
        known = [(g, e) for g, e in zip(gold[name], expected[name], strict=True) if (g, e) != (None, None)]
        assert [g for g, _ in known] == pytest.approx([e for _, e in known], rel=1e-12, abs=1e-12)
    assert (sum(gold["flights"]), sum(gold["cancelled"])) == (27004, 521)


def test_verify_agrees_after_the_demo_has_ended(january):
    result = freshdata(january, "verify", "--json")
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["ok"]
    assert report["streams"]["flight_events"]["consumed"] > 50_000
    layers = {finding["table"].split(".")[0] for finding in report["findings"]}
    assert layers == {"bronze", "quarantine", "silver", "gold"}


def test_query_prints_json_rows(january):
    result = freshdata(january, "query", "select * from gold.carrier_day order by 1, 2 limit 5", "--json")
    rows = json.loads(result.stdout)
    assert len(rows) == 5
    assert (rows[0]["flight_date"], rows[0]["tenant_id"]) == ("2013-01-01", "9E")


# The joins by hand, and the means straight from the events.
BY_HAND = {
    "serving.carrier_punctuality": """
        SELECT flight_date, e.tenant_id AS carrier, name AS carrier_name, flights,
          count(*) FILTER (event_type = 'cancelled') / any_value(flights) AS cancelled_share,
          avg(dep_delay) FILTER (event_type = 'departed') AS mean_dep_delay_min,
          avg((arr_delay < 15)::INT) FILTER (event_type = 'arrived') AS on_time_share
        FROM silver.flight_events e JOIN gold.carrier_day USING (flight_date, tenant_id)
        JOIN gold.dim_carrier ON carrier = e.tenant_id GROUP BY ALL""",
    "serving.route_traffic": """
        WITH arrived AS (
          SELECT origin, dest, avg(arr_delay) AS delay, avg(CASE WHEN arr_delay < 15 THEN 1 ELSE 0 END) AS on_time
          FROM silver.flight_events WHERE event_type = 'arrived' AND arr_delay IS NOT NULL GROUP BY 1, 2
        ), scheduled AS (
          SELECT origin, dest, max(distance) AS distance, sum(flights)::BIGINT AS flights,
            sum(cancelled)::BIGINT AS cancelled
          FROM gold.route_day GROUP BY 1, 2
        )
        SELECT DATE '2013-01-01' AS month, s.origin, o.name AS origin_name, s.dest, d.name AS dest_name, distance,
          flights, cancelled, delay AS mean_arr_delay_min, on_time AS on_time_share
        FROM scheduled s LEFT JOIN arrived a ON (a.origin, a.dest) = (s.origin, s.dest)
        LEFT JOIN gold.dim_airport o ON o.faa = s.origin LEFT JOIN gold.dim_airport d ON d.faa = s.dest""",
}


@pytest.mark.parametrize("view", BY_HAND)
def test_a_serving_view_is_the_join_over_gold(january, view):
    found, expected = (
        run_query(january.settings, f"{sql} ORDER BY ALL").to_pylist() for sql in (f"FROM {view}", BY_HAND[view])
    )
    assert len(found) > 10
    assert_equal(found, expected)
    assert f"{view} " in freshdata(january, "views").stdout


def test_a_wrong_query_is_one_line_with_a_remedy(january):
    result = freshdata(january, "query", "select * from gold.no_such_table")
    assert result.returncode == 1
    assert "no_such_table" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_tampered_row_is_found_and_named(january):
    """Last: what verification is for. The row is put back afterwards."""
    catalog = open_catalog(january.settings)
    table = catalog.load_table("gold.route_day")
    before = table.current_snapshot().snapshot_id
    rows = table.scan("flight_date = '2013-01-10'").to_arrow()
    changed = rows.set_column(
        rows.column_names.index("flights"),
        rows.schema.field("flights"),
        [[n + (i == 0) for i, n in enumerate(rows["flights"].to_pylist())]],
    )
    table.overwrite(changed, overwrite_filter="flight_date = '2013-01-10'")
    try:
        result = freshdata(january, "verify", "--json")
        assert result.returncode == 1
        findings = {f["table"]: f for f in json.loads(result.stdout)["findings"] if not f["ok"]}
        assert list(findings) == ["gold.route_day"]
        assert "2013-01-10" in findings["gold.route_day"]["examples"][0]
    finally:
        table.manage_snapshots().rollback_to_snapshot(before).commit()
