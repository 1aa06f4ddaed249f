"""What only administrators' commands use: import, export, erase, inventory. No verb needs it."""
