-- Load for wrk: every request holds events of their own. Environment: KEY, EVENTS (in a request), RUN, ONCE (with a key of its own).
local count = tonumber(os.getenv("EVENTS"))
local once = os.getenv("ONCE") == "1"
local run = os.getenv("RUN")
local event = '{"event_id":"' .. run .. '-%024x","tenant_id":"tenant-000","event_type":"order",'
  .. '"event_time":"2026-01-05T12:00:00.000Z","user_id":"u000017","product_id":"p0042","quantity":3,"price":19.90,'
  .. '"currency":"EUR","country":"DE","session":"session-00017"}'
local headers = {
  ["Authorization"] = "Bearer " .. os.getenv("KEY"),
  ["Content-Type"] = count == 1 and "application/json" or "application/x-ndjson",
}
local number = 0

function request()
  local lines = {}
  for place = 1, count do
    number = number + 1
    lines[place] = string.format(event, number)
  end
  if once then headers["Idempotency-Key"] = run .. "-" .. number end
  return wrk.format("POST", nil, headers, table.concat(lines, "\n"))
end

function done(summary, latency)
  local errors = summary.errors
  io.write(string.format(
    '\n{"requests": %d, "seconds": %f, "refused": %d, "broken": %d, "p50": %f, "p99": %f}\n',
    summary.requests, summary.duration / 1e6, errors.status, errors.connect + errors.read + errors.write + errors.timeout,
    latency:percentile(50) / 1e3, latency:percentile(99) / 1e3
  ))
end
