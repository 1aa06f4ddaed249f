"""What protects the process. It knows no route: connections, rate limits, metrics, readiness,
memory, and the erasure of what was hidden long enough.
"""
