"""What the gateway and the workers agree on: records, results, errors, queue names, storage."""
