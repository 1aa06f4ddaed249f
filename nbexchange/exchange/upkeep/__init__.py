"""Import, export, purge, inventory: only administrators' commands use this, and no verb."""
