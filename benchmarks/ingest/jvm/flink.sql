CREATE CATALOG ice WITH ('type' = 'iceberg', 'catalog-type' = 'hadoop', 'warehouse' = 'file://@WAREHOUSE@');
CREATE DATABASE IF NOT EXISTS ice.bronze;
CREATE TABLE ice.bronze.events (
  event_id STRING, tenant_id STRING, event_type STRING, event_time TIMESTAMP_LTZ(6), user_id STRING, product_id STRING,
  quantity BIGINT, price DOUBLE, currency STRING, country STRING, `session` STRING, ingestion_date DATE
) PARTITIONED BY (ingestion_date, tenant_id)
WITH ('format-version' = '2', 'write.parquet.compression-codec' = 'zstd');
CREATE TEMPORARY TABLE src (
  event_id STRING, tenant_id STRING, event_type STRING, event_time TIMESTAMP_LTZ(3), user_id STRING, product_id STRING,
  quantity BIGINT, price DOUBLE, currency STRING, country STRING, `session` STRING,
  ingested_at TIMESTAMP_LTZ(3) METADATA FROM 'timestamp' VIRTUAL,
  seen_at AS PROCTIME(),
  WATERMARK FOR event_time AS event_time - INTERVAL '5' MINUTE
) WITH (
  'connector' = 'kafka', 'topic' = '@TOPIC@', 'properties.bootstrap.servers' = '@BOOTSTRAP@',
  'properties.group.id' = '@GROUP@', 'scan.startup.mode' = 'earliest-offset', 'format' = 'json',
  'json.timestamp-format.standard' = 'ISO-8601'
);
INSERT INTO ice.bronze.events
SELECT
  event_id, tenant_id, event_type, event_time, user_id, product_id, quantity, price, currency, country, `session`,
  CAST(ingested_at AS DATE)
FROM @SOURCE@;
