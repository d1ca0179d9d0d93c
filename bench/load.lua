-- The load test for wrk: two short texts in each request, and other ones in the
-- next, as what is in flight twice would be computed once.

local number = 0

wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"

function request()
   number = number + 1
   return wrk.format(nil, nil, nil, string.format(
      '{"inputs":["What is Vector Search? %d","Hello, world! %d"]}', number, number))
end

function done(summary, latency)
   local errors = summary.errors
   local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
   print(string.format("requests/s   %10.1f", summary.requests / summary.duration * 1e6))
   print(string.format("p50          %10.1f ms", latency:percentile(50) / 1000))
   print(string.format("p99          %10.1f ms", latency:percentile(99) / 1000))
   print(string.format("errors       %10d", failed))
   if failed > 0 or summary.requests == 0 then
      print(string.format(
         "failed: connect %d, read %d, write %d, status %d, timeout %d",
         errors.connect, errors.read, errors.write, errors.status, errors.timeout))
      os.exit(1)
   end
end
