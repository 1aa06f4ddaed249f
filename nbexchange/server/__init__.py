"""What protects the process. It knows no route: connections, rate limits, metrics, readiness,
memory, and the erasure of assignments that were hidden long enough.
"""
