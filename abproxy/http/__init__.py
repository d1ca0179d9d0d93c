"""HTTP messages: requests, responses, headers, and failures."""
