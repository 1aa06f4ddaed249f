"""How fast and how frugal the service is: `python -m benchmarks` measures, README.md explains."""
