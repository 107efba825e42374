"""What may go wrong, tried many times: `make trust` fills the README's table. Minutes, so not `make test`."""
