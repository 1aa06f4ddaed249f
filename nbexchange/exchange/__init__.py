"""What an exchange means: who may do what, and what it leaves in the database.

Each verb of nbgrader is one function here. It takes the session and the user first, asks
`policy.permit` before anything else, raises what is missing, and never commits.
"""
