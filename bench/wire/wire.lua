-- The load of bench.wire for wrk: requests that were written before, in turn.
-- They lie in the file that WIRE_REQUESTS names, with a NUL byte after each.

local requests, at = {}, 0

function init()
   local file = assert(io.open(os.getenv("WIRE_REQUESTS"), "rb"))
   for request in file:read("*a"):gmatch("([^%z]+)") do
      requests[#requests + 1] = request
   end
   file:close()
end

function request()
   at = at % #requests + 1
   return requests[at]
end

function done(summary, latency)
   local errors = summary.errors
   print(string.format(
      "wire calls=%d took_us=%d p50_us=%d p99_us=%d"
         .. " connect=%d read=%d write=%d status=%d timeout=%d",
      summary.requests, summary.duration,
      latency:percentile(50), latency:percentile(99),
      errors.connect, errors.read, errors.write, errors.status, errors.timeout))
end
