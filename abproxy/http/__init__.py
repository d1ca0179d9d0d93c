"""What travels over HTTP: requests, responses, headers, and what can go wrong."""
