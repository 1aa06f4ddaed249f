"""What protects the process: its memory so far. It knows no route and no verb."""
