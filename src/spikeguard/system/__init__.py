"""Support code: environment record, memory allocator, worker processes, user errors."""
