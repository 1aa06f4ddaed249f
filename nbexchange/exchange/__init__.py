"""The rules of an exchange: who may do what, and which rows each verb writes.

Each verb of nbgrader is one function here. It takes the session and the user first, calls
`policy.permit` before anything else, raises NotFound for missing objects, and never commits.
"""
