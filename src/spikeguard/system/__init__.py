"""What is not about networks: environment record, allocator, worker processes, user errors."""
